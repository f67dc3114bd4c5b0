"""From decoded images to what networks expect."""

from __future__ import annotations

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize_images(images: UInt8[Tensor, "B H W 3"]) -> Float32[Tensor, "B 3 H W"]:
    """Return ImageNet-normalised images in channels-last memory, on the same device."""
    mean = torch.tensor(IMAGENET_MEAN, device=images.device) * 255.0
    std = torch.tensor(IMAGENET_STD, device=images.device) * 255.0
    return ((images.float() - mean) / std).permute(0, 3, 1, 2)
