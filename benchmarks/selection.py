"""Allocation and queries over generated shards: time, memory, and how both grow."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from benchmarks.measure import Row, milliseconds
from madbal_ray.config.asking import BudgetConfig
from madbal_ray.config.pool import ClusteringConfig
from madbal_ray.config.schema import Config
from madbal_ray.engine.contract import ShardJob, TableJob
from madbal_ray.engine.shards import ShardWorker, peak_memory
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import ImageReader
from madbal_ray.scoring.job import shard_statistics
from madbal_ray.selection.asking import Asking
from madbal_ray.state import tables
from madbal_ray.state.marker import FileRecord
from madbal_ray.state.stage_dir import StageDir, total_of
from madbal_ray.state.storage import Folder
from madbal_ray.strategies.madbal import MADBAL

CLUSTERS, CLASSES, PER_IMAGE, IMAGES_PER_SHARD, TOP = 9, 19, 512, 64, 1
SCOPES: tuple[Literal["image", "pool"], ...] = ("image", "pool")


class Selected(NamedTuple):
    """What a selection took: seconds, queries, bytes of the largest process."""

    seconds: float
    asked: int
    peak: int


def generate(folder: Path, num_images: int) -> StageDir:
    """Write superpixel scores of a pool, shard by shard, as the scoring stage does."""
    score = StageDir.plan(Folder(folder), "score", {"images": num_images}, {})
    files, counts = [], {}
    for shard_id, first in enumerate(range(0, num_images, IMAGES_PER_SHARD)):
        rng = np.random.default_rng([0, shard_id])
        images = min(IMAGES_PER_SHARD, num_images - first)
        rows = images * PER_IMAGE
        top_score = rng.random((rows, TOP)).astype(np.float32)
        table = tables.from_columns(
            "superpixel_scores",
            {
                "image_id": np.repeat([f"{first + i:09d}.png" for i in range(images)], PER_IMAGE),
                "superpixel_id": np.tile(np.arange(PER_IMAGE), images),
                "cluster_id": rng.integers(0, CLUSTERS, rows),
                "num_pixels": rng.integers(100, 400, rows),
                "mean_score": rng.random(rows) * 3,
                "dominant_class": rng.integers(0, CLASSES, rows),
                "top_y": rng.integers(0, 256, (rows, TOP)),
                "top_x": rng.integers(0, 512, (rows, TOP)),
                "top_score": top_score,
            },
        )
        statistics = shard_statistics(shard_id, table, CLUSTERS, CLASSES)
        files.append(score.write_table("superpixel_scores", shard_id, table))
        files.append(score.write_table("cluster_statistics", shard_id, statistics))
        counts[str(shard_id)] = {"images": images}
    score.commit(files, {"shards": counts})
    return score


def select(score: StageDir, folder: Path, workers: int, config: BudgetConfig) -> Selected:
    """Allocate and query, as selection actors do."""
    counts = score.marker().summary["shards"]
    shard_ids = [int(name) for name in counts]
    peak = peak_memory()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(_wake, range(4 * workers)))  # selection actors live as long as the run

        def map_shards(job: ShardJob, only: Sequence[int] | None = None) -> None:
            nonlocal peak
            rows = []
            ids = shard_ids if only is None else list(only)
            for part, memory in pool.map(_work, [(job, p) for p in _cut(ids, 16 * workers)]):
                rows += part
                peak = max(peak, memory)
            files = [FileRecord(**record) for row in rows for record in row["files"]]
            job.output.commit(files, {"shards": {str(r["shard_id"]): r["counts"] for r in rows}})

        asking = Asking(
            config=Config(budget=config, clustering=ClusteringConfig(num_clusters=CLUSTERS)),
            pool=_pool(score, shard_ids, sum(one["images"] for one in counts.values())),
            round_index=1,
            labels=(),
            score=score,
            stages=_Stages(Folder(folder), map_shards),
        )
        started = time.perf_counter()
        output = MADBAL.run(asking)
        seconds = time.perf_counter() - started
    return Selected(seconds, total_of(output, "asked"), max(peak, peak_memory()))


@dataclass(frozen=True)
class _Stages:
    """Completes stages with this benchmark's processes."""

    folder: Folder
    map: Callable[..., None]

    def plan(self, name: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> StageDir:
        return StageDir.plan(self.folder, name, settings, inputs)

    def call(self, job: TableJob) -> None:
        job.run()

    def say(self, text: str) -> None:
        print(text)


def _pool(score: StageDir, shard_ids: list[int], num_images: int) -> Pool:
    """Return what selection asks a pool for; there are no images behind it."""
    return Pool(
        reader=ImageReader(Folder("."), {}, 0, 0),
        threads=1,
        class_names=tuple(f"class {i}" for i in range(CLASSES)),
        images=score,
        superpixels=score,
        clusters=score,
        shard_ids=shard_ids,
        num_images=num_images,
        num_pixels=num_images * 256 * 512,
    )


def _wake(_: int) -> None:
    time.sleep(0.05)


def _cut(items: list[int], count: int) -> list[list[int]]:
    return [part for i in range(count) if (part := items[i::count])]


def _work(task: tuple[ShardJob, list[int]]) -> tuple[list[dict[str, Any]], int]:
    job, shard_ids = task
    worker = ShardWorker(job)
    rows = [worker.run(shard_id) for shard_id in shard_ids]
    for row in rows:
        assert "error" not in row, row["error"]
    return rows, peak_memory()


def selection(device: str, *, images: int = 3000, workers: int = 2) -> Iterator[Row]:
    """Selection of 3,000 images with 512 superpixels, in each image and over the pool."""
    with tempfile.TemporaryDirectory() as folder:
        score = generate(Path(folder) / "score", images)
        for scope in SCOPES:
            config = BudgetConfig(pixels_per_image=20, scope=scope)
            found = select(score, Path(folder) / scope, workers, config)
            assert found.asked == 20 * images
            yield Row(
                f"selection, {images:,} images x {PER_IMAGE} superpixels, scope {scope}, "
                f"{workers} processes",
                milliseconds(found.seconds),
                "–",
                f"{images * PER_IMAGE / found.seconds / 1e6:.2f} M rows/s, "
                f"{found.peak / 2**30:.2f} GiB",
                "<= 5 s",
                found.seconds <= 5,
            )


def main() -> None:
    """Measure how selection grows: ``python -m benchmarks.selection --rows 2500000 25000000``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[2_500_000, 25_000_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scope", choices=SCOPES, default="image")
    parser.add_argument("--max-per-image", type=int)
    options = parser.parse_args()
    config = BudgetConfig(
        pixels_per_image=20, scope=options.scope, max_per_image=options.max_per_image
    )
    for rows in options.rows:
        images = -(-rows // PER_IMAGE)
        with tempfile.TemporaryDirectory() as folder:
            score = generate(Path(folder) / "score", images)
            found = select(score, Path(folder) / "out", options.workers, config)
        print(
            f"{images * PER_IMAGE:,} rows, {images:,} images, scope {options.scope}: "
            f"{found.seconds:.1f} s, {found.asked:,} queries, largest process "
            f"{found.peak / 2**30:.2f} GiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
