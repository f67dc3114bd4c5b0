"""What a run tells Prometheus through Ray: images, bad images, seconds, GPU memory.

Ray exports these from every node where ``ray[default]`` is installed, with ``ray_`` before the
name (docs/cluster.md); elsewhere recording does nothing. The driver counts finished shards, so
that a shard whose worker died counts once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from ray.util.metrics import Counter, Gauge, Histogram

TAGS = ("stage", "run")

IMAGES = Counter("madbal_images_total", "Images done.", TAGS)
BAD_IMAGES = Counter("madbal_bad_images_total", "Images quarantined.", TAGS)
STAGE_SECONDS = Counter("madbal_stage_seconds_total", "Seconds spent in a stage.", TAGS)
SHARD_SECONDS = Histogram(
    "madbal_shard_seconds",
    "Seconds of one shard on its worker; the sum is Ray's estimate from the buckets.",
    [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0],
    TAGS,
)
GPU_MEMORY = Gauge(
    "madbal_gpu_memory_bytes", "The most GPU memory that a worker's torch ever held.", TAGS
)


class RunMetrics:
    """What the driver of one run counts.

    Args:
        run: its name, the tag `run`.
    """

    def __init__(self, run: str) -> None:
        self.run = run

    def on_shard(self, stage: str, row: Mapping[str, Any]) -> None:
        """Count a shard by its manifest row; one that failed counts nothing."""
        if "error" in row:
            return
        tags = {"stage": stage, "run": self.run}
        counts = row["counts"]
        for counter, count in ((IMAGES, counts["images"]), (BAD_IMAGES, counts.get("quarantined"))):
            if count:
                counter.inc(count, tags)
        SHARD_SECONDS.observe(row["seconds"], tags)

    @contextmanager
    def clock(self, stage: str) -> Iterator[Callable[[], None]]:
        """Count the seconds of the block, at its end and whenever what it yields is called."""
        tags = {"stage": stage, "run": self.run}
        last = time.perf_counter()

        def tick() -> None:
            nonlocal last
            now = time.perf_counter()
            if now > last:
                STAGE_SECONDS.inc(now - last, tags)
            last = now

        try:
            yield tick
        finally:
            tick()


def note_gpu_memory(stage: str, run: str) -> None:
    """Note the most GPU memory this process held; nothing where it uses no GPU."""
    if torch.cuda.is_initialized():
        GPU_MEMORY.set(torch.cuda.max_memory_reserved(), {"stage": stage, "run": run})
