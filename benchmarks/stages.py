"""Whole stages through Ray against the bare work, and what a round costs beside it."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Row, milliseconds
from madbal_ray import api
from madbal_ray.config.file import load_config
from madbal_ray.engine.stages import StopRequested
from madbal_ray.loop.forecast import forecast
from madbal_ray.models.trained import load_network
from madbal_ray.pool.reader import read_images, read_label_maps
from madbal_ray.runs.run import Run
from madbal_ray.scoring.score_images import ScoreImages
from madbal_ray.strategies.madbal import MADBAL
from madbal_ray.vision.boundary import boundary_map

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
EXPERIMENT = EXPERIMENTS / "quickstart-finetuned.yaml"
IMAGES = 1024


def _run(folder: Path, changes: list[str], **options: Any) -> Run:
    return _run_of(EXPERIMENT, folder, changes, **options)


def _run_of(experiment: Path, folder: Path, changes: list[str], **options: Any) -> Run:
    with contextlib.suppress(StopRequested):
        api.run(experiment, run_dir=folder / "run", overrides=changes, **options)
    return api.open_run(folder / "run")


def _seconds(run: Run, *stages: str) -> float:
    table = run.table("timings").to_pandas()
    return float(table[table["stage"].isin(stages)]["seconds"].sum())


def scoring(device: str) -> Iterator[Row]:
    """The scoring stage through Ray against a bare loop with a perfect loader."""
    size = ["data.synthetic.height=128", "data.synthetic.width=256"]
    changes = [f"data.synthetic.num_train={IMAGES}", "data.synthetic.num_val=2", *size]
    changes += ["train.phase1.epochs=0", "train.phase2.epochs=0", "superpixels.pixels=256"]
    workers = 1 if device == "cuda" else 2  # the bare loop has one GPU too
    changes += [f"resources.scoring_workers={workers}", f"resources.device={device}"]
    changes += ["num_rounds=2"]
    with tempfile.TemporaryDirectory() as folder:
        run = _run(Path(folder), changes, stop_after=("score", 1))
        files = sorted(
            path.stat().st_mtime
            for path in run.stage("score", 1).folder.local_path.rglob("*_scores/*")
        )
        shard = run.config.pool.shard_images
        start, end = files[1], files[-1]  # the actors have warmed up
        through_ray = (len(files) - 2) * shard / (end - start)
        bare = _bare_loop(run, device)
    yield Row(
        f"scoring {IMAGES} images of 128 x 256 through Ray, actors: {workers}",
        f"{through_ray:.1f} images/s",
        f"{bare:.1f} images/s",
        f"{through_ray / bare:.2f} of the bare loop",
        ">= 0.85 (GPU: 0.9)",
        through_ray / bare >= (0.9 if device == "cuda" else 0.85),
    )


def _bare_loop(run: Run, device: str) -> float:
    """Return images/s of forward + uncertainty + reduction, everything decoded before."""
    config, shard_id = run.config, 0
    network = load_network(config.model, len(run.class_names), run.network(0), "full").to(device)
    network.set_phase("eval")
    plan = MADBAL.plan(config, num_classes=len(run.class_names), round_index=1)
    stage = ScoreImages(network, plan, use_bf16=False, device=torch.device(device))
    reader = run.reader()
    images = read_images(run.stage("images"), shard_id)
    label_maps = read_label_maps(run.stage("superpixels"), shard_id, images)
    decoded = [reader.on_both_grids(image) for image in images]
    batches, size = [], config.score.batch_size
    for first in range(0, len(images), size):
        part = images[first : first + size]
        pictures = decoded[first : first + size]
        maps = [label_maps[image.image_id] for image in part]
        batches.append(
            {
                "image_id": [image.image_id for image in part],
                "inputs": [one for one, _ in pictures],
                "boundary": [boundary_map(one) for _, one in pictures],
                "label_map": maps,
                "cluster_id": [np.zeros(int(one.max()) + 1, np.int32) for one in maps],
                "is_asked": [np.zeros(one.shape, bool) for one in maps],
            }
        )
    stage(**batches[0])
    rounds = 4
    started = time.perf_counter()
    for _ in range(rounds):
        for batch in batches:
            stage(**batch)
    return rounds * len(images) / (time.perf_counter() - started)


def preparation(device: str) -> Iterator[Row]:
    """Superpixels and features with two processes against one; always on the CPU."""
    changes = ["resources.device=cpu"]
    changes += ["data.synthetic.num_train=512", "data.synthetic.num_val=2"]
    changes += ["data.synthetic.height=240", "data.synthetic.width=320", "pool.shard_images=16"]
    changes += ["features.extractor=mobilenet_v2", "resources.decode_threads=1"]
    seconds = []
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            run = _run(
                Path(folder),
                [*changes, f"resources.scoring_workers={workers}"],
                stop_after=("superpixel_features", None),
            )
            seconds.append(_seconds(run, "superpixels", "superpixel_features"))
    one, two = seconds
    yield Row(
        "superpixels + features of 512 images, 2 processes against 1 (start-up included)",
        milliseconds(two),
        milliseconds(one),
        f"{one / two:.2f} x",
        ">= 1.6 x",
        one / two >= 1.6,
    )


def frozen(device: str) -> Iterator[Row]:
    """A round on a frozen backbone against one that fine-tunes, on the same images.

    As many of them as CamVid has: 367 to ask in, 334 to measure on. Fine-tuning is forecast
    (its steps are measured, and multiplied): it would take half an hour.
    """
    count = {"num_train": 367, "num_val": 334, "height": 360, "width": 480}
    data = ["data.name=synthetic", *(f"data.synthetic.{k}={v}" for k, v in count.items())]
    data += [f"resources.device={device}"]
    for engine, limit in (("local", 20.0), ("ray", 35.0)):
        with tempfile.TemporaryDirectory() as folder:
            changes = [*data, "num_rounds=3"]
            run = _run_of(
                EXPERIMENTS / "camvid-frozen-cpu.yaml", Path(folder), changes, engine=engine
            )
            events = run.run_dir.events()
        ends = [event["time"] for event in events if event["event"] == "round_finished"]
        ours = ends[2] - ends[1]
        tuned = load_config(EXPERIMENTS / "camvid-cpu.yaml", overrides=data)
        theirs = forecast(tuned, device=device).round_seconds
        yield Row(
            f"a round on frozen features, 367 images of 360 x 480, engine {engine}, against "
            "fine-tuning at 180 x 240 (forecast)",
            milliseconds(ours),
            milliseconds(theirs),
            f"{theirs / ours:.1f} x",
            f">= 20 x, <= {limit:g} s",
            theirs / ours >= 20 and ours <= limit,
        )


def overhead(device: str) -> Iterator[Row]:
    """What a round of the demo costs beyond training and scoring, start-ups included.

    Training and scoring are what they take on the local engine, which starts nothing: on Ray
    the start of workers lies inside both stages.
    """
    rounds = range(1, load_config(EXPERIMENT).num_rounds)
    work: dict[int, float] = {}
    for engine, limit in (("local", 2.0), ("ray", 30.0)):
        with tempfile.TemporaryDirectory() as folder:
            run = _run(Path(folder), [f"resources.device={device}"], engine=engine)
            events = run.run_dir.events()
        ends = [event["time"] for event in events if event["event"] == "round_finished"]
        if not work:
            for event in events:
                if event["event"] == "stage_finished" and event["stage"] in ("train", "score"):
                    index = event["round"]
                    work[index] = work.get(index, 0.0) + event["seconds"]
        worst = max(ends[i] - ends[i - 1] - work[i] for i in rounds)
        yield Row(
            f"a round of the demo beyond training and scoring, engine {engine}",
            milliseconds(worst),
            "–",
            f"{worst:.2f} s",
            f"<= {limit:g} s",
            worst <= limit,
        )
