"""What a notebook calls: run an experiment, open a run and read its tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from madbal_ray.config import Config
from madbal_ray.config_file import changed_keys, load_config
from madbal_ray.errors import ConfigError
from madbal_ray.loop.engine import Engine
from madbal_ray.loop.progress import Progress
from madbal_ray.loop.run_report import open_runs, report_runs
from madbal_ray.loop.run_view import Run, open_run
from madbal_ray.loop.suite_runner import SuiteRunner, TaskResult
from madbal_ray.loop.verify import ROUND_STAGES
from madbal_ray.loop.whole_run import OneAfterAnother, local_device, make_local_engine, run_whole
from madbal_ray.report.results import Results
from madbal_ray.run_dir import RunDir
from madbal_ray.storage import Folder
from madbal_ray.strategies import resolve
from madbal_ray.suite_config import load_suite

EngineName = Literal["ray", "local"]

__all__ = ["Run", "is_finished", "open_run", "plan", "report", "run", "run_suite"]


def run(
    config: Config | Mapping[str, Any] | str | Path,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    engine: EngineName = "ray",
    overrides: Sequence[str] = (),
    address: str | None = None,
    progress: Progress | None = None,
    stop_after: tuple[str, int | None] | None = None,
) -> Run:
    """Run an experiment, or carry on with one; the same call resumes.

    Args:
        config: a YAML or JSON file, a mapping, or a `Config`.
        run_dir: folder of the run; None: ``runs/<config name>``.
        engine: ``ray``, or ``local``: this process, no Ray needed.
        overrides: strings ``section.key=value``.
        address: of a Ray cluster; None: $RAY_ADDRESS, else a private local one.
        stop_after: (stage, round) after which to stop; round None for pool stages.

    Raises:
        ConfigError: the configuration cannot be used, or differs from the run's.
        LockedError: another process holds the run folder.
    """
    resolved = load_config(config, overrides)
    if engine not in ("ray", "local"):
        raise ConfigError(f"engine = {engine!r}; expected ray or local")
    folder = RunDir(run_dir if run_dir is not None else default_run_dir(resolved))

    def make_engine() -> Engine:
        if engine == "local":
            return make_local_engine(resolved)
        from madbal_ray.distributed.engine import make_ray_engine

        return make_ray_engine(resolved, folder, address)

    run_whole(resolved, folder, make_engine, progress=progress, stop_after=stop_after)
    return Run(folder.folder.uri)


def is_finished(config: Config, *, run_dir: str | os.PathLike[str]) -> bool:
    """Tell whether a run with these settings is complete in this folder."""
    folder = RunDir(run_dir)
    if not folder.exists or changed_keys(folder.config(), config):
        return False
    if folder.stopped() is not None and folder.config().stop == config.stop:
        return True
    has_phase2 = resolve(config.strategy).has_phase2
    return folder.finished_rounds(config, has_phase2=has_phase2) == config.num_rounds


def plan(config: Config, *, run_dir: str | os.PathLike[str]) -> list[str]:
    """Return what a run would do, as lines; writes nothing."""
    folder = RunDir(run_dir)
    if folder.exists and (changes := changed_keys(folder.config(), config)):
        raise ConfigError(f"{folder} was started with other settings: {'; '.join(changes)}")
    lines = [
        f"data     {config.data.name}, pool split {config.data.pool_split}",
        f"pool     {folder.pool_folder(config)}",
        f"run      {folder}",
        f"network  {config.model.backbone} + {config.model.head}, weights {config.model.weights}",
        f"asks     {config.budget.initial_pixels_per_image} pixels an image at random, then "
        f"{config.num_rounds - 1} x {config.budget.pixels_per_image} by {config.strategy.name}",
    ]
    for index in range(config.num_rounds):
        done = [name for name in ROUND_STAGES if folder.exists and folder.find(name, index)]
        lines.append(f"round {index}  done: {', '.join(done) or 'nothing'}")
    return lines


def default_run_dir(config: Config) -> Path:
    """Return ``runs/<config name>``."""
    return Path("runs") / config.name


def run_suite(
    path: str | Path,
    *,
    folder: str | os.PathLike[str] | None = None,
    engine: EngineName = "ray",
    overrides: Sequence[str] = (),
    address: str | None = None,
    say: Callable[[str], None] = print,
) -> tuple[str, list[TaskResult]]:
    """Run a suite, or what is missing of it.

    Args:
        path: the suite's YAML.
        folder: of the suite; None: ``runs/suites/<name>``.
        engine: ``ray``: runs side by side as Ray tasks; ``local``: one after the other.
        overrides: strings ``section.key=value``, for all members.
        address: of a Ray cluster.
        say: takes lines for people.

    Returns:
        The suite's folder, and the runs that failed.

    Raises:
        ConfigError: a member is broken or not comparable; nothing was run.
    """
    suite = load_suite(path, tuple(overrides))
    root = Folder(folder if folder is not None else Path("runs/suites") / suite.name)
    if engine == "local":
        return root.uri, SuiteRunner(suite, root, OneAfterAnother(), say).run()
    from madbal_ray.distributed.suite import RayTaskPool

    pool = RayTaskPool(suite.runs[0].config, address)
    try:
        return root.uri, SuiteRunner(suite, root, pool, say).run()
    finally:
        pool.close()


def report(
    paths: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    baseline: str | None = None,
    warn: Callable[[str], None] = print,
) -> tuple[Results, list[Path]]:
    """Write one self-contained page, tables and charts of runs on one axis.

    Args:
        paths: folders of runs or suites.
        out: folder; None: ``report`` in the first of them.
        baseline: member that the others are compared with; None: the suite's, else the first.
        warn: told what could not be shown, and why.

    Returns:
        The compared results, and the files that were written, the page first.

    Raises:
        ConfigError: the runs are of different data sets or protocols.
        RunDirError: a folder is neither a run nor a suite.
    """
    names = [os.fspath(path) for path in paths]
    runs, known = open_runs(names)
    title = (
        Path(names[0]).resolve().name
        if len(names) == 1
        else " · ".join(Path(name).resolve().name for name in names)
    )
    return report_runs(
        runs,
        Path(out if out is not None else Path(names[0]) / "report"),
        baseline=baseline if baseline is not None else known,
        title=title,
        device=local_device("auto"),
        warn=warn,
    )
