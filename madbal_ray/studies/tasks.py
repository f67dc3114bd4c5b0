"""Whole runs as tasks of a suite: what one is, and doing them one after the other."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from madbal_ray.engine.stages import StopRequested
from madbal_ray.errors import LockedError, MadbalError
from madbal_ray.loop.launch import Launch, MakeEngine, make_local_engine, run_whole
from madbal_ray.seams import load_plugins
from madbal_ray.state.lock import LEASE_SECONDS
from madbal_ray.state.run_dir import RunDir
from madbal_ray.studies.suite_config import SuiteRun


@dataclass(frozen=True)
class RunTask:
    """One call of a whole run, or of its beginning.

    Attributes:
        stop_after: (stage, round) to stop at, for what is shared; None: to the end.
    """

    run: SuiteRun
    run_dir: str
    stop_after: tuple[str, int | None] | None = None


@dataclass(frozen=True)
class TaskResult:
    """How a task ended; `error` is None when it went well."""

    task: RunTask
    seconds: float
    error: str | None = None


@runtime_checkable
class TaskPool(Protocol):
    """Runs whole runs somewhere, several at a time."""

    @property
    def width(self) -> int:
        """Return how many run at a time."""
        ...

    def map(self, tasks: Sequence[RunTask]) -> Iterator[TaskResult]:
        """Run tasks; yield results as they end. A failed run does not stop the others."""
        ...


def perform(task: RunTask, make_engine: MakeEngine) -> TaskResult:
    """Do one task of a suite; what fails is told, not raised."""
    started = time.perf_counter()
    error = None
    config, run_dir = task.run.config, RunDir(task.run_dir)
    load_plugins(config.plugins)  # on a worker nothing has

    def work() -> None:
        run_whole(config, run_dir, make_engine, Launch(stop_after=task.stop_after))

    try:
        try:
            work()
        except LockedError:
            if run_dir.folder.is_local:
                raise
            time.sleep(LEASE_SECONDS)  # the lease of a worker that died with its node
            work()
    except StopRequested:
        pass
    except MadbalError as failure:
        error = str(failure)
    except Exception as failure:  # one broken run must not end the suite; it is listed
        where = traceback.extract_tb(failure.__traceback__)[-1]
        error = f"{type(failure).__name__}: {failure} ({where.filename}:{where.lineno})"
    return TaskResult(task, time.perf_counter() - started, error)


def perform_locally(task: RunTask) -> TaskResult:
    """Do one task of a suite with the local engine."""
    return perform(task, make_local_engine)


class OneAfterAnother:
    """A task pool without Ray: one run at a time, in this process."""

    width = 1

    def map(self, tasks: Sequence[RunTask]) -> Iterator[TaskResult]:
        """Run tasks in order."""
        yield from map(perform_locally, tasks)
