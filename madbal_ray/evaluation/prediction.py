"""A network's predictions, counted against truth."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from madbal_ray.evaluation.metrics import confusion_matrix
from madbal_ray.models.network import SegmentationNetwork


def batch_confusion(
    network: SegmentationNetwork,
    inputs: torch.Tensor | tuple[torch.Tensor, ...],
    truth: torch.Tensor,
    *,
    num_classes: int,
    use_bf16: bool,
) -> torch.Tensor:
    """Return the confusion matrix [true, predicted] of some images.

    Args:
        inputs: normalised images, or taps of a frozen backbone.
        truth: class ids [B, H, W]; predictions are brought to its grid.
    """
    device = truth.device
    with torch.inference_mode():
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bf16):
            logits = network(inputs, supports=False).logits
        full = F.interpolate(
            logits.float(), tuple(truth.shape[1:]), mode="bilinear", align_corners=False
        )
        return confusion_matrix(truth=truth, prediction=full.argmax(dim=1), num_classes=num_classes)
