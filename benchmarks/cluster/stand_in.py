"""A plug-in that puts a device that sleeps in the place of scoring; every worker imports it."""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cluster.scale import FOLDER, SECONDS
from madbal_ray.scoring.job import ScoreShards


class SleepingDevice:
    """Stands for `ScoreImages`: a batch takes its time and no CPU; notes from when to when."""

    def __init__(self) -> None:
        self.seconds = float(os.environ[SECONDS])
        self.notes = Path(os.environ[FOLDER]) / str(os.getpid())

    def threads(self) -> AbstractContextManager[int]:
        """Take one batch at a time, as a GPU does."""
        return nullcontext(1)

    def __call__(self, **batch: Any) -> dict[str, Any]:
        """Sleep, and return a row a superpixel."""
        started = time.time()
        time.sleep(self.seconds * len(batch["image_id"]))
        with open(self.notes, "a") as sink:
            sink.write(f"{started} {time.time()}\n")
        counts = [len(one) for one in batch["cluster_id"]]
        total = sum(counts)
        return {
            "image_id": np.repeat(batch["image_id"], counts).tolist(),
            "superpixel_id": np.concatenate([np.arange(count) for count in counts]),
            "cluster_id": np.concatenate(batch["cluster_id"]),
            "num_pixels": np.ones(total),
            "mean_score": np.full(total, 0.5),
            "dominant_class": np.zeros(total),
            "top_y": np.zeros((total, 1)),
            "top_x": np.zeros((total, 1)),
            "top_score": np.zeros((total, 1)),
        }


def setup(job: ScoreShards) -> None:
    """Load no network."""
    job._stage = SleepingDevice()  # type: ignore[assignment]


ScoreShards.setup = setup  # type: ignore[method-assign]
