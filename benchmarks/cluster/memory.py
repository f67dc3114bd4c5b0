"""Memory of a driver and of single processes, each measured in a process of its own."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.cluster.scale import (
    CLASSES,
    CLUSTERS,
    IMAGES,
    SHARD_IMAGES,
    SHARDS,
    SUPERPIXELS,
    Figures,
)
from madbal_ray.config.asking import BudgetConfig, StrategyConfig
from madbal_ray.data.dataset import Dataset, identity_values, spread_colors
from madbal_ray.data.records import ImageRecord
from madbal_ray.pool.clusters.feature_rows import TABLE
from madbal_ray.pool.clusters.sample_job import SampleRows
from madbal_ray.pool.index import index_rows, write_index
from madbal_ray.selection.breakdown_jobs import AllocateBudgets
from madbal_ray.selection.whole_pool.jobs import CutClusters
from madbal_ray.selection.whole_pool.offers import OfferPixels
from madbal_ray.state import tables
from madbal_ray.state.marker import FileRecord, Marker, digest_each
from madbal_ray.state.stage_dir import StageDir, digests, table_path
from madbal_ray.state.storage import Folder

Result = TypeVar("Result")

DRAWN = 1_000_000
"""Rows of the sample (`clustering.max_fit_rows`)."""

LINKS = 50_000
"""Of one file; file systems allow 65,000."""


def peak_gib() -> float:
    """Return the most memory this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def index(images: int = IMAGES) -> Figures:
    """Index generated images: identity, then shards."""

    def records() -> Iterator[ImageRecord]:
        for number in range(images):
            name = f"images/{number // 10_000:05d}/{number:09d}.jpg"
            yield ImageRecord(name, name, f"masks/{number:09d}.png", "train", 100_000 + number)

    started, base = time.perf_counter(), peak_gib()
    dataset = Dataset(
        name="generated",
        records=records(),
        class_names=tuple(f"class {i}" for i in range(CLASSES)),
        mask_values=identity_values(CLASSES),
        colors=spread_colors(CLASSES),
    )
    with tempfile.TemporaryDirectory() as folder:
        output = StageDir.plan(Folder(folder), "index", {}, {})
        root = Folder(folder)
        digest_each(index_rows(dataset, root, dataset.splits))
        write_index(output, dataset, root, pool_split="train", shard_images=SHARD_IMAGES)
    scale = IMAGES / images
    return {
        "index of 10^7 images, GiB": base + (peak_gib() - base) * scale,
        "index of 10^7 images, seconds": (time.perf_counter() - started) * scale,
        **({"index measured at images": images} if images != IMAGES else {}),
    }


def sample() -> Figures:
    """Draw rows from 5 * 10^9 superpixels, as every worker does for K-means; take a shard's."""
    rows = SHARD_IMAGES * SUPERPIXELS
    table = tables.from_columns(
        TABLE,
        {
            "image_id": np.repeat([f"{i:09d}.jpg" for i in range(SHARD_IMAGES)], SUPERPIXELS),
            "superpixel_id": np.tile(np.arange(SUPERPIXELS), SHARD_IMAGES),
            "feature": np.zeros((rows, 6), np.float16),
        },
    )
    with tempfile.TemporaryDirectory() as folder:
        features = _in_a_process(hard_linked, Path(folder), TABLE, TABLE, table)
        job = SampleRows(
            output=StageDir.plan(Folder(folder), "kmeans_sample", {}, {}),
            features=features,
            shard_ids=list(range(SHARDS)),
            size=DRAWN,
            seed=0,
        )
        before = peak_gib()
        started = time.perf_counter()
        job.setup()
        drawn = time.perf_counter() - started
        assert len(job.run(SHARDS - 1)[TABLE]) > 0
        return {
            "K-means: sample of 5 * 10^9 superpixels, GiB": peak_gib(),
            "K-means: GiB before it began": before,
            "K-means: seconds of a worker's draw": drawn,
        }


def hard_linked(folder: Path, stage: str, name: str, table: Any) -> StageDir:
    """Return a finished stage whose shards are all the same file."""
    output = StageDir.plan(Folder(folder), stage, {}, {})
    first = output.write_table(name, 0, table)
    source = output.folder.local_path / first.path
    files = [first]
    for shard_id in range(1, SHARDS):
        path = table_path(name, shard_id)
        if shard_id % LINKS:
            os.link(source, output.folder.local_path / path)
        else:
            source = output.folder.local_path / output.write_table(name, shard_id, table).path
        files.append(FileRecord(path, first.rows, first.bytes, first.sha256))
    output.commit(files, {"shards": {str(i): {"images": SHARD_IMAGES} for i in range(SHARDS)}})
    return output


def allocate() -> Figures:
    """Add up the statistics of all shards and share the budget."""
    rng = np.random.default_rng(0)
    cells = CLUSTERS * CLASSES
    table = tables.from_rows(
        "cluster_statistics",
        [
            {
                "shard_id": 0,
                "num_clusters": CLUSTERS,
                "num_classes": CLASSES,
                "count": rng.integers(0, 1000, cells).tolist(),
                "score_sum": rng.integers(0, 2**40, cells).tolist(),
            }
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        in_child = _in_a_process(hard_linked, Path(folder), "score", "cluster_statistics", table)
        job = AllocateBudgets(
            output=StageDir.plan(Folder(folder), "allocate", {}, {}),
            score=in_child,
            round_index=1,
            num_clusters=CLUSTERS,
            num_classes=CLASSES,
            total=20,
            config=BudgetConfig(),
            options=StrategyConfig(),
        )
        before = peak_gib()
        started = time.perf_counter()
        job.run()
        return {
            "allocation: statistics of all shards, GiB": peak_gib(),
            "allocation: statistics of all shards, seconds on a disk": (
                time.perf_counter() - started
            ),
            "allocation: GiB before it began": before,
        }


def cut() -> Figures:
    """Add up a pass of digits of all shards: the whole-pool step of selection."""
    rng = np.random.default_rng(0)
    count = 20_000
    keys = np.sort(rng.choice(CLUSTERS * 2**16, count, replace=False))
    columns = {
        "shard_id": np.zeros(count),
        "lap": np.zeros(count),
        "cluster_id": keys >> 16,
        "digit": keys & 0xFFFF,
        "count": rng.integers(1, 20, count),
    }
    with tempfile.TemporaryDirectory() as folder:
        digits = _in_a_process(
            hard_linked,
            Path(folder),
            "digits_0",
            "score_digits",
            tables.from_columns("score_digits", columns),
        )
        budgets = StageDir.plan(Folder(folder), "allocate", {}, {})
        equal = {
            "round": np.ones(CLUSTERS),
            "cluster_id": np.arange(CLUSTERS),
            "num_superpixels": np.ones(CLUSTERS),
            "score": np.ones(CLUSTERS),
            "share": np.ones(CLUSTERS),
            "budget": np.full(CLUSTERS, 1000),
            "class_share": np.zeros((CLUSTERS, CLASSES)),
        }
        table = tables.from_columns("cluster_budgets", equal)
        budgets.commit([budgets.write_table("cluster_budgets", 0, table)], {})
        offers = OfferPixels(digits, budgets, BudgetConfig(scope="pool"), StrategyConfig())
        job = CutClusters(
            output=StageDir.plan(Folder(folder), "cuts_0", {}, {}),
            digits=digits,
            offers=offers,
            before=None,
            shard_ids=range(SHARDS),
            round_index=1,
            level=0,
        )
        job.run()
        return {"selection: cuts from the counts of all shards, GiB": peak_gib()}


def markers() -> Figures:
    """Read what a driver of many rounds reads: markers of stages of two tables a shard."""
    with tempfile.TemporaryDirectory() as name:
        stages, data = [], b""
        for number in range(40):
            stage = StageDir.plan(Folder(name), "score", {"round": number}, {})
            if number == 0:
                files = [
                    FileRecord(table_path(table, i), 1, 1, f"{i:064d}")
                    for table in ("superpixel_scores", "cluster_statistics")
                    for i in range(SHARDS)
                ]
                counts = {str(i): {"images": SHARD_IMAGES} for i in range(SHARDS)}
                data = Marker(
                    stage="score", key="KEY", settings={}, inputs={}, files=tuple(files),
                    summary={"shards": counts}, revision=1,
                ).to_json()  # fmt: skip
            stage.folder.write("_DONE.json", data.replace(b'"KEY"', f'"{stage.key}"'.encode()))
            stages.append(stage)
        gib, seconds = _in_a_process(_read_markers, stages)
        return {
            "driver: markers of 40 stages, GiB": gib,
            "driver: one marker, MB": len(data) / 1e6,
            "driver: reading one marker, seconds": seconds / len(stages),
        }


def _read_markers(stages: list[StageDir]) -> tuple[float, float]:
    """Return GiB and seconds of reading the digests of stages."""
    started = time.perf_counter()
    for stage in stages:
        digests(stage)
    return peak_gib(), time.perf_counter() - started


def _in_a_process(work: Callable[..., Result], *given: Any) -> Result:
    """Call in a process of its own, so that one peak does not hide another."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work, *given).result()
