"""Requests to an S3 server on loopback: counted, and the seconds that follow."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import boto3

import madbal_ray
from benchmarks.cluster.scale import SHARDS, Figures
from madbal_ray.engine import shards as engine_shards
from madbal_ray.engine.contract import LightShardJob, ShardJob
from madbal_ray.engine.local import LocalEngine
from madbal_ray.engine.shards import complete_stage
from madbal_ray.state import tables
from madbal_ray.state.marker import FileRecord
from madbal_ray.state.notes import Notes
from madbal_ray.state.stage_dir import StageDir, table_path
from madbal_ray.state.storage import IN_FLIGHT, Folder
from madbal_ray.training.job import TrainRound
from tests.object_store import CREDENTIALS, CountedStore

LATENCY = 0.02
"""Seconds of one request."""

WRITTEN_SHARDS = 20
"""Of which a worker's requests are counted."""

BUCKET = "madbal-bench"
MOST_LABELLED = 10_000
"""Images that hold labels, where the seconds of a training worker are derived."""


@dataclass(kw_only=True)
class TwoTables(LightShardJob):
    """Writes two small tables a shard, as scoring does."""

    table_names = ("superpixel_clusters", "quarantine")

    def run(self, shard_id: int) -> dict[str, Any]:
        """Return a row in each."""
        row = [{"image_id": f"{shard_id:09d}"}]
        return {name: tables.from_rows(name, row) for name in self.table_names}


class Silent(LocalEngine):
    """Hands over the rows of workers that ask the store for nothing; the driver alone does."""

    def map_shards(self, job: ShardJob, shard_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield a manifest row a shard."""
        return map(manifest_row, shard_ids)


def manifest_row(shard_id: int) -> dict[str, Any]:
    """Return what a worker tells of a shard of two files of a byte each."""
    paths = [table_path(name, shard_id) for name in TwoTables.table_names]
    return {
        "shard_id": shard_id,
        "files": [vars(FileRecord(path, 1, 1, f"{shard_id:064d}")) for path in paths],
        "counts": {"images": 1},
        "seconds": 0.0,
        "peak_memory": 0,
    }


class Who:
    """Says which part of the program a request belongs to."""

    def __init__(self) -> None:
        self.name = "driver"

    @contextlib.contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Name what is asked for inside."""
        before, self.name = self.name, name
        yield
        self.name = before

    def wrap(self, owner: Any, method: str, name: str) -> None:
        """Name the requests of a method."""
        plain = getattr(owner, method)

        def named(*args: Any, **kwargs: Any) -> Any:
            with self.within(name):
                return plain(*args, **kwargs)

        setattr(owner, method, named)


@contextlib.contextmanager
def store() -> Iterator[tuple[CountedStore, Who]]:
    """Serve an empty bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server, who = CountedStore(), Who()
    server.label = lambda: who.name
    os.environ.update(CREDENTIALS, AWS_ENDPOINT_URL=server.endpoint)
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    worker = engine_shards.ShardWorker
    # One after another, so that it is known who asks.
    worker.run_all = lambda self, shard_ids: map(self.run, shard_ids)  # type: ignore[method-assign]
    who.wrap(worker, "run", "worker")
    yield server, who
    server.close()


def requests() -> Figures:
    """Count what the driver asks in a stage of all shards, and what writing and reading take."""
    with store() as (server, _):
        shard_ids = range(SHARDS)

        def complete(engine: LocalEngine, output: StageDir, shard_ids: range) -> Counter[str]:
            with server.counting() as seen:
                job = TwoTables(output=output)
                complete_stage(engine, job, shard_ids, on_row=lambda row: None)
            return Counter(one.who for one in seen)

        fresh = complete(Silent("cpu"), _stage("fresh"), shard_ids)["driver"]
        half = _stage("half")
        notes = Notes(half)
        for shard_id in shard_ids[: SHARDS // 2]:
            row = manifest_row(shard_id)
            for record in row["files"]:
                server.put(BUCKET, f"{half.folder.uri.split(BUCKET)[1][1:]}/{record['path']}", b"1")
            notes.add(row)
        notes.flush()
        resumed = complete(Silent("cpu"), half, shard_ids)["driver"]
        few = _stage("few")
        written = complete(LocalEngine("cpu"), few, range(WRITTEN_SHARDS))["worker"]
        few.marker()
        with server.counting() as seen:
            few.read_table("superpixel_clusters", [0])
    return {
        "driver, a fresh stage of two tables, requests a shard": fresh / SHARDS,
        "driver, a fresh stage of two tables, requests": fresh,
        "driver, resuming a stage half done, requests a shard": resumed / SHARDS,
        "driver, resuming a stage half done, requests": resumed,
        "worker, writing two tables, requests a shard": written / WRITTEN_SHARDS,
        "reading one small table, requests": len(seen),
    }


def _stage(name: str) -> StageDir:
    return StageDir.plan(Folder(f"s3://{BUCKET}/{name}"), "superpixel_clusters", {}, {})


def run_requests() -> Figures:
    """Count the requests of a whole run by stage: 16 shards of two images."""
    found: Figures = {}
    with store() as (server, who):
        who.wrap(TrainRound, "run", "training")
        config = {
            "num_rounds": 2,
            "data": {
                "name": "synthetic",
                "synthetic": {"num_train": 32, "num_val": 2, "height": 48, "width": 64},
            },
            "pool": {"shard_images": 2, "dir": f"s3://{BUCKET}/pool"},
            "superpixels": {"pixels": 64},
            "clustering": {"num_clusters": 3, "num_init": 1},
            "train": {"phase1": {"epochs": 1}, "phase2": {"epochs": 1}},
            "score": {"batch_size": 2},
            "budget": {"initial_pixels_per_image": 5, "pixels_per_image": 5},
        }
        progress = _Stages(server)
        madbal_ray.run(config, run_dir=f"s3://{BUCKET}/run", engine="local", progress=progress)
        for title, counts in progress.counts.items():
            for name, count in sorted(counts.items()):
                per = 16 if name == "worker" else 1
                unit = "requests a shard of two images" if name == "worker" else "requests"
                found[f"run of 16 shards, {title}, {name}, {unit}"] = round(count / per, 2)
    return found


class _Stages:
    """A progress view that counts requests by stage and part."""

    def __init__(self, server: CountedStore) -> None:
        self.server = server
        self.counts: dict[str, Counter[str]] = {}
        self._title, self._before = "", 0

    def start_stage(self, title: str, total: int | None) -> None:
        self._title, self._before = title, len(self.server.requests)

    def end_stage(self, seconds: float) -> None:
        seen = self.server.requests[self._before :]
        self.counts[self._title] = Counter(one.who for one in seen)

    def advance(self, images: int) -> None: ...
    def on_training(self, progress: dict[str, Any]) -> None: ...
    def say(self, text: str) -> None: ...


def derive(found: Figures) -> Figures:
    """Return seconds of a round at 10^7 images from counted requests, 20 ms each."""
    asked = found["driver, a fresh stage of two tables, requests"]
    driver = asked * LATENCY
    read = found["reading one small table, requests"] * LATENCY
    stages = 5  # score, digits twice, select, labels
    labelled = min(SHARDS, MOST_LABELLED)
    return {
        "derived: shards of 10^7 images": SHARDS,
        "derived: driver, one stage, requests": asked,
        "derived: driver, one stage, seconds": driver,
        "derived: driver, the five stages over shards of a round, seconds": stages * driver,
        "derived: allocation reads all statistics, seconds": read * SHARDS / IN_FLIGHT,
        "derived: two passes of cuts read all counts, seconds": 2 * read * SHARDS / IN_FLIGHT,
        "derived: a training worker reads labels and images of 10^4 labelled images, seconds": (
            2 * read * labelled / IN_FLIGHT
        ),
    }
