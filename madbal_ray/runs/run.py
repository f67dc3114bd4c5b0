"""A run on disk as a notebook sees it: settings, tables, protocol."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from madbal_ray.data.registry import data_root, open_dataset
from madbal_ray.errors import RunDirError
from madbal_ray.labels.ledger import minutes_of_people
from madbal_ray.models.trained import TrainedPhases
from madbal_ray.pool.features.stored_taps import damaged_shards
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import ImageReader, PoolImage, pool_images
from madbal_ray.report.protocol import describe_protocol
from madbal_ray.state import tables
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.stages import writer_of
from madbal_ray.state.storage import Folder
from madbal_ray.strategies.strategy import resolve


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
        writer = writer_of(name)
        if writer.scope == "pool":
            return self.stage(writer.name).read_table(name)
        if round is not None:
            return self.stage(writer.name, round).read_table(name)
        rounds = range(self.config.num_rounds)
        stages = [self.run_dir.find(writer.name, index) for index in rounds]
        return tables.concat(
            name, [stage.read_table(name) for stage in stages if stage is not None]
        )

    def stage(self, name: str, round: int | None = None) -> StageDir:
        """Return the folder of a finished stage; round None: of the pool.

        Raises:
            RunDirError: it is not finished, or this run has no such stage.
        """
        stage = self.run_dir.find(name, round)
        if stage is None:
            where = "" if round is None else f"round {round}, "
            raise RunDirError(f"{self.run_dir}: {where}stage {name} is not finished")
        return stage

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes, by class id."""
        return tuple(self.stage("index").marker().summary["class_names"])

    @property
    def colors(self) -> tuple[tuple[int, int, int], ...]:
        """Return the colours of the classes (RGB, 0..255) for pictures, by class id."""
        return tuple((r, g, b) for r, g, b in self.stage("index").marker().summary["colors"])

    def reader(self) -> ImageReader:
        """Return what reads the run's images and masks.

        Raises:
            DataError: the data set is not where the run found it.
        """
        folder = self.run_dir.pool_folder(self.config)
        dataset = open_dataset(self.config.data, folder)
        root = data_root(self.config.data, folder)
        return ImageReader.of(dataset, root, self.config.data)

    def predict(
        self,
        images: Sequence[np.ndarray],
        *,
        round_index: int | None = None,
        device: str = "cpu",
    ) -> list[np.ndarray]:
        """Return the class ids of every pixel of some images, as the run's network sees them.

        For a notebook: the network is loaded at each call, and images go through it one by one;
        `madbal_ray.predict` is for folders.

        Args:
            images: uint8 [H, W, 3], RGB; of any size.
            round_index: of the network; None: of the last finished round.
            device: ``cpu`` or ``cuda``.

        Returns:
            int64 [H, W] of each image; `class_names` and `colors` are by class id.

        Raises:
            RunDirError: the round is not finished.
            ShapeError: an image has another shape or type.
        """
        from madbal_ray.runs.predictor import Predictor  # torch, only here

        predictor = Predictor(self, round_index=round_index, device=device)
        return [predictor(image) for image in images]

    def network(self, round_index: int) -> TrainedPhases:
        """Return the stages that hold a round's network.

        Raises:
            RunDirError: the round is not trained.
        """
        has_phase2 = resolve(self.config.strategy).has_phase2
        return TrainedPhases(
            self.stage("phase1", round_index),
            self.stage("phase2", round_index) if has_phase2 else None,
        )

    def pool(self, *, reads_images: bool = True) -> Pool:
        """Return the run's prepared pool, without evaluation splits.

        Args:
            reads_images: False: tables alone, for which the data set may be gone.

        Raises:
            DataError: the data set is not where the run found it.
            RunDirError: the pool is not prepared.
        """
        images, data = self.stage("images"), self.config.data
        shard_ids = self.stage("index").marker().summary["shards_of_split"][data.pool_split]
        counts = images.marker().summary["shards"]
        reader = ImageReader(Folder(data.root or "."), {}, data.max_pixels, data.max_bytes)
        features, statistics = self._features()
        return Pool(
            reader=self.reader() if reads_images else reader,
            threads=self.config.resources.decode_threads,
            class_names=self.class_names,
            images=images,
            superpixels=self.stage("superpixels"),
            clusters=self.stage("superpixel_clusters"),
            superpixel_features=self.stage("superpixel_features"),
            shard_ids=shard_ids,
            num_images=sum(counts[str(i)]["images"] for i in shard_ids),
            num_pixels=sum(counts[str(i)]["work_pixels"] for i in shard_ids),
            features=features,
            tap_statistics=statistics,
        )

    def _features(self) -> tuple[StageDir | None, StageDir | None]:
        """Return what is kept of a frozen backbone's taps, and their statistics.

        Kept ones of which files are gone count as not kept: computed again, they are the same.
        """
        if self.config.model.train_backbone:
            return None, None
        features = self.stage("backbone_features")
        is_kept = (
            features.is_done
            and features.marker().settings["keeps"]
            and not damaged_shards(features)
        )
        return features if is_kept else None, self.stage("tap_statistics")

    def pool_sample(self, count: int) -> list[tuple[int, PoolImage]]:
        """Return (shard_id, image) of up to `count` pool images at even distances.

        The same images for every run of one pool.
        """
        table = self.table("images")
        table = table.filter(pc.field("split") == self.config.data.pool_split)
        total = table.num_rows
        rows = [i * total // count for i in range(count)] if total > count else list(range(total))
        chosen = table.take(rows)
        return list(zip(chosen["shard_id"].to_pylist(), pool_images(chosen), strict=True))

    def protocol(self) -> list[str]:
        """Return data, splits, classes, grids and training in words, a line each."""
        index, images = self.stage("index"), self.stage("images")
        counts = images.marker().summary["shards"]
        sizes = {
            split: (
                sum(counts[str(i)]["images"] for i in shard_ids),
                sum(counts[str(i)]["quarantined"] for i in shard_ids),
            )
            for split, shard_ids in index.marker().summary["shards_of_split"].items()
        }
        strategy = resolve(self.config.strategy)
        lines = describe_protocol(
            self.config,
            split_sizes=sizes,
            num_classes=len(self.class_names),
            unit=strategy.unit,
            has_phase2=strategy.has_phase2,
        )
        return [
            *lines,
            *(f"remark      {remark}" for remark in strategy.remarks(self.config)),
        ]

    def weights_identity(self) -> str:
        """Return what stands for the pretrained weights: ``none``, a name, or a sha256."""
        return str(self.stage("phase1", 0).marker().settings["weights"])

    def versions(self) -> dict[str, str]:
        """Return the package versions that the run was last started with."""
        started = [event for event in self.run_dir.events() if event["event"] == "run_started"]
        return dict(started[-1].get("versions", {})) if started else {}

    def metrics(self) -> pd.DataFrame:
        """Return one row per round and split, of the epoch that `train.keep_epoch` names.

        With ``best``, `table("metrics")` has the last epoch beside it.
        """
        metrics = self.table("metrics").to_pandas()
        return metrics[metrics["selection"] == self.config.train.keep_epoch].reset_index(drop=True)

    def point_metrics(self) -> pd.DataFrame:
        """Return what was measured on points, with intervals, of the epochs that count."""
        rows = self.table("point_metrics").to_pandas()
        return rows[rows["selection"] == self.config.train.keep_epoch].reset_index(drop=True)

    def minutes_of_people(self) -> dict[int, float]:
        """Return the minutes that people had spent on answers after each round, where it is known.

        Points of `evaluation.points` are measured on and not learned from: they are not in it.
        """
        minutes: dict[int, float] = {}
        answers: list[pa.Table] = []
        for index in range(self.config.num_rounds):
            stage = self.run_dir.find("labels", index)
            if stage is None:
                break
            answers.append(stage.read_table("labels"))
            spent = minutes_of_people(pa.concat_tables(answers))
            if spent is not None:
                minutes[index] = spent
        return minutes

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
