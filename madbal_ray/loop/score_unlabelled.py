"""Scoring a pool without masks with a trained network: no experiment, no oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from madbal_ray.config.file import load_config, merged
from madbal_ray.config.schema import Config
from madbal_ray.engine.contract import Engine
from madbal_ray.engine.progress import Progress
from madbal_ray.engine.stages import StageRunner
from madbal_ray.errors import ConfigError
from madbal_ray.labels.requests import request_pixels
from madbal_ray.loop.history import History
from madbal_ray.loop.round import Round
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.pool.prepare import prepare_pool
from madbal_ray.runs.known_labels import write_known_labels
from madbal_ray.runs.trained_model import TrainedModel
from madbal_ray.state.run_dir import RunDir
from madbal_ray.strategies.strategy import resolve
from madbal_ray.tracking.trackers import Trackers

ROUND = 0
"""Scores and queries of a pool are those of one round without labels."""


def of_other_images(model: TrainedModel, images: str) -> dict[str, Any]:
    """Return a model's settings for images that it has not seen, none of them labelled."""
    changes = {
        "data": {
            "name": "images",
            "root": images,
            "pool_images": None,
            "max_bad_fraction": 1.0,
            "folder": {"classes": list(model.class_names)},
        },
        "pool": {"dir": None},
        "model": {"weights": "none"},
        "oracle": {"skip_void": False, "share": 1.0, "store": None},
        "budget": {"scope": "image", "max_per_image": None, "total_pixels": None},
        "evaluation": {"splits": [], "points": None, "points_split": None},
        "tracking": {"mlflow": None, "wandb": None},
        "num_rounds": 1,
    }
    return merged(model.config.model_dump(mode="json"), changes)


def check_network(model: TrainedModel, config: Config) -> None:
    """Refuse settings under which the model's weights are of another network.

    Raises:
        ConfigError: they are.
    """
    if config.model != model.config.model.model_copy(update={"weights": "none"}):
        raise ConfigError(
            "model.* belongs to the checkpoint and cannot be changed when it sees other images"
        )


def scoring_config(model: TrainedModel, pool: str, *, overrides: tuple[str, ...] = ()) -> Config:
    """Return the settings under which a pool is scored: the model's, with other images.

    Raises:
        ConfigError: an override changes what the network is, or the strategy scores nothing.
    """
    config = load_config(of_other_images(model, pool), overrides)
    check_network(model, config)
    strategy = resolve(config.strategy)
    if not strategy.scores_pool:
        raise ConfigError(
            f"strategy {strategy.name} asks without a network, so there is nothing to score; set "
            "strategy.name to one with a pixel score"
        )
    if strategy.supports != resolve(model.config.strategy).supports and strategy.has_phase2:
        raise ConfigError(
            f"strategy {strategy.name} needs maturity heads and loss prediction "
            f"({strategy.supports}), which this checkpoint was trained without"
        )
    return config


def score_unlabelled(
    model: TrainedModel,
    config: Config,
    out: RunDir,
    engine: Engine,
    progress: Progress,
    *,
    asks: bool,
    known: Sequence[str] = (),
    stop_after: tuple[str, int | None] | None = None,
) -> None:
    """Prepare a pool, score it and, where asked for, choose pixels; do what is not done yet.

    Args:
        out: folder of the result; a run folder of its own, so that the same call carries on.
        asks: also choose `budget.pixels_per_image` pixels in each image.
        known: runs and files whose pixels are not asked again (`write_known_labels`).
    """
    trackers = Trackers(config, out, progress.say)
    is_finished = False
    try:
        runner = StageRunner(out, engine, progress, trackers, stop_after)
        _score(model, config, out, runner, engine.device, asks=asks, known=known)
        is_finished = True
    finally:
        trackers.close(is_finished=is_finished)


def _score(
    model: TrainedModel,
    config: Config,
    out: RunDir,
    runner: StageRunner,
    device: str,
    *,
    asks: bool,
    known: Sequence[str],
) -> None:
    pool = prepare_pool(config, out.folder / "pool", runner, device, needs_masks=False)
    folder, at_round = out.round_folder(ROUND), runner.of_round(ROUND)
    scoring = Round(
        config=config,
        pool=pool,
        index=ROUND,
        runner=at_round,
        folder=folder,
        own_folder=folder,
        weights=PublishedWeights("none", None),
        device=device,
    )
    phases = model.phases
    if not resolve(config.strategy).has_phase2:  # its network has no heads for that
        phases = replace(phases, phase2=None)
    for stage in phases.stages:
        at_round.point(stage)
    history = replace(History.before(pool), network=phases)
    if known:
        labels = write_known_labels(known, pool, folder, runner.progress.say)
        at_round.point(labels)
        history = replace(history, labels=(labels,))
    if not asks:
        scoring.score(history)
        return
    request_pixels(at_round, folder, pool, scoring.ask(history), run_id=out.identity())
