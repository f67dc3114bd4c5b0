"""Actors that stay and take jobs: started when first needed, replaced when they are lost.

A process that has imported what it needs does the next stage at once. This module and the
light jobs that pass through it never import torch.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import (
    ActorUnschedulableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from madbal_ray.engine.contract import CallJob, ShardJob
from madbal_ray.engine.shards import ShardWorker
from madbal_ray.errors import MadbalError, StageError, one_line, pack
from madbal_ray.seams import load_plugins

ATTEMPTS = 4
DEATHS = 3
"""Actors that a shard may cost, the last two while it was alone on them."""

MOST_GIVEN_UP = 3
"""Shards of a stage; so many are not the shards' fault."""

LOST = (RayActorError, OutOfMemoryError, NodeDiedError, WorkerCrashedError)
"""How Ray says that a process is gone; the second, of its memory monitor, is none of the first."""

PATIENT_SECONDS = 30.0
"""When no actor could start for so long, the log says what is waited for."""

LOGGER = logging.getLogger("madbal_ray")


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
                self._welcome(self._next([*self._starting], stage), stage)
            actor = self._ready[0]
            try:
                return ray.get(getattr(actor, method).remote(*arguments))
            except RayTaskError as error:
                raise own_error(error, stage) from error
            except LOST as error:
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
        self.start()
        at_work: dict[Any, list[int]] = {actor: [] for actor in self._ready}
        with_room = list(at_work)
        given_up = 0
        while pending or running:
            self.start()
            for _ in range(self._kind.at_once):  # each its first shard before any its second
                for actor in with_room:
                    if pending and self._takes(pending[0], at_work[actor], lost):
                        shard_id = pending.popleft()
                        at_work[actor].append(shard_id)
                        running[actor.run_shard.remote(reference, shard_id)] = (actor, shard_id)
            with_room = [one for one in with_room if len(at_work[one]) < self._kind.at_once]
            # An actor that cannot start yet, for want of a node, holds up nobody.
            done = self._next([*running, *self._starting], stage)
            if done in self._starting:
                actor = self._welcome(done, stage)
                if actor is not None:
                    at_work[actor] = []
                    with_room.append(actor)
                continue
            actor, shard_id = running.pop(done)
            if actor in at_work:
                at_work[actor].remove(shard_id)
                if actor not in with_room:
                    with_room.append(actor)
            try:
                row: dict[str, Any] = ray.get(done)
            except RayTaskError as error:
                raise own_error(error, stage) from error
            except LOST as error:
                self._drop(actor)
                if at_work.pop(actor, None) is not None:
                    with_room.remove(actor)
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

    def _next(self, waited: list[Any], stage: str) -> Any:
        """Return the first of these that is done; say so where no actor can start."""
        done, _ = ray.wait(waited, timeout=None if self._ready else PATIENT_SECONDS)
        if not done:
            wanted = {name: size for name, size in self.options.items() if name.startswith("num_")}
            LOGGER.warning(
                "stage %s: waiting for a node with room for an actor of %s; the Ray cluster has %s "
                "in all, %s of it free now, its largest node may have less; or it starts slowly",
                *(stage, wanted, _sizes(ray.cluster_resources())),
                _sizes(ray.available_resources()),
            )
            done, _ = ray.wait(waited)
        return done[0]

    def _welcome(self, ping: Any, stage: str) -> Any:
        """Return an actor that has started; None: `start` replaces one that was lost before."""
        actor = self._starting.pop(ping)
        try:
            ray.get(ping)
        except (*LOST, ActorUnschedulableError) as error:
            self._lost_early += 1
            if isinstance(error, RayActorError) and error.actor_init_failed:
                raise StageError(f"stage {stage}: a Ray worker cannot start: {error}") from error
            if self._lost_early == ATTEMPTS:
                raise _kept_dying(stage, ATTEMPTS, error) from None
            return None
        self._lost_early = 0
        self._ready.append(actor)
        return actor

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


def _sizes(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{resources.get(name, 0.0):g} {name}s" for name in ("CPU", "GPU"))


def _deadly(shard_id: int, error: RayError) -> StageError:
    return StageError(
        f"shard {shard_id} was at work each time when {DEATHS} processes were lost, alone in the "
        f"last two; the last one: {one_line(error)}; look at the memory of the nodes and at the "
        f"shard's images (table `images`, shard_id {shard_id}), then start the same command again"
    )


def _kept_dying(stage: str, attempts: int, error: RayError) -> StageError:
    return StageError(
        f"stage {stage}: {attempts} workers in a row were lost, the last one: "
        f"{one_line(error)}; look at the memory of the nodes, then start the same command again"
    )
