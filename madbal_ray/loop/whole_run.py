"""One whole run on a given engine: lock, configuration, loop."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence

import torch

from madbal_ray.config import Config
from madbal_ray.errors import LockedError, MadbalError, ResourceError
from madbal_ray.lock import LEASE_SECONDS
from madbal_ray.loop.active_loop import ActiveLoop
from madbal_ray.loop.engine import Engine
from madbal_ray.loop.local_engine import LocalEngine
from madbal_ray.loop.progress import LogProgress, Progress
from madbal_ray.loop.stage_runner import StopRequested
from madbal_ray.loop.suite_runner import RunTask, TaskResult
from madbal_ray.loop.trackers import check_tracking
from madbal_ray.run_dir import RunDir


def run_whole(
    config: Config,
    run_dir: RunDir,
    make_engine: Callable[[], Engine],
    *,
    progress: Progress | None = None,
    stop_after: tuple[str, int | None] | None = None,
    take_over: bool = False,
) -> None:
    """Run an experiment, or carry on with one.

    Args:
        make_engine: called once the folder is ours and the configuration accepted.

    Raises:
        ConfigError: the configuration differs from the run's.
        LockedError: another process holds the run folder.
    """

    def work(engine: Engine, view: Progress) -> None:
        ActiveLoop(config, run_dir, engine, view, device=engine.device, stop_after=stop_after).run()

    with_engine(config, run_dir, make_engine, work, progress=progress, take_over=take_over)


def with_engine(
    config: Config,
    run_dir: RunDir,
    make_engine: Callable[[], Engine],
    work: Callable[[Engine, Progress], None],
    *,
    progress: Progress | None = None,
    take_over: bool = False,
) -> None:
    """Do some work in a run folder: under its lock, with its settings, on a fresh engine.

    Args:
        make_engine: called once the folder is ours and the configuration accepted.
        take_over: end the lease of another process on an object store.

    Raises:
        ConfigError: the configuration differs from the folder's, or a tracker that it asks for
            is not installed.
        LockedError: another process holds the folder.
    """
    check_tracking(config.tracking)
    with run_dir.lock(take_over=take_over):
        run_dir.store_config(config)
        engine = make_engine()
        started = time.time()
        try:
            work(engine, progress if progress is not None else LogProgress())
        finally:
            engine.close()
            run_dir.append_event("process_ended", seconds=round(time.time() - started, 3))


def make_local_engine(config: Config) -> LocalEngine:
    """Return the local engine on this machine's device."""
    return LocalEngine(local_device(config.resources.device))


def local_device(asked: str) -> str:
    """Return ``cpu`` or ``cuda`` for this machine.

    Raises:
        ResourceError: a GPU is asked for and there is none.
    """
    if asked == "cuda" and not torch.cuda.is_available():
        raise ResourceError(
            "resources.device = cuda, but torch sees no GPU on this machine; set "
            "resources.device=auto or cpu"
        )
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return asked


def perform(task: RunTask, make_engine: Callable[[Config, RunDir], Engine]) -> TaskResult:
    """Do one task of a suite; what fails is told, not raised."""
    started = time.perf_counter()
    error = None
    config, run_dir = task.run.config, RunDir(task.run_dir)

    def work() -> None:
        run_whole(config, run_dir, lambda: make_engine(config, run_dir), stop_after=task.stop_after)

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
    return perform(task, lambda config, _: make_local_engine(config))


class OneAfterAnother:
    """A task pool without Ray: one run at a time, in this process."""

    width = 1

    def map(self, tasks: Sequence[RunTask]) -> Iterator[TaskResult]:
        """Run tasks in order."""
        yield from map(perform_locally, tasks)
