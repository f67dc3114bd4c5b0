"""The evaluation pass between the phases: loss, delta and target of every labelled pixel."""

from __future__ import annotations

import numpy as np
import torch

from madbal_ray.engine.workers import TrainContext
from madbal_ray.labels.labeled_points import LabeledPoints
from madbal_ray.models.inputs import stack_inputs
from madbal_ray.models.network import SegmentationNetwork
from madbal_ray.pool.prepared import Pool
from madbal_ray.state.ahead import map_ahead
from madbal_ray.training.loss_prediction import (
    ClassLossThresholds,
    class_loss_thresholds,
    loss_targets,
)
from madbal_ray.training.point_loss import point_cross_entropy


def record_points(
    network: SegmentationNetwork,
    points: LabeledPoints,
    pool: Pool,
    context: TrainContext,
    *,
    use_bf16: bool,
) -> ClassLossThresholds:
    """Fill in `points.is_target` and `points.is_boundary`; return tau of every class.

    Every image is seen once, alone, at its own size, without augmentation, in eval mode.
    Workers take every n-th image; the losses are put back in (image_id, y, x) order
    before they are averaged, so tau does not depend on the number of workers.

    Source: MADBAL Eq. 1; method 2.
    """
    network.set_phase("eval")
    mine = range(context.rank, len(points.images), context.world_size)
    decoded = map_ahead(
        lambda index: pool.input_and_boundary(points.images[index]),
        mine,
        threads=pool.threads,
        ahead=2 * pool.threads,
    )
    recorded = []
    for index, (inputs, boundary) in zip(mine, decoded, strict=True):
        rows = points.of_image(index)
        y, x = points.y[rows].astype(np.int64), points.x[rows].astype(np.int64)
        with torch.inference_mode():
            images = stack_inputs([inputs], context.device)
            with torch.autocast(context.device.type, torch.bfloat16, enabled=use_bf16):
                logits = network(images, supports=False).logits
            loss = point_cross_entropy(
                logits=logits,
                point_batch=torch.zeros(len(y), dtype=torch.int64, device=context.device),
                point_y=torch.from_numpy(y).to(context.device),
                point_x=torch.from_numpy(x).to(context.device),
                point_class=torch.from_numpy(points.class_id[rows]).to(context.device),
                height=boundary.shape[0],
                width=boundary.shape[1],
            )
        recorded.append((index, loss.cpu().numpy(), boundary[y, x]))

    losses = np.zeros(len(points.y), np.float32)
    is_boundary = np.zeros(len(points.y), bool)
    for part in context.all_gather(recorded):
        for index, loss, boundary in part:
            losses[points.of_image(index)] = loss
            is_boundary[points.of_image(index)] = boundary
    thresholds = class_loss_thresholds(
        loss=losses, class_id=points.class_id, num_classes=pool.num_classes
    )
    points.is_target = loss_targets(loss=losses, class_id=points.class_id, thresholds=thresholds)
    points.is_boundary = is_boundary
    return thresholds
