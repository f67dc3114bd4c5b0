"""Requests to an S3 server on loopback: counted, and the seconds that follow."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3

import madbal_ray
from benchmarks.cluster.scale import SHARDS, Figures
from madbal_ray.engine import shards as engine_shards
from madbal_ray.engine.contract import LightShardJob
from madbal_ray.engine.local import LocalEngine
from madbal_ray.engine.shards import complete_stage
from madbal_ray.errors import DataError
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import IN_FLIGHT, Folder
from madbal_ray.training.job import TrainRound
from tests.object_store import CREDENTIALS, CountedStore

LATENCY = 0.02
"""Seconds of one request."""

COUNTED_SHARDS = (1000, 3000)
"""Two sizes of a stage; what a shard more costs is their difference."""

BUCKET = "madbal-bench"
MOST_LABELLED = 10_000
"""Images that hold labels, where the seconds of a training worker are derived."""


@dataclass(kw_only=True)
class TwoTables(LightShardJob):
    """Writes two small tables a shard, as scoring does; shards from `fails_from` on fail."""

    fails_from: int = 10**9
    table_names = ("superpixel_clusters", "quarantine")

    def run(self, shard_id: int) -> dict[str, Any]:
        """Return a row in each."""
        if shard_id >= self.fails_from:
            raise DataError("as asked")
        row = [{"image_id": f"{shard_id:09d}"}]
        return {name: tables.from_rows(name, row) for name in self.table_names}


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
    who.wrap(engine_shards.ShardWorker, "run", "worker")
    yield server, who
    server.close()


def requests() -> Figures:
    """Count what the driver asks in one stage, and what reading a table takes."""
    found: Figures = {}
    with store() as (server, _):

        def complete(job: TwoTables, shards: int) -> Counter[str]:
            with server.counting() as seen, contextlib.suppress(DataError):
                complete_stage(
                    LocalEngine("cpu"), job, list(range(shards)), on_row=lambda row: None
                )
            return Counter(one.who for one in seen)

        counted: dict[str, list[int]] = {"fresh": [], "half": [], "worker": []}
        for shards in COUNTED_SHARDS:
            fresh = StageDir.plan(
                Folder(f"s3://{BUCKET}/{shards}/fresh"), "superpixel_clusters", {}, {}
            )
            counts = complete(TwoTables(output=fresh), shards)
            counted["fresh"].append(counts["driver"])
            counted["worker"].append(counts["worker"])
            half = StageDir.plan(
                Folder(f"s3://{BUCKET}/{shards}/half"), "superpixel_clusters", {}, {}
            )
            complete(TwoTables(output=half, fails_from=shards // 2), shards)
            counted["half"].append(complete(TwoTables(output=half), shards)["driver"])
            print(counted, file=sys.stderr, flush=True)
        few, many = COUNTED_SHARDS
        slope = {name: (b - a) / (many - few) for name, (a, b) in counted.items()}
        found["driver, a fresh stage of two tables, requests a shard"] = slope["fresh"]
        found["driver, a fresh stage, requests besides"] = (
            counted["fresh"][0] - few * slope["fresh"]
        )
        found["driver, resuming a stage half done, requests a shard"] = slope["half"]
        found["worker, writing two tables, requests a shard"] = slope["worker"]
        fresh = StageDir.plan(Folder(f"s3://{BUCKET}/{many}/fresh"), "superpixel_clusters", {}, {})
        fresh.marker()
        with server.counting() as seen:
            fresh.read_table("superpixel_clusters", [0])
        found["reading one small table, requests"] = len(seen)
    return found


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
    asked = found["driver, a fresh stage of two tables, requests a shard"] * SHARDS
    asked += found["driver, a fresh stage, requests besides"]
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
