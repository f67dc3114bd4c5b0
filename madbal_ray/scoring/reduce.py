"""From pixel scores to superpixel scores: means, majorities, best unasked pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64, Integer
from torch import Tensor

from madbal_ray.errors import ShapeError
from madbal_ray.scoring.reduce_cpu import draw_on_cpu, reduce_on_cpu

FIXED_POINT_BITS = 62


@dataclass(frozen=True)
class SuperpixelScores:
    """One entry per superpixel of an image; only unasked pixels count.

    Attributes:
        num_pixels: unasked pixels.
        mean_score: mean u(x); 0 where there is no unasked pixel.
        dominant_class: Do(s), class predicted most often (ties: lowest id); -1 where none.
        top_y, top_x: best unasked pixels, highest score first (ties: lower y, then lower
            x); -1 where missing.
        top_score: their scores; -inf where missing.
    """

    num_pixels: Int64[Tensor, "S"]
    mean_score: Float64[Tensor, "S"]
    dominant_class: Int64[Tensor, "S"]
    top_y: Int64[Tensor, "S top"]
    top_x: Int64[Tensor, "S top"]
    top_score: Float32[Tensor, "S top"]


def reduce_scores(
    *,
    score: Float[Tensor, "H W"],
    prediction: Integer[Tensor, "H W"],
    is_asked: Bool[Tensor, "H W"],
    superpixel_ids: Integer[Tensor, "H W"],
    num_superpixels: int,
    num_classes: int,
    top: int,
) -> SuperpixelScores:
    """Reduce the maps of one image to its superpixels, on the device where they are.

    Sums are integers (fixed point, scaled by a power of two so that they cannot
    overflow), so the result does not depend on the order of additions, on any device.

    Args:
        score: u(x), finite.
        prediction: class ids 0..C-1.
        is_asked: True where a pixel was labelled or void; it takes no part.
        superpixel_ids: 0..S-1.
        top: how many of the best unasked pixels to return.

    Raises:
        ShapeError: shapes differ, or `top` is below 1.

    Source: MADBAL Eq. 6 (mean and dominant label).
    """
    shapes = {tuple(m.shape) for m in (score, prediction, is_asked, superpixel_ids)}
    if len(shapes) != 1:
        raise ShapeError(f"score, prediction, is_asked, superpixel_ids have shapes {shapes}")
    if top < 1:
        raise ShapeError(f"top = {top}; expected at least 1")
    width = score.shape[1]
    if score.device.type == "cpu":
        num_pixels, mean_score, dominant, top_pixel, top_score = map(
            torch.from_numpy,
            reduce_on_cpu(
                score.detach().float().numpy(),
                prediction.numpy(),
                is_asked.numpy(),
                superpixel_ids.numpy(),
                num_superpixels=num_superpixels,
                num_classes=num_classes,
                top=top,
                fixed_point_bits=FIXED_POINT_BITS,
            ),
        )
        return _with_coordinates(num_pixels, mean_score, dominant, top_pixel, top_score, width)
    return reduce_on_device(
        score=score,
        prediction=prediction,
        is_asked=is_asked,
        superpixel_ids=superpixel_ids,
        num_superpixels=num_superpixels,
        num_classes=num_classes,
        top=top,
    )


def reduce_on_device(
    *,
    score: Tensor,
    prediction: Tensor,
    is_asked: Tensor,
    superpixel_ids: Tensor,
    num_superpixels: int,
    num_classes: int,
    top: int,
) -> SuperpixelScores:
    """Return what `reduce_scores` returns, by segment operations of torch on any device.

    What CUDA runs, and what the compiled pass for CPUs is tested against, byte for byte.
    Asked pixels go to a segment of their own, cut off in the end: picking out the others
    would make the host wait for their number.
    """
    width = score.shape[1]
    segments = num_superpixels + 1
    asked = is_asked.reshape(-1)
    ids = superpixel_ids.reshape(-1).long().masked_fill(asked, num_superpixels)
    values = score.reshape(-1).float().masked_fill(asked, 0.0)

    num_pixels = _segment_count(ids, segments)[:-1]
    total = _segment_sum(values, ids, segments, num_values=num_pixels.sum())[:-1]
    classes = prediction.reshape(-1).long().masked_fill(asked, 0)
    votes = _segment_count(ids * num_classes + classes, segments * num_classes)
    dominant = _first_maximum(votes.reshape(segments, num_classes)[:-1])
    dominant = torch.where(num_pixels > 0, dominant, -1)
    top_pixel, top_score = _top_pixels(values.masked_fill(asked, -torch.inf), ids, segments, top)
    return _with_coordinates(
        num_pixels,
        total / num_pixels.clamp(min=1),
        dominant,
        top_pixel[:-1],
        top_score[:-1],
        width,
    )


def _with_coordinates(
    num_pixels: Tensor,
    mean_score: Tensor,
    dominant: Tensor,
    top_pixel: Tensor,
    top_score: Tensor,
    width: int,
) -> SuperpixelScores:
    missing = top_pixel < 0
    return SuperpixelScores(
        num_pixels=num_pixels,
        mean_score=mean_score,
        dominant_class=dominant,
        top_y=torch.where(missing, -1, top_pixel // width),
        top_x=torch.where(missing, -1, top_pixel % width),
        top_score=top_score,
    )


def _segment_count(ids: Tensor, num_segments: int) -> Tensor:
    """Return int64 numbers of pixels; torch.bincount would make the host wait."""
    count = torch.zeros(num_segments, dtype=torch.int64, device=ids.device)
    return count.index_add_(0, ids, torch.ones_like(ids))


def _segment_sum(values: Tensor, ids: Tensor, num_segments: int, *, num_values: Tensor) -> Tensor:
    """Return float64 sums by segment that do not depend on the order of additions.

    Args:
        num_values: int64, how many of the values may be other than 0.
    """
    exponent = torch.frexp(values.abs().max()).exponent.long()
    bit_length = torch.frexp(num_values.double()).exponent.long()
    scale = _power_of_two(FIXED_POINT_BITS - exponent - bit_length)
    total = torch.zeros(num_segments, dtype=torch.int64, device=values.device)
    total.index_add_(0, ids, (values.double() * scale).round().long())
    return total.double() / scale


def _power_of_two(exponent: Tensor) -> Tensor:
    """Return 2**exponent as float64, built from its bits: exact and without leaving the device."""
    return ((exponent + 1023) << 52).view(torch.float64)


def _first_maximum(votes: Tensor) -> Tensor:
    """Return the column of each row's maximum, the lowest one among equals."""
    columns = torch.arange(votes.shape[1], device=votes.device)
    is_best = votes == votes.amax(dim=1, keepdim=True)
    return torch.where(is_best, columns, votes.shape[1]).amin(dim=1)


def _top_pixels(values: Tensor, ids: Tensor, num_segments: int, top: int) -> tuple[Tensor, Tensor]:
    """Return flat pixel positions and scores of each segment's best, row by row best first.

    Pixels of value -inf are never taken.
    """
    none = torch.iinfo(torch.int64).max
    pixels = torch.arange(len(values), device=values.device)
    positions, scores = [], []
    for _ in range(top):
        best = values.new_full((num_segments,), -torch.inf)
        best.scatter_reduce_(0, ids, values, "amax")
        is_best = (values == best[ids]) & (values > -torch.inf)
        position = pixels.new_full((num_segments,), none)
        position.scatter_reduce_(0, ids, torch.where(is_best, pixels, none), "amin")
        positions.append(torch.where(position == none, -1, position))
        scores.append(best)
        values = values.masked_fill(pixels == position[ids], -torch.inf)
    return torch.stack(positions, dim=1), torch.stack(scores, dim=1)


def random_top_pixels(
    *,
    score: Float[Tensor, "H W"],
    is_asked: Bool[Tensor, "H W"],
    superpixel_ids: Integer[Tensor, "H W"],
    num_superpixels: int,
    top: int,
    share: float,
    generator: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Return `top` random pixels among each superpixel's most uncertain ones.

    Drawn from the ceil(share * unasked) highest scores of the superpixel (at least `top`),
    so that one outlier does not speak for a whole superpixel.

    Returns:
        ``top_y``, ``top_x``, ``top_score`` as in `SuperpixelScores`, numpy.

    Source: method 10, an option.
    """
    if score.device.type == "cpu":
        position, top_score = draw_on_cpu(
            score.detach().float().numpy(),
            is_asked.numpy(),
            superpixel_ids.numpy(),
            num_superpixels=num_superpixels,
            top=top,
            share=share,
            generator=generator,
        )
    else:
        position, top_score = draw_on_device(
            score, is_asked, superpixel_ids, num_superpixels, top, share, generator
        )
    y, x = np.divmod(position, score.shape[1])
    x[y < 0] = -1  # y is -1 already
    return {"top_y": y, "top_x": x, "top_score": top_score}


def draw_on_device(
    score: Tensor,
    is_asked: Tensor,
    superpixel_ids: Tensor,
    num_superpixels: int,
    top: int,
    share: float,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return flat positions and scores of `random_top_pixels`, by torch on any device.

    What CUDA runs, and what the compiled code for CPUs is tested against, byte for byte.
    """
    pixels = torch.nonzero(~is_asked.reshape(-1)).squeeze(1)
    ids = superpixel_ids.reshape(-1)[pixels].long()
    values = score.reshape(-1)[pixels].float()
    best_first = torch.sort(values, descending=True, stable=True).indices
    order = best_first[torch.sort(ids[best_first], stable=True).indices]
    segment, pixels, values = ids[order], pixels[order], values[order]
    counts = _segment_count(segment, num_superpixels)
    drawn_from = torch.ceil(share * counts.double()).clamp(min=top)
    kept = torch.minimum(counts, drawn_from.long())
    candidates = torch.nonzero(_rank_in_segment(segment, counts) < kept[segment]).squeeze(1)
    keys = torch.from_numpy(generator.random(len(candidates))).to(score.device)
    shuffled = candidates[torch.sort(keys, stable=True).indices]
    shuffled = shuffled[torch.sort(segment[shuffled], stable=True).indices]
    is_taken = _rank_in_segment(segment[shuffled], kept) < top
    chosen = torch.sort(shuffled[is_taken]).values  # best first again
    column = _rank_in_segment(segment[chosen], kept.clamp(max=top))
    position = torch.full((num_superpixels, top), -1, device=score.device)
    top_score = torch.full((num_superpixels, top), -torch.inf, device=score.device)
    position[segment[chosen], column] = pixels[chosen]
    top_score[segment[chosen], column] = values[chosen]
    return position.cpu().numpy(), top_score.cpu().numpy()


def _rank_in_segment(segment: Tensor, counts: Tensor) -> Tensor:
    """Return 0, 1, ... within each run of a sorted segment, whose lengths are the counts."""
    first = torch.cumsum(counts, dim=0) - counts
    return torch.arange(len(segment), device=segment.device) - first[segment]
