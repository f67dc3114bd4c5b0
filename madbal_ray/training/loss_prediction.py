"""What the loss prediction module learns: targets and loss (paper Eq. 1, 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, Integer
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ClassLossThresholds:
    """tau_c and the labels it was averaged over.

    Attributes:
        threshold: mean phase I loss by class, nats; NaN for a class without labels.
        num_labels: labelled pixels by class.
    """

    threshold: Float64[np.ndarray, "C"]
    num_labels: Int64[np.ndarray, "C"]


def class_loss_thresholds(
    *, loss: Float[np.ndarray, "P"], class_id: Integer[np.ndarray, "P"], num_classes: int
) -> ClassLossThresholds:
    """Average the recorded losses by class in float64, in the order given.

    Args:
        loss: phase I cross-entropy of every labelled pixel, sorted by (image_id, y, x), so
            that the result does not depend on the number of workers.

    Source: MADBAL Eq. 1 (tau).
    """
    count = np.bincount(class_id, minlength=num_classes).astype(np.int64)
    total = np.bincount(class_id, weights=loss.astype(np.float64), minlength=num_classes)
    threshold = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return ClassLossThresholds(threshold, count)


def loss_targets(
    *,
    loss: Float[np.ndarray, "P"],
    class_id: Integer[np.ndarray, "P"],
    thresholds: ClassLossThresholds,
) -> Bool[np.ndarray, "P"]:
    """Return Y_L: whether a pixel's loss is at least the threshold of its class (Eq. 1)."""
    return loss.astype(np.float64) >= thresholds.threshold[class_id]


def loss_prediction_loss(
    *,
    error_logits: Float[Tensor, "P 2"],
    target: Bool[Tensor, "P"],
    is_boundary: Bool[Tensor, "P"],
    num_boundary: int,
    num_center: int,
) -> tuple[Tensor, Tensor]:
    """Return the boundary and the center loss of Eq. 2; an empty set contributes 0.

    Args:
        error_logits: boundary and center channel at the points.
        num_boundary, num_center: how many points the sums are divided by (those of the
            whole batch, over all workers).
    """
    wanted = target.to(error_logits.dtype)

    def average(channel: int, where: Tensor, count: int) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(
            error_logits[:, channel], wanted, reduction="none"
        )
        return torch.where(where, losses, 0.0).sum() / max(count, 1)

    return average(0, is_boundary, num_boundary), average(1, ~is_boundary, num_center)
