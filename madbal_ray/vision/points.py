"""Bilinear values of maps at points, without bringing the maps to full size."""

from __future__ import annotations

from jaxtyping import Float, Integer
from torch import Tensor

from madbal_ray.errors import ShapeError
from madbal_ray.vision.grids import move_points


def sample_points(
    maps: Float[Tensor, "B C h w"],
    *,
    point_batch: Integer[Tensor, "P"],
    point_y: Float[Tensor, "P"],
    point_x: Float[Tensor, "P"],
    height: int,
    width: int,
) -> Float[Tensor, "P C"]:
    """Return the maps' values at points of an H x W grid, float32, differentiable.

    Equals bilinear resizing to H x W (align_corners=False) followed by indexing when the
    points are whole pixels; costs four reads a point instead of H x W pixels.

    Args:
        point_batch: which image a point belongs to, 0..B-1.
        point_y: row on the H x W grid, possibly fractional, -1/2..H-1/2.
        point_x: column, likewise.

    Raises:
        ShapeError: the point arrays differ in length.
    """
    if not len(point_batch) == len(point_y) == len(point_x):
        raise ShapeError(
            f"point_batch, point_y, point_x have lengths {len(point_batch)}, {len(point_y)}, "
            f"{len(point_x)}; expected one entry a point in each"
        )
    _, _, map_height, map_width = maps.shape
    if map_height == map_width == 1:  # a map of one pixel is the same everywhere
        return maps[:, :, 0, 0].index_select(0, point_batch.long()).float()
    y = move_points(point_y, height, map_height).clamp(0, map_height - 1)
    x = move_points(point_x, width, map_width).clamp(0, map_width - 1)
    top, left = y.floor(), x.floor()
    weight_y, weight_x = (y - top).float().unsqueeze(1), (x - left).float().unsqueeze(1)
    top, left = top.long(), left.long()
    bottom, right = (top + 1).clamp(max=map_height - 1), (left + 1).clamp(max=map_width - 1)

    pixels = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])  # a view when channels_last
    row = point_batch.long() * map_height

    def value(rows: Tensor, columns: Tensor) -> Tensor:
        return pixels.index_select(0, (row + rows) * map_width + columns).float()

    above = value(top, left) * (1 - weight_x) + value(top, right) * weight_x
    below = value(bottom, left) * (1 - weight_x) + value(bottom, right) * weight_x
    return above * (1 - weight_y) + below * weight_y
