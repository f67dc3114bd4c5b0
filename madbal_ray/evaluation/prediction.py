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
    size = (truth.shape[1], truth.shape[2])
    prediction = predict(network, inputs, size, device=truth.device, use_bf16=use_bf16)
    return confusion_matrix(truth=truth, prediction=prediction, num_classes=num_classes)


def predict(
    network: SegmentationNetwork,
    inputs: torch.Tensor | tuple[torch.Tensor, ...],
    size: tuple[int, int],
    *,
    device: torch.device,
    use_bf16: bool,
) -> torch.Tensor:
    """Return the predicted class ids [B, H, W] of some images.

    Args:
        inputs: normalised images, or taps of a frozen backbone.
        size: (H, W) of the grid that logits are brought to.
    """
    with torch.inference_mode():
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bf16):
            logits = network(inputs, supports=False).logits
        full = F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
        return full.argmax(dim=1)
