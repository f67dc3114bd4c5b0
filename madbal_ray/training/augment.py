"""Training augmentation of images and their labelled points, by one exact affine map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from madbal_ray.config import AugmentConfig
from madbal_ray.vision import geometry

BLUR_RADIUS = 2
BLUR_SIGMA = (0.1, 1.5)
"""Pixels."""


@dataclass(frozen=True)
class Augmentation:
    """What happens to one image.

    Attributes:
        matrix: source pixel index -> crop pixel index.
        blur_sigma: pixels; 0: none.
    """

    matrix: geometry.Matrix
    blur_sigma: float


def draw_augmentation(
    config: AugmentConfig,
    generator: np.random.Generator,
    *,
    size: tuple[int, int],
    crop: tuple[int, int],
) -> Augmentation:
    """Draw flip, scale, rotation, crop and blur of one image.

    Args:
        size: (height, width) of the image on the input grid.
        crop: (height, width) of the result; equal to `size` where nothing is cropped.
    """
    height, width = size
    flipped = config.flip and generator.random() < 0.5
    factor = float(np.exp(generator.uniform(*np.log(config.scale))))
    degrees = float(generator.uniform(-config.rotation_degrees, config.rotation_degrees))
    place_y, place_x = generator.random(2)
    is_blurred = generator.random() < config.blur_probability
    sigma = float(generator.uniform(*BLUR_SIGMA)) if is_blurred else 0.0

    scaled_height, scaled_width = max(1, round(height * factor)), max(1, round(width * factor))
    matrix = geometry.scaling(scaled_height / height, scaled_width / width)
    if flipped:
        matrix = geometry.horizontal_flip(scaled_width) @ matrix
    matrix = geometry.rotation(degrees, scaled_height, scaled_width) @ matrix
    shift_y = -round(float(place_y) * (scaled_height - crop[0]))
    shift_x = -round(float(place_x) * (scaled_width - crop[1]))
    return Augmentation(geometry.translation(shift_y, shift_x) @ matrix, sigma)


def augment_images(
    images: Float[Tensor, "B 3 h w"], augmentations: list[Augmentation], crop: tuple[int, int]
) -> Float[Tensor, "B 3 H W"]:
    """Apply drawn augmentations to normalised images; outside is 0, the mean colour."""
    moved = geometry.warp(images, [one.matrix for one in augmentations], *crop)
    sigmas = [one.blur_sigma for one in augmentations]
    if any(sigmas):
        moved = _gaussian_blur(moved, torch.tensor(sigmas, device=moved.device))
    return moved.contiguous(memory_format=torch.channels_last)


def _gaussian_blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Blur each image with its own sigma; sigma 0 leaves it as it is."""
    batch, channels, height, width = images.shape
    offsets = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=images.device)
    safe = sigmas.clamp(min=1e-3)[:, None]
    kernel = torch.exp(-(offsets[None] ** 2) / (2 * safe**2))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    flat = images.reshape(1, batch * channels, height, width)
    flat = F.pad(flat, (BLUR_RADIUS,) * 4, mode="replicate")
    groups = batch * channels
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=groups)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=groups)
    return flat.reshape(batch, channels, height, width)
