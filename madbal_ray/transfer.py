"""From the host's memory to a device's, without waiting for each other."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_device(values: Tensor | np.ndarray, device: str | torch.device) -> Tensor:
    """Return values as a tensor on a device; what is there already stays as it is.

    To a CUDA device they go from pinned memory, in the stream's order, and the host goes on. A
    copy from ordinary memory waits for all that the device was given to do before, so that from
    then on it waits for the host.
    """
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if torch.device(device).type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
