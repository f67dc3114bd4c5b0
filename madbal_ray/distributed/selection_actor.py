"""Light work in actors that stay: allocation, queries, answers. They never import torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from madbal_ray.engine.contract import CallJob, ShardJob
from madbal_ray.engine.shards import ShardWorker
from madbal_ray.errors import MadbalError, StageError
from madbal_ray.seams import load_plugins

ATTEMPTS = 4


class SelectionActor:
    """Runs whole-pool jobs and the shards of light jobs."""

    def __init__(self, plugins: Sequence[str] = ()) -> None:
        load_plugins(plugins)
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
    """A few selection actors, started when first needed, replaced when they are lost."""

    def __init__(self, count: int, plugins: Sequence[str] = ()) -> None:
        self.count, self.plugins = count, tuple(plugins)
        self.actors: list[Any] = []

    def start(self) -> None:
        """Start the actors that are not there."""
        remote: Any = ray.remote(num_cpus=0)(SelectionActor)
        while len(self.actors) < self.count:
            self.actors.append(remote.remote(self.plugins))

    def call(self, job: CallJob) -> None:
        """Run a whole-pool job on the first actor; another one where its node dies.

        Raises:
            StageError: actors kept dying.
            MadbalError: the job's own.
        """
        attempt = 1
        while True:
            self.start()
            try:
                return ray.get(self.actors[0].call.remote(job))
            except RayTaskError as error:
                raise own_error(error) from None
            except RayActorError as error:
                self._drop(self.actors[0])
                if attempt == ATTEMPTS:
                    raise _kept_dying(job.output.stage, error) from None
                attempt += 1

    def map(self, job: ShardJob, shard_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Run the shards of a light job on all actors; a lost actor's shard runs again.

        Raises:
            StageError: a shard's actors kept dying.
        """
        reference = ray.put(job)
        pending = deque((shard_id, 1) for shard_id in shard_ids)
        running: dict[Any, tuple[Any, int, int]] = {}
        while pending or running:
            self.start()
            busy = {actor for actor, _, _ in running.values()}
            for actor in [actor for actor in self.actors if actor not in busy][: len(pending)]:
                shard_id, attempt = pending.popleft()
                running[actor.run_shard.remote(reference, shard_id)] = (actor, shard_id, attempt)
            ready, _ = ray.wait(list(running))
            actor, shard_id, attempt = running.pop(ready[0])
            try:
                row = ray.get(ready[0])
            except RayActorError as error:
                if attempt == ATTEMPTS:
                    raise _kept_dying(job.output.stage, error) from None
                pending.append((shard_id, attempt + 1))
                self._drop(actor)
                continue
            yield row

    def stop(self) -> None:
        """End the actors."""
        for actor in list(self.actors):
            self._drop(actor)

    def _drop(self, actor: Any) -> None:
        self.actors.remove(actor)
        ray.kill(actor)


def own_error(error: RayTaskError) -> Exception:
    """Return our own error without Ray's traceback around it; any other as Ray tells it."""
    return error.cause if isinstance(error.cause, MadbalError) else error


def _kept_dying(stage: str, error: RayActorError) -> StageError:
    return StageError(
        f"stage {stage}: {ATTEMPTS} selection actors in a row were lost, the last one: {error}; "
        "look at the memory of the nodes, then start the same command again"
    )
