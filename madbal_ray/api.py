"""What a notebook calls: run an experiment, open a run and read its tables."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import torch

from madbal_ray import tables
from madbal_ray.config import Config
from madbal_ray.config_file import changed_keys, load_config
from madbal_ray.errors import ConfigError, ResourceError, RunDirError
from madbal_ray.loop.active_loop import ActiveLoop
from madbal_ray.loop.engine import Engine
from madbal_ray.loop.local_engine import LocalEngine
from madbal_ray.loop.progress import LogProgress, Progress
from madbal_ray.loop.verify import ROUND_STAGES
from madbal_ray.report.protocol import describe_protocol
from madbal_ray.run_dir import RunDir
from madbal_ray.strategies import resolve

EngineName = Literal["ray", "local"]

POOL_TABLES = {
    "images": "images",
    "quarantine": "images",
    "superpixels": "superpixels",
    "superpixel_features": "superpixel_features",
    "centroids": "centroids",
    "superpixel_clusters": "superpixel_clusters",
}
ROUND_TABLES = {
    "superpixel_scores": "score",
    "pixel_candidates": "score",
    "image_scores": "score",
    "cluster_statistics": "score",
    "cluster_budgets": "allocate",
    "queries": "select",
    "labels": "labels",
    "class_loss_thresholds": "phase2",
    "confusion": "metrics",
    "metrics": "metrics",
}
"""Which stage writes a table."""


class Run:
    """A run on disk, finished or not; reads only what is committed."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.run_dir = RunDir(path)
        self.config = self.run_dir.config()

    def __repr__(self) -> str:
        return f"Run({str(self.run_dir)!r})"

    @property
    def num_rounds(self) -> int:
        """Return how many rounds have metrics."""
        count = 0
        while self.run_dir.find("metrics", count) is not None:
            count += 1
        return count

    def table(self, name: str, round: int | None = None) -> pa.Table:
        """Return a table of the run; see docs/data-formats.md.

        Args:
            round: of a table that is written by round; None: all rounds so far.

        Raises:
            KeyError: there is no such table.
            RunDirError: the stage that writes it is not finished.
        """
        tables.schema(name)
        if name == "timings":
            return self._timings(round)
        if name in POOL_TABLES:
            stage = self.run_dir.find(POOL_TABLES[name])
            if stage is None:
                raise RunDirError(f"{self.run_dir}: stage {POOL_TABLES[name]} is not finished")
            return stage.read_table(name)
        rounds = range(self.config.num_rounds) if round is None else [round]
        found = []
        for index in rounds:
            stage = self.run_dir.find(ROUND_TABLES[name], index)
            if stage is None:
                if round is not None:
                    raise RunDirError(
                        f"{self.run_dir}: round {round} has no finished stage "
                        f"{ROUND_TABLES[name]}, which writes {name}"
                    )
                continue
            found.append(stage.read_table(name))
        return tables.concat(name, found)

    def protocol(self) -> list[str]:
        """Return data, splits, classes, grids and training in words, a line each."""
        index, images = self.run_dir.find("index"), self.run_dir.find("images")
        if index is None or images is None:
            raise RunDirError(f"{self.run_dir}: the pool is not inspected yet")
        counts = images.marker().summary["shards"]
        sizes = {
            split: (
                sum(counts[str(i)]["images"] for i in shard_ids),
                sum(counts[str(i)]["quarantined"] for i in shard_ids),
            )
            for split, shard_ids in index.marker().summary["shards_of_split"].items()
        }
        num_classes = len(index.marker().summary["class_names"])
        return describe_protocol(self.config, split_sizes=sizes, num_classes=num_classes)

    def metrics(self) -> pd.DataFrame:
        """Return one row per round and split."""
        return self.table("metrics").to_pandas()

    def _timings(self, round_index: int | None) -> pa.Table:
        rows = []
        for event in self.run_dir.events():
            if event["event"] != "stage_finished":
                continue
            if round_index is not None and event["round"] != round_index:
                continue
            seconds, images = event["seconds"], event["images"]
            rows.append(
                {
                    "round": event["round"],
                    "stage": event["stage"],
                    "seconds": seconds,
                    "images_per_second": images / seconds if images and seconds else None,
                    "peak_memory": event["peak_memory"],
                }
            )
        return tables.from_rows("timings", rows)


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open a run folder for reading.

    Raises:
        RunDirError: there is no run.
    """
    return Run(path)


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
    with folder.lock():
        folder.store_config(resolved)
        machine = _make_engine(engine, resolved, folder, address)
        started = time.time()
        try:
            ActiveLoop(
                resolved,
                folder,
                machine,
                progress if progress is not None else LogProgress(),
                device=machine.device,
                stop_after=stop_after,
            ).run()
        finally:
            machine.close()
            folder.append_event("process_ended", seconds=round(time.time() - started, 3))
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


def _make_engine(name: EngineName, config: Config, folder: RunDir, address: str | None) -> Engine:
    if name == "local":
        return LocalEngine(local_device(config.resources.device))
    from madbal_ray.distributed.engine import RayEngine

    return RayEngine(
        config.resources,
        scratch=folder.folder / "_ray",
        threads=(config.score.threads_per_worker, config.train.threads_per_worker),
        address=address,
    )


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
