"""The actors that hold a network: they score, embed, gather, and train where one worker does."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from madbal_ray import errors
from madbal_ray.distributed.job_actors import JobActor
from madbal_ray.distributed.metrics import note_gpu_memory
from madbal_ray.engine.contract import ShardJob, TrainingJob
from madbal_ray.engine.workers import SingleWorker


class HeavyActor(JobActor):
    """Runs heavy shards, one job's network at a time, and whole trainings.

    Its calls have threads of their own, so that one shard is read and another written while a
    third is computed; what computes is always the same thread, whose torch threads are set.

    Args:
        run: name of the run, for metrics.
        device: ``cpu`` or ``cuda``.
    """

    at_once = threads = 3

    def __init__(self, plugins: Sequence[str], run: str, device: str) -> None:
        super().__init__(plugins)
        self.run, self.device = run, device
        self.computing = ThreadPoolExecutor(1)

    def run_shard(self, job: ShardJob, shard_id: int) -> dict[str, Any]:
        """Run one shard."""
        worker = self.computing.submit(self.set_up, job).result()
        shard = worker.load(shard_id)
        row = worker.write(self.computing.submit(worker.compute, shard).result())
        note_gpu_memory(job.output.stage, self.run)
        return row

    def train(self, job: TrainingJob, mailbox: Any) -> dict[str, Any] | None:
        """Train as the only worker; return our own error, packed, where there is one."""
        return self.computing.submit(self._train, job, mailbox).result()

    def _train(self, job: TrainingJob, mailbox: Any) -> dict[str, Any] | None:
        self.worker = self.key = None  # give the last network's memory back

        def report(progress: dict[str, Any]) -> None:
            note_gpu_memory("train", self.run)
            mailbox.put.remote(progress)

        try:
            job.run(SingleWorker(torch.device(self.device), report))
        except errors.MadbalError as error:
            return errors.pack(error)
        return None
