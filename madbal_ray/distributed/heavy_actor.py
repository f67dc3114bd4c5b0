"""The actors that hold a network: they score, embed, gather, and train where one worker does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from madbal_ray import errors
from madbal_ray.distributed.job_actors import JobActor
from madbal_ray.distributed.metrics import note_gpu_memory
from madbal_ray.engine.contract import ShardJob, TrainingJob
from madbal_ray.engine.workers import SingleWorker


class HeavyActor(JobActor):
    """Runs heavy shards, one job's network at a time, and whole trainings.

    Args:
        run: name of the run, for metrics.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, plugins: Sequence[str], run: str, device: str) -> None:
        super().__init__(plugins)
        self.run, self.device = run, device

    def run_shard(self, job: ShardJob, shard_id: int) -> dict[str, Any]:
        """Run one shard."""
        row = super().run_shard(job, shard_id)
        note_gpu_memory(job.output.stage, self.run)
        return row

    def train(self, job: TrainingJob, mailbox: Any) -> dict[str, Any] | None:
        """Train as the only worker; return our own error, packed, where there is one."""
        self.worker = self.key = None  # give the last network's memory back

        def report(progress: dict[str, Any]) -> None:
            note_gpu_memory("train", self.run)
            mailbox.put.remote(progress)

        try:
            job.run(SingleWorker(torch.device(self.device), report))
        except errors.MadbalError as error:
            return errors.pack(error)
        return None
