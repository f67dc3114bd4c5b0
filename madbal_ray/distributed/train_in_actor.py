"""Training with one worker: a job for an actor that stays; and how progress reaches the driver."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from madbal_ray import errors
from madbal_ray.distributed.job_actors import JobActors
from madbal_ray.distributed.metrics import RunMetrics
from madbal_ray.engine.contract import Listener, TrainingJob

LOGGER = logging.getLogger("madbal_ray")

POLL_SECONDS = 0.5
STAGE = "train"


class Mailbox:
    """Carries progress and errors from workers to the driver and on, on any number of nodes."""

    def __init__(self) -> None:
        self.waiting: list[dict[str, Any]] = []
        self.kept: dict[str, Any] | None = None

    def put(self, progress: dict[str, Any]) -> None:
        """Add one message."""
        self.waiting.append(progress)

    def take(self) -> list[dict[str, Any]]:
        """Return and forget all messages."""
        taken, self.waiting = self.waiting, []
        return taken

    def fail(self, failure: dict[str, Any] | None) -> None:
        """Keep the first of our own errors, packed, that a retry would repeat; None: forget it."""
        self.kept = failure if failure is None else self.kept or failure

    def failure(self) -> dict[str, Any] | None:
        """Return what was kept."""
        return self.kept


class Mailboxes:
    """The mailbox of a run, started when first needed, on the driver's own node."""

    def __init__(self) -> None:
        self._mailbox: Any = None

    def get(self) -> Any:
        """Return the mailbox."""
        if self._mailbox is None:
            here = NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=False
            )
            options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": here}
            self._mailbox = ray.remote(**options)(Mailbox).remote()
        return self._mailbox

    def stop(self) -> None:
        """End it."""
        if self._mailbox is not None:
            ray.kill(self._mailbox)
            self._mailbox = None


def train_in_actor(
    job: TrainingJob,
    listener: Listener,
    *,
    actors: JobActors,
    mailbox: Any,
    metrics: RunMetrics,
    retries: int,
) -> None:
    """Train with one worker, in an actor that stays; a lost one's job goes on in another.

    Raises:
        MadbalError: the job's own, as on the local engine.
        StageError: actors kept dying.
    """
    with metrics.clock(STAGE) as tick, forwarded(mailbox, listener, tick):
        failure = actors.call("train", STAGE, job, mailbox, attempts=retries + 1)
    if failure is not None:
        raise errors.unpack(failure)


@contextmanager
def forwarded(mailbox: Any, listener: Listener, tick: Callable[[], None]) -> Iterator[None]:
    """Hand what arrives in the mailbox to the listener until the block ends; tick at every look."""
    ended = threading.Event()

    def forward() -> None:
        is_last = is_told = False
        while not is_last:
            is_last = ended.wait(POLL_SECONDS)
            tick()
            for progress in ray.get(mailbox.take.remote()):
                try:
                    listener.on_training(progress)
                except errors.MadbalError as error:  # a full disk; the training goes on
                    if not is_told:
                        LOGGER.warning("progress of the training cannot be noted: %s", error)
                    is_told = True

    thread = threading.Thread(target=forward, daemon=True, name="madbal-training-progress")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
