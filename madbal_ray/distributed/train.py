"""Training with several workers: one `fit` of Ray Train a round, both phases in one function.

Ray Train starts its workers anew for each `fit`, which costs the imports of torch every time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from madbal_ray import errors
from madbal_ray.distributed.metrics import RunMetrics, note_gpu_memory
from madbal_ray.distributed.train_in_actor import STAGE, forwarded
from madbal_ray.engine.contract import Listener, TrainingJob
from madbal_ray.engine.workers import GroupWorker
from madbal_ray.seams import load_plugins

START_RETRIES = 2
"""Times a round's workers may fail to start, or to find their nodes in time, and try again."""

START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
SHORTEST_START = 60.0
"""Seconds that Ray Train waits where nothing is set: less than a spot node takes to come back."""


class RayWorker(GroupWorker):
    """The context of one Ray Train worker, which has joined the group before it is made."""

    def __init__(self, mailbox: Any, run: str) -> None:
        super().__init__(get_device())
        self.mailbox, self.run = mailbox, run

    def report(self, progress: dict[str, Any]) -> None:
        """Drop a finished epoch into the driver's mailbox; rank 0 only."""
        note_gpu_memory(STAGE, self.run)
        if self.rank == 0:
            self.mailbox.put.remote(progress)


def train_worker(settings: dict[str, Any]) -> dict[str, Any] | None:
    """Run the job in one worker; return our own error, packed, where there was one.

    A retry would only repeat most of our errors, so the workers that are started for it return
    what the mailbox holds. One of several must raise, since the others wait for it. What a disk
    or a store refuses may be a lost node's doing, and is tried again; a damaged file stays so.
    """
    load_plugins(settings["plugins"])
    mailbox = settings["mailbox"]
    failure: Any = ray.get(mailbox.failure.remote())
    if failure is not None:
        return failure
    try:
        settings["job"].run(RayWorker(mailbox, settings["run"]))
    except errors.MadbalError as error:
        if not isinstance(error, errors.RunDirError) or isinstance(error, errors.IntegrityError):
            ray.get(mailbox.fail.remote(errors.pack(error)))
        raise
    return None


def train_with_ray(
    job: TrainingJob,
    listener: Listener,
    *,
    mailbox: Any,
    metrics: RunMetrics,
    plugins: Sequence[str],
    storage_path: str,
    use_gpu: bool,
    num_cpus: float,
    retries: int,
    wait_seconds: float,
) -> None:
    """Fit one round; lost workers are replaced and go on from the job's checkpoint.

    Args:
        retries: times that workers may be lost or fail; preemption that Ray was told of in
            time is not counted.
        wait_seconds: for their nodes, at each start.

    Raises:
        MadbalError: the job's own, as on the local engine.
        StageError: workers kept failing, or did not start in time.
    """
    is_elastic = job.min_workers < job.num_workers
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "job": job,
            "mailbox": mailbox,
            "run": metrics.run,
            "plugins": tuple(plugins),
        },
        scaling_config=ScalingConfig(
            num_workers=(job.min_workers, job.num_workers) if is_elastic else job.num_workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": num_cpus} | ({"GPU": 1} if use_gpu else {}),
        ),
        run_config=RunConfig(
            name=job.name,
            storage_path=storage_path,
            failure_config=FailureConfig(
                max_failures=retries,
                controller_failure_limit=START_RETRIES,
                max_preemption_failures=-1,
            ),
        ),
    )
    ray.get(mailbox.fail.remote(None))
    failure: Any
    try:
        with (
            _start_timeout(wait_seconds),
            metrics.clock(STAGE) as tick,
            forwarded(mailbox, listener, tick),
        ):
            failure = trainer.fit().return_value
    except ray.train.TrainingFailedError as error:
        failure = ray.get(mailbox.failure.remote())
        if failure is None:
            raise errors.StageError(
                f"training of {job.name} failed on Ray: {_reason(error, wait_seconds)}; look at "
                "the nodes, then start the same command again"
            ) from error
    if failure is not None:
        raise errors.unpack(failure)


def _reason(error: ray.train.TrainingFailedError, wait_seconds: float) -> str:
    """Return in one line why Ray gave up."""
    if isinstance(error, ray.train.ControllerError):
        waited = max(wait_seconds, SHORTEST_START)
        return (
            f"its workers did not start, though each try waited {waited:g} s for their nodes "
            f"(resources.node_wait_seconds): {errors.one_line(error.controller_failure)}"
        )
    if isinstance(error, ray.train.WorkerGroupError) and error.worker_failures:
        rank, failure = min(error.worker_failures.items())
        return f"worker {rank}: {errors.one_line(failure)}"
    return errors.one_line(error)


@contextmanager
def _start_timeout(seconds: float) -> Iterator[None]:
    """Have Ray Train wait so long for its workers' nodes, unless the user has said how long."""
    if START_TIMEOUT in os.environ:
        yield
        return
    os.environ[START_TIMEOUT] = str(max(seconds, SHORTEST_START))
    try:
        yield
    finally:
        del os.environ[START_TIMEOUT]
