"""From pictures, or the kept features of pictures, to what a network takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from madbal_ray.vision.normalize import normalize_images


def stack_inputs(
    inputs: Sequence[np.ndarray | tuple[np.ndarray, ...]], device: torch.device
) -> Tensor | tuple[Tensor, ...]:
    """Return normalised images [B, 3, H, W], or the four taps of images [B, c_k, h_k, w_k].

    Args:
        inputs: pictures, uint8 [H, W, 3]; or of each its taps, float16 [h_k, w_k, c_k].
    """
    pictures = [one for one in inputs if isinstance(one, np.ndarray)]
    if pictures:
        return normalize_images(torch.from_numpy(np.stack(pictures)).to(device))
    of_tap = zip(*(one for one in inputs if isinstance(one, tuple)), strict=True)
    return tuple(torch.from_numpy(np.stack(maps)).to(device).permute(0, 3, 1, 2) for maps in of_tap)
