"""From decoded images to what networks expect."""

from __future__ import annotations

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from madbal_ray.transfer import to_device

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize_images(images: UInt8[Tensor, "B H W 3"]) -> Float32[Tensor, "B 3 H W"]:
    """Return ImageNet-normalised images in channels-last memory, on the same device."""
    mean, std = (
        to_device(torch.tensor(values), images.device) * 255.0
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return ((images.float() - mean) / std).permute(0, 3, 1, 2)
