"""What a notebook or the command line calls: each function hands over to the room that works.

Functions that launch work take the fields of `Launch` as keywords: ``engine`` (``ray`` or
``local``), ``overrides``, ``address``, ``progress``, ``take_over``, ``stop_after``, ``key_file``.

Longer than others, and one thing: the list of what may be called.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from madbal_ray.config import documents
from madbal_ray.config.file import load_config
from madbal_ray.config.schema import Config
from madbal_ray.data.dataset import spread_colors
from madbal_ray.engine.contract import Engine
from madbal_ray.engine.progress import Progress
from madbal_ray.engine.stages import StopRequested
from madbal_ray.engine.threads import free_cores
from madbal_ray.errors import ConfigError
from madbal_ray.labels.import_answers import ImportReport
from madbal_ray.loop.launch import (
    EngineName,
    Launch,
    MakeEngine,
    local_device,
    make_local_engine,
    run_whole,
    with_engine,
)
from madbal_ray.loop.plan import plan_lines
from madbal_ray.loop.predict_unlabelled import predict_unlabelled, predicting_config
from madbal_ray.loop.score_unlabelled import score_unlabelled, scoring_config
from madbal_ray.loop.time_left import time_left
from madbal_ray.loop.verify import verify_run
from madbal_ray.report.ranks import Ranks
from madbal_ray.report.results import Results
from madbal_ray.runs import requests
from madbal_ray.runs import status as run_status
from madbal_ray.runs.deployed import SUFFIXES, deployed
from madbal_ray.runs.run import Run, open_run
from madbal_ray.runs.status import Status, Step
from madbal_ray.runs.trained_model import TrainedModel, export_model, import_model, of_run
from madbal_ray.scoring.predict_job import MapKind
from madbal_ray.state.run_dir import SUITE_NAME, RunDir
from madbal_ray.state.signature import read_key
from madbal_ray.state.storage import Folder
from madbal_ray.studies import tuning
from madbal_ray.studies.cross_validation import Objective
from madbal_ray.studies.rank_suites import rank_suites
from madbal_ray.studies.report_runs import open_runs, report_runs
from madbal_ray.studies.suite import SuiteRunner
from madbal_ray.studies.suite_config import load_suite
from madbal_ray.studies.tasks import OneAfterAnother, TaskResult
from madbal_ray.survey.coco_masks import CocoMasks, write_coco_masks
from madbal_ray.survey.examine import survey
from madbal_ray.survey.experiment import write_experiment
from madbal_ray.survey.found import Survey
from madbal_ray.survey.page import page

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "Launch",
    "Run",
    "check_data",
    "export",
    "export_requests",
    "import_requests",
    "is_finished",
    "open_run",
    "plan",
    "predict",
    "ranks",
    "report",
    "run",
    "run_suite",
    "score",
    "status",
    "step",
    "tune",
    "verify",
    "write_check_page",
    "write_experiment",
]

Source = Config | Mapping[str, Any] | str | Path
"""An experiment: a YAML or JSON file, a mapping, or a `Config`."""

Place = str | os.PathLike[str]


class Launching(TypedDict, total=False):
    """The fields of `Launch` as keywords."""

    engine: EngineName
    overrides: Sequence[str]
    address: str | None
    progress: Progress | None
    take_over: bool
    stop_after: tuple[str, int | None] | None
    key_file: str | None


def run(
    config: Source,
    *,
    run_dir: Place | None = None,
    follow: bool = False,
    **launching: Unpack[Launching],
) -> Run:
    """Run an experiment, or carry on with one; the same call resumes.

    Args:
        run_dir: folder of the run; None: ``runs/<config name>``.
        follow: stay while people answer and go on by itself, in place of `AnswersPending`.
        launching: see `Launch`.

    Raises:
        ConfigError: the configuration cannot be used, or differs from the run's.
        AnswersPending: the oracle waits for somebody; the same call carries on.
        LockedError: another process holds the run folder.
    """
    launch = Launch(**launching)
    resolved = load_config(config, launch.overrides)
    folder = RunDir(run_dir if run_dir is not None else default_run_dir(resolved))
    run_whole(resolved, folder, _engine_maker(launch), launch, follows=follow)
    return Run(folder.folder.uri)


def step(
    name: Step, config: Source, *, run_dir: Place | None = None, **launching: Unpack[Launching]
) -> Run:
    """Do one step of a run, with what is missing before it; `run` carries on from there.

    Args:
        name: ``prepare``: the pool, down to clusters of superpixels; ``select``: the queries of
            the next round; ``train``: the network of the next round, labelled and measured.
        config, run_dir, launching: as for `run`; ``stop_after`` is the step's own.

    Raises:
        ConfigError: as `run`; or all rounds are trained.
        LockedError: another process holds the run folder.
    """
    resolved = load_config(config, launching.pop("overrides", ()))
    folder = run_dir if run_dir is not None else default_run_dir(resolved)
    launching["stop_after"] = run_status.end_of_step(name, resolved, RunDir(folder))
    with contextlib.suppress(StopRequested):
        run(resolved, run_dir=folder, **launching)
    return Run(folder)


def _engine_maker(launch: Launch) -> MakeEngine:
    if launch.engine == "local":
        return make_local_engine

    def make_engine(config: Config, run_dir: RunDir) -> Engine:
        from madbal_ray.distributed.engine import make_ray_engine

        return make_ray_engine(config, run_dir, launch.address)

    return make_engine


def score(
    pool: Place,
    *,
    checkpoint: Place,
    out: Place,
    round_index: int | None = None,
    budget: int | None = None,
    labels: Sequence[Place] = (),
    **launching: Unpack[Launching],
) -> dict[str, str]:
    """Score a pool of images without masks; the same call carries on.

    Args:
        pool: a tree of images, Parquet files or tars; a path or a URI.
        checkpoint: folder of a run, or a file written by `export`.
        out: folder of the result; `open_run` reads its tables.
        round_index: of the run; None: the last finished one.
        budget: also ask for so many pixels in each image (table `pixel_requests`); with
            ``budget.scope=pool`` among the overrides, on average.
        labels: runs, results of `score` and CSV files (image_id, x, y); what they asked for is
            not asked again.
        launching: see `Launch`.

    Returns:
        Name of each table that was written -> its folder of Parquet shards.

    Raises:
        ConfigError: the checkpoint does not fit, or `out` holds another pool's result.
        DataError, PoolError: the pool cannot be read, or holds no usable image.
    """
    launch, folder = Launch(**launching), RunDir(out, option="--out")
    model, _ = _trained(checkpoint, round_index, folder)
    asks = budget is not None
    overrides = [*launch.overrides, *([f"budget.pixels_per_image={budget}"] if asks else [])]
    config = scoring_config(model, os.fspath(pool), overrides=tuple(overrides))

    def work(counted: Config, engine: Engine, view: Progress) -> None:
        score_unlabelled(
            model,
            counted,
            folder,
            engine,
            view,
            asks=asks,
            known=[os.fspath(place) for place in labels],
            stop_after=launch.stop_after,
        )

    with_engine(config, folder, _engine_maker(launch), launch, work)
    names = ["score", *(["select", "requests"] if asks else [])]
    tables_of = {"score": "scores", "select": "queries", "requests": "pixel_requests"}
    stages = {tables_of[name]: folder.find(name, 0) for name in names}
    return {name: stage.folder.uri for name, stage in stages.items() if stage is not None}


def predict(
    checkpoint: Place,
    images: Place,
    *,
    out: Place,
    round_index: int | None = None,
    kinds: Sequence[MapKind] = ("masks", "overlays", "confidence"),
    **launching: Unpack[Launching],
) -> Run:
    """Predict every pixel of images; the same call carries on. See also `Run.predict`.

    Args:
        checkpoint: folder of a run, or a file written by `export`.
        images: a tree of images, Parquet files or tars; a path or a URI.
        out: folder of the result: a folder of files for each of `kinds`, ``predictions.csv`` with
            the shares of the classes, and what a run's folder has.
        round_index: of the run; None: the last finished one.
        kinds: ``masks`` (class ids, palette PNG, as large as the image), ``overlays`` (JPEG),
            ``confidence`` (grey PNG, 255 is certain), ``scores`` (the strategy's pixel score on the
            working grid, TIFF of floats).
        launching: see `Launch`.

    Returns:
        The result; table ``predictions`` has a row of each image, ``quarantine`` those that could
        not be read.

    Raises:
        ConfigError: the checkpoint does not fit, or `out` holds another result.
        DataError, PoolError: the images cannot be read, or none of them can.
    """
    launch, folder = Launch(**launching), RunDir(out, option="--out")
    model, colors = _trained(checkpoint, round_index, folder)
    config = predicting_config(model, os.fspath(images), kinds, overrides=tuple(launch.overrides))

    def work(counted: Config, engine: Engine, view: Progress) -> None:
        predict_unlabelled(model, counted, folder, engine, view, kinds=kinds, colors=colors)

    with_engine(config, folder, _engine_maker(launch), launch, work)
    return open_run(out)


def _trained(
    checkpoint: Place, round_index: int | None, folder: RunDir
) -> tuple[TrainedModel, Sequence[tuple[int, int, int]]]:
    """Return the network of a run or a file, and the colours of its classes."""
    source = os.fspath(checkpoint)
    if Folder(source).exists("config.json") or Folder(source).exists(SUITE_NAME):
        run = open_run(source)
        return of_run(run, round_index), run.colors
    model = import_model(source, folder.folder / "pool")
    return model, spread_colors(len(model.class_names))


def is_finished(config: Config, *, run_dir: Place) -> bool:
    """Tell whether a run with these settings is complete in this folder."""
    return run_status.is_finished(config, RunDir(run_dir))


def status(run_dir: Place) -> Status:
    """Return where a run is: round, stage, time left, who holds it.

    Of a run that works and has finished no round yet, the time left is a forecast: the first call
    probes a few images for it, which takes seconds.

    Raises:
        RunDirError: there is no run.
    """
    folder = RunDir(run_dir)
    found = run_status.read_status(folder)
    is_known = found.is_finished or found.seconds_left is not None
    if found.holder is None or is_known or found.people:  # when people answer nobody can tell
        return found
    left = time_left(folder, device=local_device("auto"))
    return replace(found, seconds_left=left, is_forecast=left is not None)


def verify(run_dir: Place, *, deep: bool = False, key_file: Place | None = None) -> Iterator[str]:
    """Recompute what a run promises; yield one line for each part that holds, the result last.

    Args:
        deep: also run the networks again, over some shards and the evaluation splits.
        key_file: file of the key that the run was signed with; None: the signature, if there is
            one, is not looked at.

    Raises:
        ConfigError: the key cannot be read.
        IntegrityError, LabelError: the first mismatch.
    """
    key = None if key_file is None else read_key(key_file)
    return verify_run(RunDir(run_dir), deep=deep, key=key)


def export(
    run_dir: Place,
    file: Place,
    *,
    round_index: int | None = None,
    size: tuple[int, int] | None = None,
) -> int:
    """Write a round's network with its class names to one file; its suffix says which kind.

    ``.pt2`` (torch.export) and ``.onnx`` take pictures, uint8 [N, H, W, 3], and give logits
    [N, C, H, W], without anything of ours. Any other is a safetensors file with the settings
    within, for `score` and `predict`.

    Args:
        round_index: None: of the last finished round.
        size: (H, W) of pictures, for .pt2 and .onnx; None: `grids.input`.

    Returns:
        The file's bytes.

    Raises:
        RunDirError: no such round is finished.
        ConfigError: a size is missing, or of no use.
    """
    target, run = Path(file).absolute(), open_run(run_dir)
    if target.suffix in SUFFIXES:
        data = deployed(run, target.suffix, round_index=round_index, size=size)
    elif size is not None:
        raise ConfigError(
            f"--size is for {' and '.join(SUFFIXES)}; what {target.name} holds takes any size"
        )
    else:
        data = export_model(run, round_index)
    Folder(target.parent).write(target.name, data)
    return len(data)


def export_requests(
    run_dir: Place,
    *,
    out: Place,
    form: str = "csv",
    with_answered: bool = False,
    overwrite: bool = False,
) -> int:
    """Write the pixels that wait for people in a format of `madbal_ray.seams.REQUEST_FORMATS`.

    Args:
        run_dir: folder of a run with oracle ``people``, or of `score` with a budget.
        with_answered: answered pixels too.
        overwrite: an existing file is replaced; one of the run never is.

    Returns:
        How many pixels were written.

    Raises:
        ConfigError: there is no such format, it cannot say who answered, or the file exists.
        RunDirError: nobody was asked.
    """
    return requests.export_requests(
        open_run(run_dir), form, Path(out), with_answered=with_answered, overwrite=overwrite
    )


def import_requests(
    run_dir: Place, file: Place, *, form: str = "csv", annotator: str
) -> ImportReport:
    """Take the answers of a file; those that do not fit are refused one by one.

    Args:
        annotator: who answered, where the file does not say.

    Raises:
        ConfigError: there is no such format, or it cannot be read back.
        DataError: the file cannot be read at all; nothing was taken.
    """
    return requests.import_requests(open_run(run_dir), Path(file), name=form, annotator=annotator)


def check_data(root: Place, *, most: int = 2000) -> Survey:
    """Look at images and masks before anything is run.

    Args:
        root: folder of images, as people have them.
        most: images that are looked at.

    Raises:
        DataError: there are no images, or the class file cannot be used.
    """
    return survey(Folder(root), most=most, threads=free_cores())


def write_check_page(found: Survey, file: Place) -> Path:
    """Write what `check_data` found, with a few images under their masks, as one HTML page."""
    target = Path(file).absolute()
    Folder(target.parent).write(target.name, page(found).encode())
    return target


def presets() -> dict[str, str]:
    """Return the name of each experiment and suite that this package brings -> what it is."""
    return documents.presets()


def masks_from_coco(
    annotations: str | Path,
    root: Place,
    *,
    rest: str | None = None,
    panoptic: str | Path | None = None,
) -> CocoMasks:
    """Write class masks and a class file from COCO annotations, for data set `folder`.

    Args, Raises: see `madbal_ray.survey.coco_masks.write_coco_masks`.
    """
    folder = None if panoptic is None else Path(panoptic)
    return write_coco_masks(Path(annotations), Folder(root), rest=rest, panoptic=folder)


def plan(config: Config, *, run_dir: Place) -> list[str]:
    """Return what a run would do and cost, as lines; probes a few images, writes nothing."""
    return plan_lines(config, RunDir(run_dir), device=local_device(config.resources.device))


def default_run_dir(config: Config) -> Path:
    """Return ``runs/<config name>``."""
    return Path("runs") / config.name


def run_suite(
    path: str | Path,
    *,
    folder: Place | None = None,
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
    config: Source,
    *,
    space: str | Path,
    num_samples: int = 20,
    folds: int = 3,
    algorithm: Literal["random", "optuna"] = "random",
    use_asha: bool = False,
    objective: Objective = "precision",
    out: Place | None = None,
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
    root = Folder(out if out is not None else Path("runs/tune") / resolved.name)
    return tuning.tune(
        resolved,
        space,
        lambda trials, ranges, storage: search(
            trials,
            ranges,
            num_samples=num_samples,
            algorithm=algorithm,
            use_asha=use_asha,
            storage=storage,
            address=address,
        ),
        root,
        folds=folds,
        objective=objective,
        say=say,
    )


def ranks(
    suites: Sequence[Place],
    *,
    split: str = "test",
    baseline: str | None = None,
    out: Place | None = None,
    warn: Callable[[str], None] = print,
) -> tuple[Ranks, "DataFrame"]:
    """Rank the members of several suites; every seed of every suite is a block.

    Args:
        suites: folders of suites, of different data sets say; or a ``curves.csv`` that an
            earlier call wrote of them.
        baseline: member that the others are compared with; None: each suite's own.
        out: local folder for ``ranks.csv``, ``ranks.png`` and ``curves.csv``.
        warn: told which suites have runs that ended before others.

    Returns:
        Mean ranks, and one row per member: its rank and its difference from each baseline.

    Raises:
        ConfigError: too few members or seeds to rank, or the baseline is no member.
        DataError: a ``.csv`` is no table of curves.
        RunDirError: a folder is neither a run nor a suite.
    """
    paths = [os.fspath(place) for place in suites]
    return rank_suites(paths, split=split, baseline=baseline, out=out, warn=warn)


def report(
    paths: Sequence[Place],
    *,
    out: Place | None = None,
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
    opened = open_runs(names)
    if out is None:
        first = Folder(names[0])
        name = " · ".join(Path(name).resolve().name for name in names)
        out = first.local_path / "report" if first.is_local else Path("reports") / name
    return report_runs(
        opened,
        Path(out),
        baseline=baseline,
        device=local_device("auto"),
        warn=warn,
    )
