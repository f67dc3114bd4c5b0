"""Measuring a trained network on points that were answered, image by image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from madbal_ray.engine.workers import TrainContext
from madbal_ray.evaluation.point_estimates import Estimate, PointEstimates, points_for
from madbal_ray.evaluation.prediction import predict
from madbal_ray.models.inputs import stack_inputs
from madbal_ray.models.network import SegmentationNetwork
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import PoolImage
from madbal_ray.state import tables
from madbal_ray.state.ahead import map_ahead


@dataclass(frozen=True)
class MeasuredPoints:
    """Points that have a class, int64 [P] each.

    Attributes:
        image: place of the point's image among those that hold points.
        truth, predicted: class ids.
    """

    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray

    @property
    def num_images(self) -> int:
        """Return how many images hold them."""
        return len(np.unique(self.image))


def measure_points(
    network: SegmentationNetwork,
    pool: Pool,
    context: TrainContext,
    *,
    on_original: bool,
    use_bf16: bool,
) -> MeasuredPoints:
    """Return what the network says at every point.

    Points that were answered without a class are left out, and so are images without others.

    Args:
        pool: with answered points.
        context: of this worker; workers take every n-th image.
        on_original: predictions are brought to the original image, else to the working grid.
    """
    network.set_phase("eval")
    found = _points(pool)
    counts = [len(rows) for _, rows in found]
    start = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    predicted = torch.zeros(int(start[-1]), dtype=torch.int64, device=context.device)
    own = range(context.rank, len(found), context.world_size)
    inputs = map_ahead(
        lambda index: pool.input_of(found[index][0]),
        own,
        threads=pool.threads,
        ahead=2 * pool.threads,
    )
    for index, one in zip(own, inputs, strict=True):
        image, rows = found[index]
        size = (image.work_height, image.work_width)
        size = (image.height, image.width) if on_original else size
        (classes,) = predict(
            network,
            stack_inputs([one], context.device),
            size,
            device=context.device,
            use_bf16=use_bf16,
        )
        y, x = (
            torch.from_numpy(rows[name].to_numpy(np.int64)).to(context.device)
            for name in (("image_y", "image_x") if on_original else ("y", "x"))
        )
        predicted[start[index] : start[index + 1]] = classes[y, x]
    truths = [rows["class_id"].to_numpy(np.int64) for _, rows in found]
    return MeasuredPoints(
        image=np.repeat(np.arange(len(found)), counts),
        truth=np.concatenate([np.zeros(0, np.int64), *truths]),
        predicted=context.all_reduce(predicted).cpu().numpy(),
    )


def _points(pool: Pool) -> list[tuple[PoolImage, pd.DataFrame]]:
    """Return the images with answered points, and their rows of the label table."""
    assert pool.evaluation_points is not None
    assert pool.points_split is not None
    found = []
    for shard_id in pool.points_split[1]:
        rows = pool.evaluation_points.read_table("labels", [shard_id]).to_pandas()
        rows = rows[rows["status"] == "labelled"]
        of_image = dict(iter(rows.groupby("image_id")))
        found += [
            (image, of_image[image.image_id])
            for image in pool.images_of(shard_id)
            if image.image_id in of_image
        ]
    return found


def point_rows(found: PointEstimates, num_images: int) -> list[dict[str, Any]]:
    """Return rows of table `point_metrics`, without what says which measurement they are of.

    Args:
        num_images: that hold the points.
    """
    num_points = int(found.confusion.sum())

    def row(measure: str, class_id: int | None, estimate: Estimate, points: int) -> dict[str, Any]:
        return {
            "measure": measure,
            "class_id": class_id,
            **{
                name: None if math.isnan(value) else value for name, value in vars(estimate).items()
            },
            "num_points": points,
            "num_images": num_images,
            "points_needed": points_for(estimate, num_points, tables.HALF_WIDTH),
        }

    return [
        row("miou", None, found.miou, num_points),
        row("pixel_accuracy", None, found.pixel_accuracy, num_points),
        *(
            row("class_iou", class_id, estimate, int(found.confusion[class_id].sum()))
            for class_id, estimate in enumerate(found.class_iou)
        ),
    ]
