"""Measuring a trained network on points that were answered, image by image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from madbal_ray import rng
from madbal_ray.arrays import IGNORE_INDEX, Mask
from madbal_ray.engine.workers import TrainContext
from madbal_ray.evaluation.point_estimates import Estimate, estimate_from_points, points_for
from madbal_ray.evaluation.prediction import batch_confusion
from madbal_ray.models.inputs import stack_inputs
from madbal_ray.models.network import SegmentationNetwork
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import PoolImage
from madbal_ray.state.ahead import map_ahead

HALF_WIDTH = 0.02


def measure_points(
    network: SegmentationNetwork,
    pool: Pool,
    context: TrainContext,
    *,
    on_original: bool,
    use_bf16: bool,
) -> np.ndarray:
    """Return the points of each image by true and predicted class, int64 [I, C, C].

    Points that were answered without a class are left out, and so are images without others.

    Args:
        pool: with answered points.
        context: of this worker; workers take every n-th image.
        on_original: predictions are brought to the original image, else to the working grid.
    """
    network.set_phase("eval")
    truths = _truths(pool, on_original=on_original)
    shape = (len(truths), pool.num_classes, pool.num_classes)
    counts = torch.zeros(shape, dtype=torch.int64, device=context.device)
    own = range(context.rank, len(truths), context.world_size)
    inputs = map_ahead(
        lambda index: pool.input_of(truths[index][0]),
        own,
        threads=pool.threads,
        ahead=2 * pool.threads,
    )
    for index, one in zip(own, inputs, strict=True):
        truth = torch.from_numpy(truths[index][1]()).to(context.device)
        counts[index] = batch_confusion(
            network,
            stack_inputs([one], context.device),
            truth[None],
            num_classes=pool.num_classes,
            use_bf16=use_bf16,
        )
    return context.all_reduce(counts).cpu().numpy()


def _truths(pool: Pool, *, on_original: bool) -> list[tuple[PoolImage, Any]]:
    """Return the images with answered points, and what makes a mask of them, void elsewhere."""
    assert pool.evaluation_points is not None
    assert pool.points_split is not None
    found = []
    for shard_id in pool.points_split[1]:
        rows = pool.evaluation_points.read_table("labels", [shard_id]).to_pandas()
        rows = rows[rows["status"] == "labelled"]
        of_image = dict(iter(rows.groupby("image_id")))
        for image in pool.images_of(shard_id):
            part = of_image.get(image.image_id)
            if part is None:
                continue
            y, x = ("image_y", "image_x") if on_original else ("y", "x")
            size = (image.height, image.width)
            size = size if on_original else (image.work_height, image.work_width)
            points = (part[y].to_numpy(), part[x].to_numpy(), part["class_id"].to_numpy(np.uint8))
            found.append((image, _mask_maker(size, *points)))
    return found


def _mask_maker(size: tuple[int, int], y: np.ndarray, x: np.ndarray, class_id: np.ndarray) -> Any:
    def make() -> Mask:
        mask = np.full(size, IGNORE_INDEX, np.uint8)
        mask[y, x] = class_id
        return mask

    return make


def point_rows(confusions: np.ndarray, round_index: int) -> list[dict[str, Any]]:
    """Return rows of table `point_metrics`, without what says which measurement they are of."""
    generator = rng.stream(0, "point_metrics", round_index)
    found = estimate_from_points(confusions, generator=generator)
    num_points = int(found.confusion.sum())

    def row(measure: str, class_id: int | None, estimate: Estimate, points: int) -> dict[str, Any]:
        return {
            "measure": measure,
            "class_id": class_id,
            **{
                name: None if math.isnan(value) else value for name, value in vars(estimate).items()
            },
            "num_points": points,
            "num_images": len(confusions),
            "points_needed": points_for(estimate, num_points, HALF_WIDTH),
        }

    return [
        row("miou", None, found.miou, num_points),
        row("pixel_accuracy", None, found.pixel_accuracy, num_points),
        *(
            row("class_iou", class_id, estimate, int(found.confusion[class_id].sum()))
            for class_id, estimate in enumerate(found.class_iou)
        ),
    ]
