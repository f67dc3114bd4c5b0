"""What a frozen backbone needs of a pool before anything is trained on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from madbal_ray.config.pool import PoolConfig
from madbal_ray.config.schema import Config
from madbal_ray.config.training import ModelConfig
from madbal_ray.engine.stages import JobRunner
from madbal_ray.models.backbones import Backbone, frozen_backbone
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.pool.features.embed_images_job import EmbedImages
from madbal_ray.pool.features.stored_taps import damaged_shards
from madbal_ray.pool.features.tap_statistics_job import TapStatistics, sampled_shards
from madbal_ray.pool.reader import ImageReader
from madbal_ray.state.marker import digest
from madbal_ray.state.stage_dir import MARKER_NAME, StageDir, digests
from madbal_ray.state.storage import Folder

GIBIBYTE = 2**30
FLOAT16_BYTES = 2


def prepare_features(
    config: Config,
    folder: Folder,
    runner: JobRunner,
    reader: ImageReader,
    images: StageDir,
    weights: PublishedWeights,
    pool_shards: Sequence[int],
    evaluation_shards: Sequence[int],
    device: str,
) -> dict[str, StageDir]:
    """Compute the taps of all images and keep them where they fit, else only their statistics.

    Returns:
        What `Pool` has of it: `tap_statistics`; `features`, and `mirrored_features` where they are
        learned from, if taps are kept.
    """
    settings = {
        "backbone": config.model.backbone,
        "output_stride": config.model.output_stride,
        "weights": weights.identity,
        "precision": config.score.precision,
    }
    wanted = sorted({*pool_shards, *evaluation_shards})
    is_mirrored = config.train.mirrored_points
    size, num_images = _size(config.model, images, wanted)
    of_mirrored, num_mirrored = _size(config.model, images, pool_shards) if is_mirrored else (0, 0)
    size += of_mirrored
    keeps = keeps_features(config.pool, size)
    runner.progress.say(
        f"features of the frozen backbone: {size / GIBIBYTE:.2f} GiB, "
        + ("kept in the pool" if keeps else "not kept: computed again in every pass")
        + f" (pool.features_cache = {config.pool.features_cache})"
    )
    sampled = sampled_shards(pool_shards)
    inputs = digests(images)

    def embed(name: str, shards: Sequence[int], *, is_mirrored: bool, total: int) -> StageDir:
        kept = {"keeps": keeps, "shards": digest(shards)}
        output = runner.plan(folder, name, settings | kept, inputs)
        _mend(output, runner)
        job = EmbedImages(
            output=output,
            reader=reader,
            threads=config.resources.decode_threads,
            images=images,
            model=config.model,
            weights=weights,
            use_bf16=config.score.precision == "bf16",
            batch_size=config.score.batch_size,
            num_threads=config.score.threads_per_worker,
            keeps=keeps,
            is_mirrored=is_mirrored,
            device=device,
        )
        runner.map(job, shards, total=total if keeps else None)
        return output

    shards = wanted if keeps else sampled
    features = embed("backbone_features", shards, is_mirrored=False, total=num_images)
    made = {"features": features} if keeps else {}
    if keeps and is_mirrored:
        made["mirrored_features"] = embed(
            "mirrored_features", pool_shards, is_mirrored=True, total=num_mirrored
        )
    statistics = runner.plan(folder, "tap_statistics", settings, inputs)
    runner.call(TapStatistics(output=statistics, features=features, shard_ids=sampled))
    return made | {"tap_statistics": statistics}


def _size(model: ModelConfig, images: StageDir, shards: Sequence[int]) -> tuple[int, int]:
    """Return the bytes of the taps of some shards' images, and how many images they are."""
    sizes = images.read_table("images", shards, columns=["input_height", "input_width"])
    counted = sizes.group_by(sizes.column_names).aggregate([([], "count_all")]).to_pylist()
    backbone = shapes_only(model)
    size = sum(
        row["count_all"] * features_bytes(backbone, row["input_height"], row["input_width"])
        for row in counted
    )
    return size, sizes.num_rows


def features_bytes(backbone: Backbone, height: int, width: int) -> int:
    """Return the bytes that the taps of an image of this input size take."""
    taps = backbone(torch.empty(1, 3, height, width, device="meta"))
    return sum(FLOAT16_BYTES * tap.numel() for tap in taps)


def shapes_only(model: ModelConfig) -> Backbone:
    """Return a backbone without numbers: what it gives has shapes only."""
    return frozen_backbone(model, None).to("meta")


def keeps_features(config: PoolConfig, size: float) -> bool:
    """Tell whether features of so many bytes are kept."""
    if config.features_cache == "auto":
        return size <= config.features_cache_gib * GIBIBYTE
    return config.features_cache == "always"


def _mend(features: StageDir, runner: JobRunner) -> None:
    """Open a finished stage again whose files were removed or cut; the rest of it is kept."""
    if not features.is_done:
        return
    damaged = damaged_shards(features)
    if damaged:
        runner.progress.say(
            f"{len(damaged)} files of {features.folder} are gone or cut: computed anew"
        )
        features.folder.delete(MARKER_NAME)
        for path in damaged:
            features.folder.delete(path)
