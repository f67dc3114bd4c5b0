"""Scoring a pool without masks with a trained network: no experiment, no oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from madbal_ray import tables
from madbal_ray.config import Config
from madbal_ray.config_file import load_config, merged
from madbal_ray.errors import ConfigError
from madbal_ray.loop.acquisition import Acquisition
from madbal_ray.loop.engine import Engine
from madbal_ray.loop.model_file import TrainedModel
from madbal_ray.loop.pool import prepare_pool
from madbal_ray.loop.pool_reader import ImageShardJob, read_images, split_by_image
from madbal_ray.loop.progress import Progress
from madbal_ray.loop.stage_runner import StageRunner
from madbal_ray.loop.trackers import Trackers
from madbal_ray.run_dir import RunDir
from madbal_ray.stage_dir import StageDir, digests
from madbal_ray.strategies import resolve
from madbal_ray.vision.grids import nearest_pixel

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


@dataclass
class RequestPixels(ImageShardJob):
    """Queries on the grid of the original images: what an annotator is asked."""

    images: StageDir
    queries: StageDir
    table_names = ("pixel_requests",)
    is_light = True

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Map the queries of one shard."""
        queries = self.queries.read_table("queries", [shard_id])
        rows_of = split_by_image(queries)
        parts = []
        for image in read_images(self.images, shard_id):
            if image.image_id not in rows_of:
                continue
            span = rows_of[image.image_id]
            rows = queries.slice(span.start, span.stop - span.start)
            y = rows["y"].to_numpy().astype(np.int64)
            x = rows["x"].to_numpy().astype(np.int64)
            parts.append(
                tables.from_columns(
                    "pixel_requests",
                    {
                        "image_id": rows["image_id"].to_pylist(),
                        "image_uri": [image.image_uri] * len(y),
                        "image_height": np.full(len(y), image.height),
                        "image_width": np.full(len(y), image.width),
                        "image_y": nearest_pixel(y, image.work_height, image.height),
                        "image_x": nearest_pixel(x, image.work_width, image.width),
                        "unit": rows["unit"].to_pylist(),
                        "rank": rows["rank"].to_numpy(),
                        "score": rows["score"].to_numpy(),
                        "superpixel_id": rows["superpixel_id"].to_pylist(),
                        "cluster_id": rows["cluster_id"].to_pylist(),
                    },
                )
            )
        return {"pixel_requests": tables.concat("pixel_requests", parts)}

    def count(self, shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
        """Count images and requests."""
        requests = shard_tables["pixel_requests"]
        return {"images": len(requests["image_id"].unique()), "asked": requests.num_rows}
