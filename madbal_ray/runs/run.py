"""A run on disk as a notebook sees it: settings, tables, protocol."""

from __future__ import annotations

import os

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from madbal_ray.state import tables
from madbal_ray.data.registry import data_root, open_dataset
from madbal_ray.errors import RunDirError
from madbal_ray.pool.reader import ImageReader, PoolImage, pool_images
from madbal_ray.report.protocol import describe_protocol
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import StageDir

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
    "pixel_requests": "requests",
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
            return self.stage(POOL_TABLES[name]).read_table(name)
        if round is not None:
            return self.stage(ROUND_TABLES[name], round).read_table(name)
        stages = [
            self.run_dir.find(ROUND_TABLES[name], index) for index in range(self.config.num_rounds)
        ]
        return tables.concat(name, [one.read_table(name) for one in stages if one is not None])

    def stage(self, name: str, round: int | None = None) -> StageDir:
        """Return the folder of a finished stage; round None: of the pool.

        Raises:
            RunDirError: it is not finished, or this run has no such stage.
        """
        found = self.run_dir.find(name, round)
        if found is None:
            where = "" if round is None else f"round {round}, "
            raise RunDirError(f"{self.run_dir}: {where}stage {name} is not finished")
        return found

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
        return ImageReader(root, dataset.mask_values, self.config.data.max_pixels)

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
        return describe_protocol(self.config, split_sizes=sizes, num_classes=len(self.class_names))

    def weights_identity(self) -> str:
        """Return what stands for the pretrained weights: ``none``, a name, or a sha256."""
        return str(self.stage("phase1", 0).marker().settings["weights"])

    def versions(self) -> dict[str, str]:
        """Return the package versions that the run was last started with."""
        started = [event for event in self.run_dir.events() if event["event"] == "run_started"]
        return dict(started[-1].get("versions", {})) if started else {}

    def metrics(self) -> pd.DataFrame:
        """Return one row per round and split, of the epoch that `train.select` names.

        With ``best``, `table("metrics")` has the last epoch beside it.
        """
        found = self.table("metrics").to_pandas()
        return found[found["selection"] == self.config.train.select].reset_index(drop=True)

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
