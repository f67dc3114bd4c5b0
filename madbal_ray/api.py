"""What a notebook calls: run an experiment, open a run and read its tables.

Longer than others, and one thing: the list of what may be called, each function the hand-over
from its arguments to the room that does the work.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from madbal_ray.config.file import changed_keys, load_config
from madbal_ray.config.schema import Config
from madbal_ray.engine.contract import Engine
from madbal_ray.engine.progress import Progress
from madbal_ray.engine.stages import StopRequested
from madbal_ray.errors import ConfigError
from madbal_ray.loop.forecast import forecast
from madbal_ray.loop.launch import local_device, make_local_engine, run_whole, with_engine
from madbal_ray.loop.score_unlabelled import PoolScorer, scoring_config
from madbal_ray.models.weights import publish_weights
from madbal_ray.report.protocol import describe_scope
from madbal_ray.report.results import Results
from madbal_ray.report.search import write_search
from madbal_ray.runs import status
from madbal_ray.runs.run import Run, open_run
from madbal_ray.runs.status import Step
from madbal_ray.runs.trained_model import import_model, of_run
from madbal_ray.runs.verify import ROUND_STAGES
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.storage import Folder
from madbal_ray.studies.cross_validation import CrossValidation, Objective
from madbal_ray.studies.report_runs import open_runs, report_runs
from madbal_ray.studies.search_space import load_space
from madbal_ray.studies.suite import SuiteRunner
from madbal_ray.studies.suite_config import load_suite
from madbal_ray.studies.tasks import OneAfterAnother, TaskResult

EngineName = Literal["ray", "local"]

__all__ = [
    "Run",
    "is_finished",
    "open_run",
    "plan",
    "report",
    "run",
    "run_suite",
    "score",
    "step",
    "tune",
]


def run(
    config: Config | Mapping[str, Any] | str | Path,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    engine: EngineName = "ray",
    overrides: Sequence[str] = (),
    address: str | None = None,
    progress: Progress | None = None,
    stop_after: tuple[str, int | None] | None = None,
    take_over: bool = False,
) -> Run:
    """Run an experiment, or carry on with one; the same call resumes.

    Args:
        config: a YAML or JSON file, a mapping, or a `Config`.
        run_dir: folder of the run; None: ``runs/<config name>``.
        engine: ``ray``, or ``local``: this process, no Ray needed.
        overrides: strings ``section.key=value``.
        address: of a Ray cluster; None: $RAY_ADDRESS, else a private local one.
        stop_after: (stage, round) after which to stop; round None for pool stages.
        take_over: end the lease of another process on an object store.

    Raises:
        ConfigError: the configuration cannot be used, or differs from the run's.
        LockedError: another process holds the run folder.
    """
    resolved = load_config(config, overrides)
    folder = RunDir(run_dir if run_dir is not None else default_run_dir(resolved))
    make_engine = _engine_maker(engine, resolved, folder, address)
    run_whole(
        resolved,
        folder,
        make_engine,
        progress=progress,
        stop_after=stop_after,
        take_over=take_over,
    )
    return Run(folder.folder.uri)


def step(
    name: Step,
    config: Config | Mapping[str, Any] | str | Path,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    engine: EngineName = "ray",
    overrides: Sequence[str] = (),
    address: str | None = None,
    progress: Progress | None = None,
    take_over: bool = False,
) -> Run:
    """Do one step of a run, with what is missing before it; `run` carries on from there.

    Args:
        name: ``prepare``: the pool, down to clusters of superpixels; ``select``: the queries of
            the next round; ``train``: the network of the next round, labelled and measured.
        config, run_dir, engine, overrides, address, take_over: as for `run`.

    Raises:
        ConfigError: as `run`; or all rounds are trained.
        LockedError: another process holds the run folder.
    """
    resolved = load_config(config, overrides)
    folder = run_dir if run_dir is not None else default_run_dir(resolved)
    stop_after = status.end_of_step(name, resolved, RunDir(folder))
    with contextlib.suppress(StopRequested):
        run(
            resolved,
            run_dir=folder,
            engine=engine,
            address=address,
            progress=progress,
            stop_after=stop_after,
            take_over=take_over,
        )
    return Run(folder)


def _engine_maker(
    engine: EngineName, config: Config, folder: RunDir, address: str | None
) -> Callable[[], Engine]:
    if engine not in ("ray", "local"):
        raise ConfigError(f"engine = {engine!r}; expected ray or local")

    def make_engine() -> Engine:
        if engine == "local":
            return make_local_engine(config)
        from madbal_ray.distributed.engine import make_ray_engine

        return make_ray_engine(config, folder, address)

    return make_engine


def score(
    pool: str | os.PathLike[str],
    *,
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    round_index: int | None = None,
    budget: int | None = None,
    engine: EngineName = "ray",
    overrides: Sequence[str] = (),
    address: str | None = None,
    progress: Progress | None = None,
    stop_after: tuple[str, int | None] | None = None,
    take_over: bool = False,
) -> dict[str, str]:
    """Score a pool of images without masks; the same call carries on.

    Args:
        pool: a tree of images, Parquet files or tars; a path or a URI.
        checkpoint: folder of a run, or a file written by `madbal export`.
        out: folder of the result; `open_run` reads its tables.
        round_index: of the run; None: the last finished one.
        budget: also ask for so many pixels in each image (table `pixel_requests`); with
            ``budget.scope=pool`` among the overrides, on average.

    Returns:
        Name of each table that was written -> its folder of Parquet shards.

    Raises:
        ConfigError: the checkpoint does not fit, or `out` holds another pool's result.
        DataError, PoolError: the pool cannot be read, or holds no usable image.
    """
    folder = RunDir(out)
    source = os.fspath(checkpoint)
    if Folder(source).exists("config.json"):
        model = of_run(open_run(source), round_index)
    else:
        model = import_model(source, folder.folder / "pool")
    if budget is not None:
        overrides = [*overrides, f"budget.pixels_per_image={budget}"]
    config = scoring_config(model, os.fspath(pool), overrides=tuple(overrides))
    asks = budget is not None

    def work(engine: Engine, view: Progress) -> None:
        PoolScorer(model, config, folder, engine, view, stop_after).run(ask=asks)

    with_engine(
        config,
        folder,
        _engine_maker(engine, config, folder, address),
        work,
        progress=progress,
        take_over=take_over,
    )
    names = ["score", *(["select", "requests"] if asks else [])]
    tables_of = {"score": "scores", "select": "queries", "requests": "pixel_requests"}
    found = {tables_of[name]: folder.find(name, 0) for name in names}
    return {name: stage.folder.uri for name, stage in found.items() if stage is not None}


def is_finished(config: Config, *, run_dir: str | os.PathLike[str]) -> bool:
    """Tell whether a run with these settings is complete in this folder."""
    return status.is_finished(config, RunDir(run_dir))


def plan(config: Config, *, run_dir: str | os.PathLike[str]) -> list[str]:
    """Return what a run would do and cost, as lines; probes a few images, writes nothing."""
    folder = RunDir(run_dir)
    if folder.exists and (changes := changed_keys(folder.config(), config)):
        raise ConfigError(f"{folder} was started with other settings: {'; '.join(changes)}")
    lines = [
        f"data     {config.data.name}, pool split {config.data.pool_split}",
        f"pool     {folder.pool_folder(config)}",
        f"run      {folder}",
        f"network  {config.model.backbone} + {config.model.head}, weights {config.model.weights}",
        f"asks     {config.budget.initial_pixels_per_image} pixels an image at random, then "
        f"{config.num_rounds - 1} x {config.budget.pixels_per_image}"
        f"{describe_scope(config.budget)} by {config.strategy.name}",
    ]
    for index in range(config.num_rounds):
        done = [name for name in ROUND_STAGES if folder.exists and folder.find(name, index)]
        lines.append(f"round {index}  done: {', '.join(done) or 'nothing'}")
    return lines + forecast(config, device=local_device(config.resources.device)).lines()


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

    pool = RayTaskPool(suite.runs[0].config, root, address)
    try:
        return root.uri, SuiteRunner(suite, root, pool, say).run()
    finally:
        pool.close()


def tune(
    config: Config | Mapping[str, Any] | str | Path,
    *,
    space: str | Path,
    num_samples: int = 20,
    folds: int = 3,
    algorithm: Literal["random", "optuna"] = "random",
    use_asha: bool = False,
    objective: Objective = "precision",
    out: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    address: str | None = None,
    say: Callable[[str], None] = print,
) -> tuple[list[dict[str, Any]], list[Path]]:
    """Search settings of phase II by cross-validation on round 0; the same call carries on.

    Args:
        config: the experiment; its pool and its round 0 are used.
        space: YAML of keys and ranges (`madbal_ray.studies.search_space`).
        num_samples: trials.
        folds: of the pool's images.
        objective: ``precision``: how well held-out wrong pixels are found; ``miou``: on
            held-out images after one more round.
        out: folder; None: ``runs/tune/<config name>``.
        say: takes lines for people.

    Returns:
        One row per trial, best first, and the files written, ``best.yaml`` first.

    Raises:
        ConfigError: the space or the configuration cannot be searched.
    """
    from madbal_ray.distributed.tune import search

    resolved = load_config(config, overrides)
    ranges = load_space(space)
    for key, one in ranges.items():
        load_config(resolved, [f"{key}={json.dumps(one.values[0])}"])  # the key and type exist
    root = Folder(out if out is not None else Path("runs/tune") / resolved.name)
    base = RunDir((root / "base").uri)
    try:
        run_whole(
            load_config(resolved, ["tracking.mlflow=null", "tracking.wandb=null"]),
            base,
            _engine_maker("local", resolved, base, address),
            stop_after=("labels", 0),
        )
    except StopRequested:
        say("pool prepared, initial labels drawn")
    opened = Run(base.folder.uri)
    weights = publish_weights(
        resolved.model.weights,
        resolved.model.backbone,
        base.pool_folder(resolved),
        option="model.weights",
    )
    validation = CrossValidation(opened, root, weights, folds, device="cpu", objective=objective)
    rows = search(
        validation,
        ranges,
        num_samples=num_samples,
        algorithm=algorithm,
        use_asha=use_asha,
        storage=root / "_ray",
        address=address,
    )
    best = load_config(resolved, [f"{key}={json.dumps(rows[0][key])}" for key in ranges])
    return rows, write_search(rows, list(ranges), best.model_dump(mode="json"), root.local_path)


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
        out: local folder; None: ``report`` in the first of them, or ``reports/<name>`` where
            that is on an object store.
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
    if out is None:
        first = Folder(names[0])
        out = first.local_path / "report" if first.is_local else Path("reports") / title
    return report_runs(
        runs,
        Path(out),
        baseline=baseline,
        suite_baseline=known,
        title=title,
        device=local_device("auto"),
        warn=warn,
    )
