"""Predicting images with a trained network: files, and a table of what they show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from madbal_ray.config.file import load_config
from madbal_ray.config.schema import Config
from madbal_ray.engine.contract import Engine
from madbal_ray.engine.progress import Progress
from madbal_ray.engine.stages import StageRunner
from madbal_ray.errors import ConfigError, PoolError
from madbal_ray.loop.score_unlabelled import ROUND, check_network, of_other_images
from madbal_ray.pool.evaluation_splits import totals_of
from madbal_ray.pool.prepare import inspect_pool
from madbal_ray.report.spreadsheet import csv_bytes
from madbal_ray.runs.trained_model import TrainedModel
from madbal_ray.scoring.predict_job import MapKind, PredictImages
from madbal_ray.scoring.predicted_files import file_name, same_stems
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import StageDir, digests
from madbal_ray.strategies.strategy import resolve
from madbal_ray.tracking.trackers import Trackers

CSV_NAME = "predictions.csv"


def predicting_config(
    model: TrainedModel, images: str, kinds: Sequence[MapKind], *, overrides: tuple[str, ...] = ()
) -> Config:
    """Return the settings under which images are predicted: the model's, with other images.

    Raises:
        ConfigError: an override changes what the network is, or its strategy has no pixel score
            and a map of it is wanted.
    """
    config = load_config(of_other_images(model, images), overrides)
    check_network(model, config)
    strategy = resolve(config.strategy)
    if "scores" in kinds and not strategy.scores_pool:
        raise ConfigError(
            f"maps of scores: strategy {strategy.name} asks without a network, so there is no "
            "score; leave them out, or set strategy.name to one with a pixel score"
        )
    return config


def predict_unlabelled(
    model: TrainedModel,
    config: Config,
    out: RunDir,
    engine: Engine,
    progress: Progress,
    *,
    kinds: Sequence[MapKind],
    colors: Sequence[tuple[int, int, int]],
) -> None:
    """Predict all images; do what is not done yet.

    Args:
        out: folder of the result; a run folder of its own, so that the same call carries on.
        kinds: what is written of each image, a folder of `out` each.
        colors: of the classes.
    """
    trackers = Trackers(config, out, progress.say)
    is_finished = False
    try:
        runner = StageRunner(out, engine, progress, trackers, None)
        _predict(model, config, out, runner, engine.device, kinds=kinds, colors=colors)
        is_finished = True
    finally:
        trackers.close(is_finished=is_finished)


def _predict(
    model: TrainedModel,
    config: Config,
    out: RunDir,
    runner: StageRunner,
    device: str,
    *,
    kinds: Sequence[MapKind],
    colors: Sequence[tuple[int, int, int]],
) -> None:
    _, reader, index, images = inspect_pool(config, out.folder / "pool", runner, needs_masks=False)
    shards = index.marker().summary["shards_of_split"][config.data.pool_split]
    totals = totals_of(images, shards)
    if not totals["images"]:
        raise PoolError(
            f"no image can be used: all {totals['quarantined']} are quarantined; table quarantine "
            f"of {out.folder} has the reasons"
        )
    whole = same_stems(images.read_table("images", shards, columns=["image_id"])["image_id"])
    at_round, strategy = runner.of_round(ROUND), resolve(config.strategy)
    known = out.find("predictions", ROUND)
    if known is not None and known.marker().settings["kinds"] != sorted(kinds):
        raise ConfigError(
            f"{out.folder} holds {', '.join(known.marker().settings['kinds'])} of these images and "
            f"{', '.join(sorted(kinds))} are asked for: choose another --out"
        )
    for stage in model.phases.stages:
        at_round.point(stage)
    plan = None
    if "scores" in kinds:
        plan = strategy.plan(config, num_classes=len(model.class_names), round_index=ROUND)
    output = at_round.plan(
        out.round_folder(ROUND),
        "predictions",
        {
            "kinds": sorted(kinds),
            "colors": [list(color) for color in colors],
            "model": config.model.result_settings(),
            "score": config.score.result_settings(),
            "strategy": config.strategy.result_settings(),
        },
        digests(images, *model.phases.stages),
    )
    job = PredictImages(
        output=output,
        reader=reader,
        threads=config.resources.decode_threads,
        images=images,
        files=out.folder,
        kinds=kinds,
        whole=whole,
        colors=colors,
        phases=model.phases,
        model=config.model,
        config=config.score,
        supports=strategy.supports,
        plan=plan,
        device=device,
    )
    at_round.map(job, shards, total=totals["images"])
    out.folder.write(CSV_NAME, b"".join(_csv(output, shards, model.class_names, whole)))


def _csv(
    predictions: StageDir, shards: Sequence[int], class_names: Sequence[str], whole: frozenset[str]
) -> Iterator[bytes]:
    """Yield the table for people, a shard at a time: shares of the classes of each image."""
    header = True
    for shard_id in shards:
        rows = predictions.read_table("predictions", [shard_id]).to_pylist()
        if not rows:
            continue
        pixels = np.array([row["class_pixels"] for row in rows], np.int64)
        shares = pixels / pixels.sum(axis=1, keepdims=True)
        table = pd.DataFrame(
            {
                "image_id": [row["image_id"] for row in rows],
                "mask": [f"masks/{file_name(row['image_id'], '.png', whole)}" for row in rows],
                "mean_confidence": [round(row["mean_confidence"], 4) for row in rows],
            }
        )
        for class_id, name in enumerate(class_names):
            table[f"share of {name}"] = shares[:, class_id].round(6)
        text = csv_bytes(table)
        yield text if header else text.partition(b"\n")[2]
        header = False
