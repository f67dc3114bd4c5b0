"""Light work in actors that stay: allocation, queries, answers. They never import torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.util import ActorPool

from madbal_ray.loop.engine import CallJob, ShardJob
from madbal_ray.loop.shard_runner import ShardWorker


class SelectionActor:
    """Runs whole-pool jobs and the shards of light jobs."""

    def __init__(self) -> None:
        self.key: str | None = None
        self.worker: ShardWorker | None = None

    def call(self, job: CallJob) -> None:
        """Run a whole-pool job."""
        job.run()

    def run_shard(self, job: ShardJob, shard_id: int) -> dict[str, Any]:
        """Run one shard; the job is set up when its first shard arrives."""
        if self.worker is None or self.key != job.output.key:
            self.worker, self.key = ShardWorker(job), job.output.key
        return self.worker.run(shard_id)


class SelectionActors:
    """A few selection actors, started when first needed."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.actors: list[Any] = []

    def start(self) -> None:
        """Start the actors unless they are there."""
        if not self.actors:
            remote: Any = ray.remote(num_cpus=0, max_restarts=3, max_task_retries=3)(SelectionActor)
            self.actors = [remote.remote() for _ in range(self.count)]

    def call(self, job: CallJob) -> None:
        """Run a whole-pool job on the first actor."""
        self.start()
        ray.get(self.actors[0].call.remote(job))

    def map(self, job: ShardJob, shard_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Run the shards of a light job on all actors."""
        self.start()
        reference = ray.put(job)
        pool = ActorPool(self.actors)
        rows: Any = pool.map_unordered(
            lambda actor, shard_id: actor.run_shard.remote(reference, shard_id), list(shard_ids)
        )
        yield from rows

    def stop(self) -> None:
        """End the actors."""
        for actor in self.actors:
            ray.kill(actor)
        self.actors = []
