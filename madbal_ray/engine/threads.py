"""Sharing out a worker's threads: several images at once, rather than several threads an image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

MOST_AT_ONCE = 4
"""Batches that are computed at the same time, since each takes memory."""


def free_cores() -> int:
    """Return the cores of this process that nobody is using now, one at least.

    More threads than free cores wait for each other: two threads on a busy pair of cores were
    seven times slower than one.
    """
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = os.getloadavg()[0]
    return max(1, min(mine, round((os.cpu_count() or 1) - busy)))


@contextmanager
def shared_threads(network: nn.Module, device: torch.device) -> Iterator[int]:
    """Yield how many threads may run the network at once, each with its share of torch's threads.

    On CPUs one image's layers are too small for two threads to be worth waking: two images at
    once take 0.6 of the time and of the CPU's seconds (docs/performance.md). One thread on other
    devices, and for a network that torch.compile compiles, which is not made for several.
    """
    before = torch.get_num_threads()
    is_compiled = getattr(network, "_compiled_call_impl", None) is not None
    at_once = 1 if is_compiled or device.type != "cpu" else min(before, MOST_AT_ONCE)
    torch.set_num_threads(before // at_once)
    try:
        yield at_once
    finally:
        torch.set_num_threads(before)
