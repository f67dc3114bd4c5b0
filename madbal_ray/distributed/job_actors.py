"""Actors that stay and take jobs: started when first needed, replaced when they are lost.

A process that has imported what it needs does the next stage at once. This module and the
light jobs that pass through it never import torch.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, RayActorError, RayError, RayTaskError

from madbal_ray.engine.contract import CallJob, ShardJob
from madbal_ray.engine.shards import ShardWorker
from madbal_ray.errors import MadbalError, StageError, pack
from madbal_ray.seams import load_plugins

ATTEMPTS = 4
DEATHS = 3
"""Actors that a shard may cost, the last two while it was alone on them."""

MOST_GIVEN_UP = 3
"""Shards of a stage; so many are not the shards' fault."""


class JobActor:
    """Runs whole-pool jobs and shards.

    Attributes:
        at_once: shards at an actor, the one it works on among them, so that it never waits.
        threads: of its calls.
    """

    at_once = 2
    threads = 1

    def __init__(self, plugins: Sequence[str] = ()) -> None:
        load_plugins(plugins)
        self.key: str | None = None
        self.worker: ShardWorker | None = None

    def ping(self) -> None:
        """Answer, once started."""

    def call(self, job: CallJob) -> None:
        """Run a whole-pool job."""
        job.run()

    def run_shard(self, job: ShardJob, shard_id: int) -> dict[str, Any]:
        """Run one shard."""
        return self.set_up(job).run(shard_id)

    def set_up(self, job: ShardJob) -> ShardWorker:
        """Return the worker of a job, which is set up when its first shard arrives."""
        if self.worker is None or self.key != job.output.key:
            self.worker = self.key = None  # a half set-up job must not be taken for one
            self.worker, self.key = ShardWorker(job), job.output.key
        return self.worker


class JobActors:
    """A few actors of one kind.

    Args:
        kind: `JobActor` or a class derived from it.
        arguments: of its constructor.
        options: of Ray, what an actor reserves.
        place: gives more options for each actor, such as where it starts.
    """

    def __init__(
        self,
        count: int,
        *,
        kind: type[JobActor] = JobActor,
        arguments: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
        place: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.count = count
        self.options: dict[str, Any] = {
            "num_cpus": 0,
            "max_concurrency": kind.threads,
            **(options or {}),
        }
        self._kind, self._arguments, self._place = kind, tuple(arguments), place
        self._ready: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._lost_early = 0

    def start(self) -> None:
        """Start the actors that are not there."""
        while len(self._ready) + len(self._starting) < self.count:
            remote: Any = ray.remote(**self.options, **self._place())(self._kind)
            actor = remote.remote(*self._arguments)
            self._starting[actor.ping.remote()] = actor

    def call(self, method: str, stage: str, *arguments: Any, attempts: int = ATTEMPTS) -> Any:
        """Return what a method gives on one actor; on another one where that is lost.

        Raises:
            StageError: actors kept dying.
            MadbalError: the job's own.
        """
        attempt = 1
        while True:
            self.start()
            while not self._ready:
                done, _ = ray.wait(list(self._starting))
                self._welcome(done[0], stage)
            actor = self._ready[0]
            try:
                return ray.get(getattr(actor, method).remote(*arguments))
            except RayTaskError as error:
                raise own_error(error, stage) from error
            except RayActorError as error:
                self._drop(actor)
                if attempt == attempts:
                    raise _kept_dying(stage, attempts, error) from None
                attempt += 1

    def map(self, job: ShardJob, shard_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Run the shards of a job on all actors; a lost actor's shards run again, one at a time.

        A shard that is alone on an actor when that is lost for the third time yields a row with
        ``error``, as any other that fails.

        Raises:
            StageError: several shards' actors kept dying.
        """
        stage = job.output.stage
        reference = ray.put(job)
        pending, lost = deque(shard_ids), Counter[int]()
        running: dict[Any, tuple[Any, int]] = {}
        given_up = 0
        while pending or running:
            self.start()
            for _ in range(self._kind.at_once):
                for actor in self._ready:
                    here = [shard_id for on, shard_id in running.values() if on is actor]
                    if pending and self._takes(pending[0], here, lost):
                        shard_id = pending.popleft()
                        running[actor.run_shard.remote(reference, shard_id)] = (actor, shard_id)
            # An actor that cannot start yet, for want of a node, holds up nobody.
            waited = [*running, *self._starting]
            done = ray.wait(waited)[0][0]
            if done in self._starting:
                self._welcome(done, stage)
                continue
            actor, shard_id = running.pop(done)
            try:
                row = ray.get(done)
            except RayTaskError as error:
                raise own_error(error, stage) from error
            except RayActorError as error:
                self._drop(actor)
                lost[shard_id] += 1
                if lost[shard_id] < DEATHS:
                    pending.append(shard_id)
                    continue
                given_up += 1
                if given_up == MOST_GIVEN_UP:
                    raise _kept_dying(stage, DEATHS * given_up, error) from None
                row = {"shard_id": shard_id, "error": pack(_deadly(shard_id, error))}
            yield row

    def _takes(self, shard_id: int, here: Sequence[int], lost: Mapping[int, int]) -> bool:
        """Tell whether an actor with shards `here` takes another; a suspect is there alone."""
        if lost[shard_id] or any(lost[one] for one in here):
            return not here
        return len(here) < self._kind.at_once

    def stop(self) -> None:
        """End the actors."""
        for actor in (*self._ready, *self._starting.values()):
            ray.kill(actor)
        self._ready, self._starting = [], {}

    def _welcome(self, ping: Any, stage: str) -> None:
        """Take in an actor that has started; `start` replaces one that was lost before."""
        actor = self._starting.pop(ping)
        try:
            ray.get(ping)
        except (RayActorError, ActorUnschedulableError) as error:
            self._lost_early += 1
            if isinstance(error, RayActorError) and error.actor_init_failed:
                raise StageError(f"stage {stage}: a Ray worker cannot start: {error}") from error
            if self._lost_early == ATTEMPTS:
                raise _kept_dying(stage, ATTEMPTS, error) from None
            return
        self._lost_early = 0
        self._ready.append(actor)

    def _drop(self, actor: Any) -> None:
        if actor in self._ready:
            self._ready.remove(actor)
            ray.kill(actor)


def own_error(error: RayTaskError, stage: str | None = None) -> Exception:
    """Return our own error without Ray's traceback around it; any other as Ray tells it.

    Args:
        stage: names the stage in any other error.
    """
    if isinstance(error.cause, MadbalError):
        return error.cause
    if stage is None:
        return error
    cause = error.cause
    return StageError(f"stage {stage}: a Ray worker failed: {type(cause).__name__}: {cause}")


def _deadly(shard_id: int, error: RayActorError) -> StageError:
    return StageError(
        f"shard {shard_id} was at work each time when {DEATHS} processes were lost, alone in the "
        f"last two; the last one: {error}; look at the memory of the nodes and at the shard's "
        f"images (table `images`, shard_id {shard_id}), then start the same command again"
    )


def _kept_dying(stage: str, attempts: int, error: RayError) -> StageError:
    return StageError(
        f"stage {stage}: {attempts} workers in a row were lost, the last one: {error}; look at "
        "the memory of the nodes, then start the same command again"
    )
