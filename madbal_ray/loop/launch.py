"""One whole run on a given engine: lock, configuration, loop."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from madbal_ray.config.schema import Config
from madbal_ray.engine.contract import Engine
from madbal_ray.engine.local import LocalEngine
from madbal_ray.engine.progress import LogProgress, Progress
from madbal_ray.errors import ResourceError
from madbal_ray.loop.active_loop import ActiveLoop
from madbal_ray.state.run_dir import RunDir
from madbal_ray.tracking.trackers import check_tracking


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
