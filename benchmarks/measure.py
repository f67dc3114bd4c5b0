"""Timing side by side, and the table that comes out."""

from __future__ import annotations

import hashlib
import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        ours, plain: as printed, with their units; `plain` is the published way, where there is one.
        compiled: the best that plain torch does: vectorised, and compiled by torch.compile.
        figure: what the target is about.
        target: as the issue states it; None: for information.
        is_met: None without a target.
    """

    what: str
    ours: str
    plain: str
    figure: str
    target: str | None = None
    is_met: bool | None = None
    note: str = ""
    compiled: str = ""


def side_by_side(
    first: Callable[[], Any],
    second: Callable[[], Any],
    *,
    device: str,
    repeats: int = 9,
) -> tuple[float, float]:
    """Return median seconds of two ways, run in turns so that noise hits both."""
    one, other = in_turns([first, second], device=device, repeats=repeats)
    return one, other


def in_turns(
    ways: Sequence[Callable[[], Any]], *, device: str, repeats: int = 9
) -> tuple[float, ...]:
    """Return median seconds of each way, run in turns so that noise hits all."""
    times: list[list[float]] = [[] for _ in ways]
    for function in ways:
        function()
    for _ in range(repeats):
        for function, found in zip(ways, times, strict=True):
            found.append(_seconds(function, device))
    return tuple(statistics.median(found) for found in times)


def processors_given(seconds: float = 0.5) -> int:
    """Return how many processors this machine gives this process now, at least 1.

    Those it may run on, cut to what as many busy threads get of them: a container's share or
    other processes take the rest. More threads than that wait for each other, and a way with many
    short parallel loops then looks many times slower than it is.
    """
    allowed = len(os.sched_getaffinity(0))
    block = bytes(2**20)
    end = time.perf_counter() + seconds

    def work() -> None:
        while time.perf_counter() < end:
            hashlib.sha256(block)  # without Python's lock

    threads = [threading.Thread(target=work) for _ in range(allowed)]
    wall, used = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    got = (time.process_time() - used) / (time.perf_counter() - wall)
    return min(allowed, max(1, round(got)))


def _seconds(function: Callable[[], Any], device: str) -> float:
    if device == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def milliseconds(seconds: float) -> str:
    """Return a time as text."""
    return f"{1000 * seconds:.1f} ms" if seconds < 10 else f"{seconds:.1f} s"


def machine(device: str) -> str:
    """Return what the figures were measured on."""
    if device == "cuda":
        where = torch.cuda.get_device_name()
    else:
        lines = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
        where = next(
            (line.partition(":")[2].strip() for line in lines.splitlines() if "Model name" in line),
            platform.machine(),
        )
    return (
        f"{where}, {torch.get_num_threads()} threads; torch {torch.__version__}, "
        f"python {platform.python_version()}"
    )
