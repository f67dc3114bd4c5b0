"""Whole runs as Ray tasks, each with the local engine on its own GPU or core."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from madbal_ray.config.schema import Config
from madbal_ray.distributed.engine import make_ray_engine
from madbal_ray.distributed.session import (
    check_shared,
    cluster_device,
    cluster_resources,
    connect,
)
from madbal_ray.state.storage import Folder
from madbal_ray.studies.tasks import RunTask, TaskResult, perform, perform_locally


def perform_on_ray(task: RunTask) -> TaskResult:
    """Do one task of a suite with the Ray engine, from inside a Ray task."""
    return perform(task, lambda config, run_dir: make_ray_engine(config, run_dir, None))


class RayTaskPool:
    """Schedules runs as Ray tasks.

    A run that asks for several training workers gets the Ray engine inside its task, and
    no core of its own, since its workers take what they need.

    Args:
        config: of any run of the suite; all agree on resources.
        folder: of the suite; every node must see it.
        address: see `madbal_ray.distributed.session.connect`.
    """

    def __init__(self, config: Config, folder: Folder, address: str | None) -> None:
        self._is_ours = connect(address)
        check_shared(folder)
        if config.pool.dir is not None:
            check_shared(Folder(config.pool.dir))
        self.device = cluster_device(config.resources.device)
        self.needs_engine = config.train.num_workers > 1
        cpus, gpus = cluster_resources()
        self._share = max(1.0, config.train.threads_per_worker)
        self.width = max(1, int(gpus if self.device == "cuda" else cpus / self._share))

    def map(self, tasks: Sequence[RunTask]) -> Iterator[TaskResult]:
        """Run tasks; yield results as they end."""
        cpus, _ = cluster_resources()
        options: dict[str, Any] = {
            "num_cpus": 0 if self.needs_engine else min(self._share, cpus),
            "num_gpus": 1 if self.device == "cuda" and not self.needs_engine else 0,
            "max_retries": 2,
        }
        function = perform_on_ray if self.needs_engine else perform_locally
        remote: Any = ray.remote(**options)(function)
        waiting = {remote.remote(task): task for task in tasks}
        while waiting:
            ready, _ = ray.wait(list(waiting))
            task = waiting.pop(ready[0])
            try:
                yield ray.get(ready[0])
            except RayError as error:
                yield TaskResult(task, 0.0, f"its worker was lost: {error}")

    def close(self) -> None:
        """End Ray where we started it."""
        if self._is_ours:
            ray.shutdown()
