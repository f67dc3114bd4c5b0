"""The local engine: everything in this process, no Ray installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from madbal_ray.engine.contract import CallJob, Listener, ShardJob, TrainingJob
from madbal_ray.engine.shards import ShardWorker
from madbal_ray.engine.workers import SingleWorker
from madbal_ray.errors import ConfigError


class LocalEngine:
    """Runs jobs one after the other, in this process.

    Args:
        device: ``cpu`` or ``cuda``.
    """

    name = "local"
    most_training_workers = 1

    def __init__(self, device: str) -> None:
        self.device = device

    def map_shards(self, job: ShardJob, shard_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Run a job shard by shard, in the order given; what computes is this thread."""
        threads = torch.get_num_threads()
        try:
            yield from ShardWorker(job).run_all(shard_ids)
        finally:
            torch.set_num_threads(threads)

    def call(self, job: CallJob) -> None:
        """Run a whole-pool job."""
        job.run()

    def train(self, job: TrainingJob, listener: Listener) -> None:
        """Train with the one worker there is.

        Raises:
            ConfigError: the configuration asks for several training workers.
        """
        if job.num_workers != 1:
            raise ConfigError(
                f"train.num_workers = {job.num_workers}: the local engine has one; use --engine ray"
            )
        threads = torch.get_num_threads()
        try:
            job.run(SingleWorker(torch.device(self.device), listener.on_training))
        finally:
            torch.set_num_threads(threads)

    def close(self) -> None:
        """Nothing to give back."""
