"""Timing side by side, and the table that comes out."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        ours, plain: as printed, with their units.
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


def side_by_side(
    first: Callable[[], Any],
    second: Callable[[], Any],
    *,
    device: str,
    repeats: int = 9,
) -> tuple[float, float]:
    """Return median seconds of two ways, run in turns so that noise hits both."""
    times: tuple[list[float], list[float]] = ([], [])
    for function in (first, second):
        function()
    for _ in range(repeats):
        for function, found in zip((first, second), times, strict=True):
            found.append(_seconds(function, device))
    return statistics.median(times[0]), statistics.median(times[1])


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
