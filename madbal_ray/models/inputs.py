"""From pictures, or the kept features of pictures, to what a network takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from madbal_ray.transfer import to_device
from madbal_ray.vision.normalize import normalize_images

Stacked = Tensor | tuple[Tensor, ...]
"""Pictures or taps of several images in one array each."""


def stack_on_host(
    inputs: Sequence[np.ndarray | tuple[np.ndarray, ...]], device: str | torch.device
) -> Stacked:
    """Return pictures, uint8 [B, H, W, 3], or the four taps, float16 [B, h_k, w_k, c_k].

    For CUDA they lie in pinned memory, from where they travel while the GPU computes.

    Args:
        inputs: pictures, uint8 [H, W, 3]; or of each its taps, float16 [h_k, w_k, c_k].
    """

    def stack(arrays: Sequence[np.ndarray]) -> Tensor:
        stacked = torch.from_numpy(np.stack(arrays))
        return stacked.pin_memory() if torch.device(device).type == "cuda" else stacked

    pictures = [one for one in inputs if isinstance(one, np.ndarray)]
    if pictures:
        return stack(pictures)
    of_tap = zip(*(one for one in inputs if isinstance(one, tuple)), strict=True)
    return tuple(stack(maps) for maps in of_tap)


def stack_inputs(
    inputs: Stacked | Sequence[np.ndarray | tuple[np.ndarray, ...]], device: torch.device
) -> Stacked:
    """Return normalised images [B, 3, H, W], or the four taps of images [B, c_k, h_k, w_k].

    Args:
        inputs: what `stack_on_host` takes, or has given.
    """
    is_stacked = isinstance(inputs, Tensor) or isinstance(inputs[0], Tensor)
    stacked: Any = inputs if is_stacked else stack_on_host(inputs, device)  # type: ignore[arg-type]
    if isinstance(stacked, Tensor):
        return normalize_images(to_device(stacked, device))
    return tuple(to_device(maps, device).permute(0, 3, 1, 2) for maps in stacked)
