"""How busy scoring keeps a device that sleeps, before a store that answers after 20 ms."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import boto3

from benchmarks.cluster.requests import BUCKET, LATENCY
from benchmarks.cluster.scale import FOLDER, SECONDS, Figures
from madbal_ray import api
from madbal_ray.engine.stages import StopRequested
from tests.object_store import CREDENTIALS, CountedStore

IMAGES, SHARD_IMAGES = 96, 16
DEVICE_SECONDS = 0.01
"""Of an image, together with its superpixels' rows."""

SLOWER = 10
"""Store and device both work in slow motion: what they do together is the same, and the server,
its client and decoding, which share the cores of this machine, need a tenth of them."""


def pipeline(engines: Sequence[api.EngineName] = ("local", "ray")) -> Figures:
    """Score a pool on both engines; return the device's share of the time."""
    found: Figures = {}
    with tempfile.TemporaryDirectory() as folder, _slow_store() as delay:
        os.environ.update({FOLDER: folder, SECONDS: str(SLOWER * DEVICE_SECONDS)})
        size = {"num_train": IMAGES, "num_val": 2, "height": 64, "width": 128}
        config = {
            "num_rounds": 2,
            "plugins": ["benchmarks.cluster.stand_in"],
            "data": {"name": "synthetic", "synthetic": size},
            "pool": {"shard_images": SHARD_IMAGES, "dir": f"s3://{BUCKET}/pool"},
            "superpixels": {"pixels": 32},
            "clustering": {"num_clusters": 3, "num_init": 1},
            "train": {"phase1": {"epochs": 0}, "phase2": {"epochs": 0}},
            "budget": {"initial_pixels_per_image": 1, "pixels_per_image": 5},
        }
        for engine in engines:
            where = f"s3://{BUCKET}/{engine}"
            delay(0.0)
            for stage, seconds in ((("metrics", 0), 0.0), (("score", 1), SLOWER * LATENCY)):
                delay(seconds)
                with contextlib.suppress(StopRequested):
                    api.run(config, run_dir=where, engine=engine, stop_after=stage)
            busy, lasted = _device(Path(folder))
            found[f"scoring on {engine}, device busy"] = busy / lasted
            found[f"scoring on {engine}, images/s of one device"] = SLOWER * IMAGES / lasted
    return found


def _device(folder: Path) -> tuple[float, float]:
    """Return seconds of work and seconds from the first to the last; forget them."""
    spans = []
    for path in folder.iterdir():
        spans += [tuple(map(float, line.split())) for line in path.read_text().splitlines()]
        path.unlink()
    return sum(b - a for a, b in spans), max(b for _, b in spans) - min(a for a, _ in spans)


@contextlib.contextmanager
def _slow_store() -> Iterator[Callable[[float], None]]:
    """Serve an empty bucket from a process of its own; yield what sets the seconds of an answer."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    os.environ.update(CREDENTIALS, AWS_ENDPOINT_URL=here.recv())
    boto3.client("s3").create_bucket(Bucket=BUCKET)

    def delay(seconds: float) -> None:
        here.send(seconds)
        here.recv()

    yield delay
    here.send(None)
    process.join()


def _serve(pipe: Any) -> None:
    """Answer requests until told to stop."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = CountedStore()
    pipe.send(store.endpoint)
    while (seconds := pipe.recv()) is not None:
        store.latency = seconds
        pipe.send("set")
    store.close()
