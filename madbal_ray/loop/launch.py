"""Launching work in a run folder: which engine, where, under its lock and with its settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from madbal_ray.config.counts import (
    THREADS,
    WORKERS,
    kept_counts,
    open_counts,
    with_counts,
    workers_for,
)
from madbal_ray.config.schema import Config
from madbal_ray.engine.contract import Engine
from madbal_ray.engine.local import LocalEngine
from madbal_ray.engine.progress import LogProgress, Progress
from madbal_ray.engine.stages import check_stop
from madbal_ray.engine.threads import free_cores
from madbal_ray.errors import ConfigError, ResourceError
from madbal_ray.loop.active_loop import run_loop
from madbal_ray.loop.follow import follow
from madbal_ray.loop.versions import command_line
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.signature import check_signature, read_key
from madbal_ray.state.stage_dir import forget_hashed
from madbal_ray.tracking.trackers import check_tracking

EngineName = Literal["ray", "local"]
MakeEngine = Callable[[Config, RunDir], Engine]


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How work is launched.

    Attributes:
        engine: ``ray``, or ``local``: this process, no Ray needed.
        overrides: strings ``section.key=value`` on top of the configuration.
        address: of a Ray cluster; None: $RAY_ADDRESS, else a private local one.
        progress: view of the work; None: lines through `logging`.
        take_over: end the lease of another process on an object store.
        stop_after: (stage, round) after which to stop; round None for pool stages.
        key_file: file of a key that rounds are signed with (`madbal_ray.state.signature`).
    """

    engine: EngineName = "ray"
    overrides: Sequence[str] = ()
    address: str | None = None
    progress: Progress | None = None
    take_over: bool = False
    stop_after: tuple[str, int | None] | None = None
    key_file: str | None = None

    def __post_init__(self) -> None:
        if self.engine not in ("ray", "local"):
            raise ConfigError(f"engine = {self.engine!r}; expected ray or local")


def run_whole(
    config: Config,
    run_dir: RunDir,
    make_engine: MakeEngine,
    launch: Launch,
    *,
    follows: bool = False,
) -> None:
    """Run an experiment, or carry on with one.

    Args:
        follows: wait while people answer, in place of raising `AnswersPending`.

    Raises:
        ConfigError: the configuration differs from the run's, or `follows` and it asks nobody.
        LockedError: another process holds the run folder.
        IntegrityError: it is not what was signed.
    """
    key = None if launch.key_file is None else read_key(launch.key_file)

    def work(counted: Config, engine: Engine, view: Progress) -> None:
        if key is not None:
            check_signature(run_dir, key)

        def once() -> None:
            run_loop(counted, run_dir, engine, view, stop_after=launch.stop_after, key=key)

        if follows:
            follow(counted, run_dir, once, view.say)
        else:
            once()

    with_engine(config, run_dir, make_engine, launch, work)


def with_engine(
    config: Config,
    run_dir: RunDir,
    make_engine: MakeEngine,
    launch: Launch,
    work: Callable[[Config, Engine, Progress], None],
) -> None:
    """Do some work in a run folder: under its lock, with its settings, on a fresh engine.

    Args:
        make_engine: called once the folder is ours and the configuration accepted.
        work: given the configuration with numbers where it said ``auto``.

    Raises:
        ConfigError: the configuration differs from the folder's, a tracker that it asks for is not
            installed, or there is no stage to stop after.
        LockedError: another process holds the folder.
    """
    check_tracking(config.tracking)
    check_stop(launch.stop_after, config.num_rounds)
    run_dir.check_ours()
    with run_dir.lock(take_over=launch.take_over):
        counted = counted_here(config, run_dir)
        if not open_counts(counted):
            run_dir.store_config(counted)
        forget_hashed()
        engine = make_engine(counted, run_dir)
        started, is_done = time.time(), False
        run_dir.append_event("process_started", command=command_line())
        try:
            if open_counts(counted):  # GPUs, which the engine alone can see
                workers = workers_for(counted, engine.most_training_workers)
                counted = with_counts(counted, {WORKERS: workers})
                run_dir.store_config(counted)
            view = launch.progress if launch.progress is not None else LogProgress()
            work(counted, engine, view)
            is_done = True
        finally:
            engine.close()
            seconds = round(time.time() - started, 3)
            run_dir.append_event("process_ended", seconds=seconds, is_done=is_done)


def counted_here(config: Config, run_dir: RunDir) -> Config:
    """Return the configuration with numbers for ``auto``, as far as no engine is needed for them.

    Those that the run in this folder began with; else threads are the cores that are free.
    """
    if run_dir.exists:
        return kept_counts(config, run_dir.config())
    return with_counts(config, dict.fromkeys(THREADS, free_cores()))


def make_local_engine(config: Config, run_dir: RunDir | None = None) -> LocalEngine:
    """Return the local engine on this machine's device, whatever the run."""
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
