"""What a training worker knows of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


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

    def decide(self, look: Callable[[], T], /) -> T:
        """Return, on all workers, what `look` gives on rank 0; nobody else calls it.

        Whether a file is there may look different from another node, and workers that act on
        different answers wait for each other for ever.
        """
        ...

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module with gradients averaged over workers.

        A module with `has_unused_parameters` may have some that no loss depends on.
        """
        ...

    def agree_on_buffers(self, module: nn.Module) -> None:
        """Give all workers the module's buffers of rank 0.

        Batch norms of several CPU workers know the statistics of their own images.
        """
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

    def decide(self, look: Callable[[], T], /) -> T:
        """Return what `look` gives."""
        return look()

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module."""
        return module

    def agree_on_buffers(self, module: nn.Module) -> None:
        """Leave them as they are."""

    def barrier(self) -> None:
        """Wait for nobody."""


class GroupWorker:
    """A worker among those that `torch.distributed` has joined; reports are for who derives.

    Args:
        device: that holds this worker's network; the current CUDA device, where it is one.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.device = device

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all workers."""
        dist.all_reduce(tensor)
        return tensor

    def all_gather(self, value: Any) -> list[Any]:
        """Return every worker's value, in rank order."""
        gathered: list[Any] = [None] * self.world_size
        dist.all_gather_object(gathered, value)
        return gathered

    def decide(self, look: Callable[[], T], /) -> T:
        """Return what `look` gives on rank 0."""
        decided: list[Any] = [look() if self.rank == 0 else None]
        dist.broadcast_object_list(decided)
        return decided[0]

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module under DistributedDataParallel."""
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            module,
            device_ids=devices,
            find_unused_parameters=getattr(module, "has_unused_parameters", False),
        )

    def agree_on_buffers(self, module: nn.Module) -> None:
        """Give all workers the buffers of rank 0."""
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)

    def barrier(self) -> None:
        """Wait for all workers."""
        dist.barrier()
