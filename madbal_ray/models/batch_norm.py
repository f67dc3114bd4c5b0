"""Batch norm where several workers share a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from madbal_ray.errors import ConfigError
from madbal_ray.models.timm_backbone import TimmBody

FEWEST_IMAGES = 2
"""Of a worker whose batch norms see no other worker's images."""


def share_batch_norm(network: nn.Module, *, workers: int, device: torch.device) -> None:
    """Have the network's batch norms take their statistics from all workers' images.

    Torch can do that on CUDA only; elsewhere, and with one worker, the network stays as it is. In
    eval mode the norms act as before; parameters, names and running statistics are kept.
    """
    if workers == 1 or device.type != "cuda":
        return
    convert: Callable[[nn.Module], Any] = nn.SyncBatchNorm.convert_sync_batchnorm
    if any(isinstance(module, TimmBody) for module in network.modules()):
        # timm's own norms hold an activation, which torch's conversion drops without a word
        from timm.layers.norm_act import convert_sync_batchnorm

        convert = convert_sync_batchnorm
    convert(network)


def check_own_batch_norm(network: nn.Module, *, option: str, batch_size: int, workers: int) -> None:
    """See that batch norms in training see enough images where each worker's are its own.

    Args:
        option: that holds `batch_size`, for the message.
        batch_size: over all workers.

    Raises:
        ConfigError: a worker has a single image, whose statistics tell of no other.
    """
    if batch_size // workers >= FEWEST_IMAGES:
        return
    norms = (nn.modules.batchnorm._BatchNorm,)
    if any(isinstance(m, norms) and m.training for m in network.modules()):
        raise ConfigError(
            f"{option} = {batch_size} over {workers} workers is one image for some, and on CPUs "
            "batch norm takes its statistics from a worker's own images: set train.num_workers="
            f"{max(1, batch_size // FEWEST_IMAGES)} or {option}={FEWEST_IMAGES * workers}; on "
            "GPUs statistics are taken over all workers"
        )
