"""What a training worker knows of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class TrainContext(Protocol):
    """The other workers and the driver, as one worker sees them."""

    rank: int
    world_size: int
    device: torch.device

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all workers."""
        ...

    def all_gather(self, value: Any) -> list[Any]:
        """Return every worker's value, in rank order."""
        ...

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module with gradients averaged over workers."""
        ...

    def barrier(self) -> None:
        """Wait for all workers."""
        ...

    def report(self, progress: dict[str, Any], /) -> None:
        """Tell the driver about a finished epoch."""
        ...


class SingleWorker:
    """The context of a training with one worker and no cluster."""

    rank = 0
    world_size = 1

    def __init__(self, device: torch.device, report: Callable[[dict[str, Any]], None]) -> None:
        self.device = device
        self.report = report

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Return the tensor."""
        return tensor

    def all_gather(self, value: Any) -> list[Any]:
        """Return the one value."""
        return [value]

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module."""
        return module

    def barrier(self) -> None:
        """Wait for nobody."""
