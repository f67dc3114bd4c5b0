"""Training augmentation of images and their labelled points, by one exact affine map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

from madbal_ray.arrays import RGBImage
from madbal_ray.config.training import AugmentConfig
from madbal_ray.transfer import to_device
from madbal_ray.vision import geometry
from madbal_ray.vision.normalize import normalize_images

BLUR_RADIUS = 2
BLUR_SIGMA = (0.1, 1.5)
"""Pixels."""
HUE_PART = 4
"""Hue changes by a quarter of what the other properties change by."""


@dataclass(frozen=True)
class ColorChange:
    """Factors of brightness, contrast and saturation (1: none), hue shift (0: none)."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    is_gray: bool


@dataclass(frozen=True)
class Augmentation:
    """What happens to one image.

    Attributes:
        matrix: source pixel index -> crop pixel index.
        blur_sigma: pixels; 0: none.
        color: None: colours stay.
    """

    matrix: geometry.Matrix
    blur_sigma: float
    color: ColorChange | None = None


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
    return Augmentation(
        geometry.translation(shift_y, shift_x) @ matrix, sigma, _draw_color(config, generator)
    )


def _draw_color(config: AugmentConfig, generator: np.random.Generator) -> ColorChange | None:
    if not (config.color_jitter or config.grayscale_probability):
        return None
    strength = config.color_jitter
    brightness, contrast, saturation = generator.uniform(1 - strength, 1 + strength, 3)
    return ColorChange(
        brightness=float(brightness),
        contrast=float(contrast),
        saturation=float(saturation),
        hue=float(generator.uniform(-strength, strength) / HUE_PART),
        is_gray=bool(generator.random() < config.grayscale_probability),
    )


def augment_images(
    images: Sequence[RGBImage],
    augmentations: Sequence[Augmentation],
    crop: tuple[int, int],
    device: torch.device,
) -> Float[Tensor, "B 3 H W"]:
    """Return normalised, augmented crops; what lies outside an image is 0, the mean colour.

    Images of one size move together, others one by one.
    """
    if len({image.shape for image in images}) == 1:
        return _augment_batch(np.stack(images), augmentations, crop, device)
    crops = [
        _augment_batch(image[None], [augmentation], crop, device)
        for image, augmentation in zip(images, augmentations, strict=True)
    ]
    return torch.cat(crops).contiguous(memory_format=torch.channels_last)


def _augment_batch(
    images: np.ndarray,
    augmentations: Sequence[Augmentation],
    crop: tuple[int, int],
    device: torch.device,
) -> Tensor:
    pixels = to_device(images, device)
    changes = [augmentation.color for augmentation in augmentations]
    if any(change is not None for change in changes):
        pixels = torch.stack(
            [
                image if change is None else _change_color(image, change)
                for image, change in zip(pixels, changes, strict=True)
            ]
        )
    matrices = [augmentation.matrix for augmentation in augmentations]
    moved = geometry.warp(normalize_images(pixels), matrices, *crop)
    sigmas = [augmentation.blur_sigma for augmentation in augmentations]
    if any(sigmas):
        moved = _gaussian_blur(moved, to_device(torch.tensor(sigmas), device))
    return moved.contiguous(memory_format=torch.channels_last)


def _change_color(image: Tensor, change: ColorChange) -> Tensor:
    """Change the colours of one uint8 image [h, w, 3]."""
    channels_first = image.permute(2, 0, 1)
    changed = TF.adjust_brightness(channels_first, change.brightness)
    changed = TF.adjust_contrast(changed, change.contrast)
    changed = TF.adjust_saturation(changed, change.saturation)
    changed = TF.adjust_hue(changed, change.hue)
    if change.is_gray:
        changed = TF.rgb_to_grayscale(changed, num_output_channels=3)
    return changed.permute(1, 2, 0)


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
