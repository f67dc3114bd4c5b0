"""Scoring a pool without masks with a trained network: no experiment, no oracle."""

from __future__ import annotations

from dataclasses import dataclass

from madbal_ray.config.file import load_config, merged
from madbal_ray.config.schema import Config
from madbal_ray.engine.contract import Engine
from madbal_ray.engine.progress import Progress
from madbal_ray.engine.stages import StageRunner
from madbal_ray.errors import ConfigError
from madbal_ray.labels.requests import RequestPixels
from madbal_ray.loop.ask import Acquisition
from madbal_ray.pool.prepare import prepare_pool
from madbal_ray.runs.trained_model import TrainedModel
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import StageDir, digests
from madbal_ray.strategies.registry import resolve
from madbal_ray.tracking.trackers import Trackers

ROUND = 0
"""Scores and queries of a pool are those of one round without labels."""


def scoring_config(model: TrainedModel, pool: str, *, overrides: tuple[str, ...] = ()) -> Config:
    """Return the settings under which a pool is scored: the model's, with other images.

    Raises:
        ConfigError: an override changes what the network is, or the strategy scores nothing.
    """
    changes = {
        "data": {
            "name": "images",
            "root": pool,
            "pool_images": None,
            "max_bad_fraction": 1.0,
            "folder": {"classes": list(model.class_names)},
        },
        "pool": {"dir": None},
        "model": {"weights": "none"},
        "oracle": {"skip_void": False},
        "budget": {"scope": "image", "max_per_image": None},
        "evaluation": {"splits": []},
        "tracking": {"mlflow": None, "wandb": None},
        "num_rounds": 1,
    }
    config = load_config(merged(model.config.model_dump(mode="json"), changes), overrides)
    if config.model != model.config.model.model_copy(update={"weights": "none"}):
        raise ConfigError(
            "model.* belongs to the checkpoint and cannot be changed when it scores a pool"
        )
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


@dataclass
class PoolScorer:
    """Prepares a pool, scores it and, with a budget, asks for pixels.

    Attributes:
        out: folder of the result; a run folder of its own, so that the same call carries on.
    """

    model: TrainedModel
    config: Config
    out: RunDir
    engine: Engine
    progress: Progress
    stop_after: tuple[str, int | None] | None = None

    def run(self, *, ask: bool) -> None:
        """Do what is not done yet.

        Args:
            ask: also choose `budget.pixels_per_image` pixels in each image.
        """
        trackers = Trackers(self.config, self.out, self.progress.say)
        is_finished = False
        try:
            self._run(ask, trackers)
            is_finished = True
        finally:
            trackers.close(is_finished=is_finished)

    def _run(self, ask: bool, trackers: Trackers) -> None:
        runner = StageRunner(self.out, self.engine, self.progress, trackers, self.stop_after)
        pool = prepare_pool(
            self.config, self.out.folder / "pool", runner, self.engine.device, needs_masks=False
        )
        strategy = resolve(self.config.strategy)
        runner.round_index = ROUND
        for phase in self.model.phases:
            if phase is not None:
                runner.point(phase)
        acquisition = Acquisition(self.config, strategy, pool, runner, self.engine.device)
        folder = self.out.round_folder(ROUND)
        if not ask:
            acquisition.score(folder, ROUND, (), self.model.phases)
            return
        queries = acquisition.ask(folder, ROUND, (), self.model.phases)
        requests = StageDir.plan(folder, "requests", {}, digests(pool.images, queries))
        runner.map(
            RequestPixels(
                requests, pool.reader, self.config.resources.decode_threads, pool.images, queries
            ),
            pool.shard_ids,
            total=pool.num_images,
        )
