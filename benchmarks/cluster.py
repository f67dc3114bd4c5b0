"""What ten million images on an object store cost: ``python -m benchmarks.cluster``.

Requests are counted at an S3 server on loopback, memory is that of a process of its own, and
seconds are derived: requests one after another, times 20 ms each. Nothing here needs a GPU or a
cluster. ``--save FILE`` keeps the figures of a checkout, ``--before FILE`` lays them beside.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import madbal_ray
from madbal_ray.config.asking import BudgetConfig, StrategyConfig
from madbal_ray.config.pool import PoolConfig
from madbal_ray.data.dataset import Dataset, ImageRecord, identity_values, spread_colors
from madbal_ray.engine import shards as engine_shards
from madbal_ray.engine.contract import LightShardJob
from madbal_ray.engine.local import LocalEngine
from madbal_ray.engine.shards import complete_stage
from madbal_ray.errors import DataError
from madbal_ray.pool import index as pool_index
from madbal_ray.pool.clusters import feature_rows
from madbal_ray.selection.breakdown_jobs import AllocateBudgets
from madbal_ray.selection.whole_pool.jobs import CutClusters
from madbal_ray.selection.whole_pool.offers import OfferPixels
from madbal_ray.state import stage_dir as stage_dirs
from madbal_ray.state import storage, tables
from madbal_ray.state.stage_dir import FileRecord, StageDir, table_path
from madbal_ray.state.storage import Folder
from madbal_ray.training.job import TrainRound
from tests.object_store import CREDENTIALS, CountedStore

IMAGES, SUPERPIXELS, CLUSTERS, CLASSES = 10_000_000, 500, 40, 19
LATENCY = 0.02
"""Seconds of one request."""

COUNTED_SHARDS = (1000, 3000) if hasattr(Dataset, "each_of") else (50, 150)
"""Two sizes of a stage; what a shard more costs is their difference."""
BUCKET = "madbal-bench"
LINKS = 50_000
"""Of one file; file systems allow 65,000."""

IS_STREAMED = hasattr(Dataset, "each_of")
IN_FLIGHT = getattr(storage, "IN_FLIGHT", 1)
SHARD_IMAGES = (
    PoolConfig().images_in_shard(IMAGES)
    if hasattr(PoolConfig, "images_in_shard")
    else PoolConfig().shard_images
)
SHARDS = -(-IMAGES // SHARD_IMAGES)

Figures = dict[str, float]


# ---- requests ----


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
    import boto3

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


# ---- memory ----


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
        records=records() if IS_STREAMED else list(records()),
        class_names=tuple(f"class {i}" for i in range(CLASSES)),
        mask_values=identity_values(CLASSES),
        colors=spread_colors(CLASSES),
    )
    with tempfile.TemporaryDirectory() as folder:
        output = StageDir.plan(Folder(folder), "index", {}, {})
        root = Folder(folder)
        if IS_STREAMED:
            stage_dirs.digest_each(pool_index.index_rows(dataset, root, dataset.splits))
            pool_index.write_index(
                output, dataset, root, pool_split="train", shard_images=SHARD_IMAGES
            )
        else:
            old: Any = pool_index
            rows = old.index_rows(dataset, root)
            stage_dirs.digest(rows)
            named = {"class_names": dataset.class_names, "colors": dataset.colors}
            old.write_index(output, rows, pool_split="train", shard_images=SHARD_IMAGES, **named)
    scale = IMAGES / images
    return {
        "index of 10^7 images, GiB": base + (peak_gib() - base) * scale,
        "index of 10^7 images, seconds": (time.perf_counter() - started) * scale,
        **({"index measured at images": images} if images != IMAGES else {}),
    }


def sample() -> Figures:
    """Draw the rows of K-means from 5 * 10^9 superpixels; shards are one array, seen again."""
    rows = SHARD_IMAGES * SUPERPIXELS
    stage = StageDir.plan(Folder("/nowhere"), "superpixel_features", {}, {})
    shard = np.zeros((rows, 6), np.float16)
    feature_rows.read_features = lambda features, shard_id: shard  # type: ignore[assignment]
    pool = object.__new__(feature_rows.FeatureRows)
    pool.features, pool.counts = stage, dict.fromkeys(range(SHARDS), rows)
    pool.total = rows * SHARDS
    try:
        drawn = pool.sample(1_000_000, 0)
    except MemoryError as error:  # numpy tells how much it asked for
        print(f"sample: {error}", file=sys.stderr)
        return {"K-means: sample of 5 * 10^9 superpixels, GiB": 8 * pool.total / 2**30}
    assert len(drawn) == 1_000_000
    return {"K-means: sample of 5 * 10^9 superpixels, GiB": peak_gib()}


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
    stage_dirs_clear()
    return output


def stage_dirs_clear() -> None:
    """Forget parsed markers, as another process would."""
    if IS_STREAMED:
        stage_dirs._markers.clear()
    else:
        old: Any = stage_dirs
        old._read_marker.cache_clear()


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
        in_child = _child(Path(folder), "score", "cluster_statistics", table)
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
        digits = _child(
            Path(folder), "digits_0", "score_digits", tables.from_columns("score_digits", columns)
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
                data = stage_dirs.Marker(
                    stage="score", key="KEY", settings={}, inputs={}, files=tuple(files),
                    summary={"shards": counts}, revision=1,
                ).to_json()  # fmt: skip
            stage.folder.write("_DONE.json", data.replace(b'"KEY"', f'"{stage.key}"'.encode()))
            stages.append(stage)
        script = (
            "import sys, json; from benchmarks.cluster import *\n"
            "started = time.perf_counter()\n"
            "for stage in json.loads(sys.stdin.read()):\n"
            "    stage_dirs.digests(StageDir(Folder(stage[0]), 'score', stage[1]))\n"
            "print(peak_gib(), time.perf_counter() - started)\n"
        )
        given = json.dumps([[stage.folder.uri, stage.key] for stage in stages])
        done = subprocess.run(
            [sys.executable, "-c", script], input=given, capture_output=True, text=True, check=True
        )
        gib, seconds = map(float, done.stdout.split()[-2:])
        return {
            "driver: markers of 40 stages, GiB": gib,
            "driver: one marker, MB": len(data) / 1e6,
            "driver: reading one marker, seconds": seconds / len(stages),
        }


def _child(folder: Path, stage: str, name: str, table: Any) -> StageDir:
    """Make a stage in a process of its own, so that this one's peak is that of reading it."""
    path = folder / "table.arrow"
    path.write_bytes(tables.encode(name, table, key="none"))
    script = (
        "import sys; from benchmarks.cluster import *\n"
        f"hard_linked(Path({str(folder)!r}), {stage!r}, {name!r}, "
        f"tables.decode({name!r}, {str(path)!r}))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    return StageDir.plan(Folder(folder), stage, {}, {})


# ---- a pool of which little is labelled ----


def small_labels(images: int = 20_000, labelled: int = 500) -> Figures:
    """Run two rounds on small generated images; count what training opens."""
    if not IS_STREAMED:
        return {}
    opened: list[str] = []
    plain = Folder.open
    Folder.open = lambda self, name: opened.append(self.file_uri(name)) or plain(self, name)  # type: ignore[method-assign,func-returns-value]
    trained: list[list[str]] = []
    plain_run = TrainRound.run

    def train(self: TrainRound, context: Any) -> None:
        opened.clear()
        plain_run(self, context)
        trained.append(list(opened))

    TrainRound.run = train  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        run = madbal_ray.run(
            {
                "num_rounds": 2,
                "data": {
                    "name": "synthetic",
                    "synthetic": {"num_train": images, "num_val": 2, "height": 32, "width": 32},
                },
                "pool": {"shard_images": 8},
                "superpixels": {"pixels": 64},
                "clustering": {"num_clusters": 5, "num_init": 1},
                "train": {"phase1": {"epochs": 1}, "phase2": {"epochs": 1}},
                "score": {"batch_size": 8},
                "budget": {
                    "initial_images": labelled,
                    "initial_pixels_per_image": 5,
                    "initial": "spread",
                    "scope": "pool",
                    "total_pixels": labelled,
                    "pixels_per_image": 1,
                },
            },
            run_dir=Path(folder) / "run",
            engine="local",
        )
        shard_of = run.table("images").to_pandas().set_index("image_id")["shard_id"]
        asked: set[str] = set()
        found: Figures = {f"{images:,} images, shards": len(set(shard_of))}
        for number, files in enumerate(trained):
            asked |= set(run.table("queries", number)["image_id"].to_pylist())
            wanted = {int(shard_of[name]) for name in asked}
            tables_read = {
                int(match[1])
                for path in files
                if (match := re.search(r"/(?:labels|images|superpixels)/(\d{5})\.parquet$", path))
            }
            evaluation = {int(i) for i in tables_read if i >= images // 8}
            found[f"{images:,} images, round {number}: images asked"] = len(asked)
            found[f"{images:,} images, round {number}: shards with labels"] = len(wanted)
            found[f"{images:,} images, round {number}: shards opened in training"] = len(
                tables_read - evaluation
            )
            found[f"{images:,} images, round {number}: of them without labels"] = len(
                tables_read - evaluation - wanted
            )
    return found


PARTS: dict[str, Callable[[], Figures]] = {
    "requests": requests,
    "run_requests": run_requests,
    "index": index,
    "sample": sample,
    "allocate": allocate,
    "cut": cut,
    "markers": markers,
    "small_labels": small_labels,
}


def derive(found: Figures) -> Figures:
    """Return seconds of a round at 10^7 images from counted requests, 20 ms each."""
    asked = found["driver, a fresh stage of two tables, requests a shard"] * SHARDS
    asked += found["driver, a fresh stage, requests besides"]
    driver = asked * LATENCY
    read = found["reading one small table, requests"] * LATENCY
    stages = 5  # score, digits twice, select, labels
    labelled = min(SHARDS, 10_000) if IS_STREAMED else SHARDS
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


def main() -> None:
    """Measure every part in a process of its own, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, help="for the index; scaled to 10^7")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--before", type=Path, default=Path(__file__).with_name("before.json"))
    options = parser.parse_args()
    if options.part:
        part = PARTS[options.part]
        given = [options.images] if options.part == "index" and options.images else []
        print(json.dumps(part(*given)))
        return
    found: Figures = {}
    for name in options.only:
        more = ["--images", str(options.images)] if options.images else []
        command = [sys.executable, "-m", "benchmarks.cluster", "--part", name, *more]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found |= json.loads(done.stdout.splitlines()[-1])
        print(f"{name} is done", file=sys.stderr, flush=True)
    if "requests" in options.only:
        found |= derive(found)
    if options.save:
        options.save.write_text(json.dumps(found, indent=1) + "\n")
    before = json.loads(options.before.read_text()) if options.before.exists() else {}
    table = Table(title="Ten million images on an object store")
    for column in ("what", "before", "after"):
        table.add_column(column)
    for name in dict.fromkeys([*found, *before]):
        table.add_row(name, *(_shown(side.get(name)) for side in (before, found)))
    Console(width=140).print(table)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
