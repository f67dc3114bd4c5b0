"""Preparing a pool: the stages that every run on it shares.

Longer than others: the stages of a pool in their order, on one page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from madbal_ray.config.schema import Config
from madbal_ray.data.dataset import Dataset
from madbal_ray.data.registry import data_root, open_dataset
from madbal_ray.engine.stages import JobRunner, StageRunner
from madbal_ray.errors import DataError, PoolError
from madbal_ray.models.weights import PublishedWeights, publish_weights
from madbal_ray.pool.census import check_classes
from madbal_ray.pool.clusters.assign_job import AssignPool
from madbal_ray.pool.clusters.backend import choose_backend
from madbal_ray.pool.clusters.find_centroids import find_centroids
from madbal_ray.pool.contents import plan_inspection
from madbal_ray.pool.evaluation_splits import (
    check_splits,
    evaluation_splits,
    points_split,
    totals_of,
)
from madbal_ray.pool.features.prepare_features import prepare_features
from madbal_ray.pool.index import index_rows, write_index
from madbal_ray.pool.inspect_job import InspectImages
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import ImageReader
from madbal_ray.pool.superpixels.embed_job import EmbedPool
from madbal_ray.pool.superpixels.segment_job import SegmentPool
from madbal_ray.seams import ORACLES
from madbal_ray.state import tables
from madbal_ray.state.marker import digest_each
from madbal_ray.state.stage_dir import MARKER_NAME, StageDir, digests, table_path
from madbal_ray.state.storage import Folder

SHOWN_REASONS = 5


def prepare_pool(
    config: Config,
    folder: Folder,
    runner: StageRunner,
    device: str,
    *,
    weights: PublishedWeights | None = None,
    needs_masks: bool = True,
) -> Pool:
    """Index, inspect, segment, embed and cluster what is not done yet.

    Args:
        weights: of the network's backbone; a frozen one is then run over all images. None:
            nothing will be trained on this pool.
        needs_masks: the oracle will answer; False: nobody is asked.

    Raises:
        DataError: the data set or its masks cannot be used.
        PoolError: too many bad images, none left, or too few superpixels.
    """
    dataset, reader, index, images = inspect_pool(config, folder, runner, needs_masks=needs_masks)
    return prepare_inspected(
        config, folder, runner, reader, index, images, device, weights=weights,
        needs_masks=needs_masks, mask_sought=dataset.mask_sought, class_names=dataset.class_names,
    )  # fmt: skip


def inspect_pool(
    config: Config, folder: Folder, runner: StageRunner, *, needs_masks: bool
) -> tuple[Dataset, ImageReader, StageDir, StageDir]:
    """List a data set and look at each of its images; return stages `index` and `images` last.

    Raises:
        DataError, PoolError: as `prepare_pool`.
    """
    dataset = open_dataset(config.data, folder)
    if needs_masks:
        check_splits(config, dataset.splits, runner.progress.say)
    reader = ImageReader.of(dataset, data_root(config.data, folder), config.data)
    index = _index(config, folder, dataset, reader.root)
    runner.point(index)
    return dataset, reader, index, _inspect(config, folder, runner, reader, index)


def prepare_inspected(
    config: Config,
    folder: Folder,
    runner: JobRunner,
    reader: ImageReader,
    index: StageDir,
    images: StageDir,
    device: str,
    *,
    class_names: tuple[str, ...],
    weights: PublishedWeights | None = None,
    needs_masks: bool = True,
    mask_sought: str = "",
    publish: Callable[..., PublishedWeights] = publish_weights,
) -> Pool:
    """Do what follows the inspection: features, superpixels, clusters.

    Args:
        mask_sought: where masks were looked for, for a message.
        class_names: of the data set as it is, or as it was indexed.
        publish: of the extractor's weights (`publish_weights`).
    """
    shards: dict[str, list[int]] = index.marker().summary["shards_of_split"]
    pool_shards = shards[config.data.pool_split]
    totals = totals_of(images, pool_shards)
    _check_pool(config, totals, mask_sought, needs_masks=needs_masks)
    evaluation_shards = evaluation_splits(config, shards, images, runner.progress.say)
    points = points_split(config, shards)
    if needs_masks:
        measured = {config.data.pool_split: pool_shards} | evaluation_shards
        check_classes(config, images, measured, class_names, runner.progress.say)
    kept: dict[str, StageDir] = {}
    if not config.model.train_backbone and weights is not None:
        measured = [shard_id for ids in evaluation_shards.values() for shard_id in ids]
        measured += () if points is None else points[1]
        kept = prepare_features(
            config, folder, runner, reader, images, weights, pool_shards, measured, device
        )
    superpixels, features, clusters = _cluster(
        config, folder, runner, reader, images, pool_shards, totals["images"], device, publish
    )
    return Pool(
        reader=reader,
        threads=config.resources.decode_threads,
        class_names=class_names,
        images=images,
        superpixels=superpixels,
        clusters=clusters,
        superpixel_features=features,
        shard_ids=pool_shards,
        evaluation_shards=evaluation_shards,
        points_split=points,
        num_images=totals["images"],
        num_pixels=totals["work_pixels"],
        **kept,
    )


def _index(config: Config, folder: Folder, dataset: Dataset, root: Folder) -> StageDir:
    num_images, files = digest_each(index_rows(dataset, root, dataset.splits))
    settings = {
        "data": config.data.result_settings(),
        "pool": config.pool.result_settings(),
        "files": files,
    }
    if dataset.is_mapped:  # of a file that may be edited; only where there is one
        values = sorted(dataset.mask_values.items())
        settings["masks"] = {"coding": dataset.coding, "values": values}
        settings["classes"] = list(dataset.class_names)
    index = StageDir.plan(folder, "index", settings, {})
    if not index.is_done:
        write_index(
            index,
            dataset,
            root,
            pool_split=config.data.pool_split,
            shard_images=config.pool.images_in_shard(num_images),
        )
    return index


def _inspect(
    config: Config, folder: Folder, runner: StageRunner, reader: ImageReader, index: StageDir
) -> StageDir:
    """Decode everything once; stop early when too much of it is bad."""
    shards: dict[str, list[int]] = index.marker().summary["shards_of_split"]
    paths = index.marker().paths
    split_of = {shard_id: split for split, ids in shards.items() for shard_id in ids}
    total = {
        split: sum(paths[table_path("images", shard_id)].rows for shard_id in ids)
        for split, ids in shards.items()
    }
    images = plan_inspection(
        folder, config.grids, index, sorted(split_of), reader, runner.progress.say
    )
    bad: Counter[str] = Counter()

    def check(row: dict[str, Any]) -> None:
        split = split_of[row["shard_id"]]
        bad[split] += row["counts"]["quarantined"]
        if bad[split] > config.data.max_bad_fraction * total[split]:
            raise _too_many_bad(images, row["shard_id"], split, bad[split], total[split], config)

    runner.map(
        InspectImages(
            output=images,
            reader=reader,
            threads=config.resources.decode_threads,
            index=index,
            grids=config.grids,
        ),
        sorted(split_of),
        total=sum(total.values()),
        on_row=check,
    )
    if bad.total():
        runner.progress.say(
            f"{bad.total()} images are quarantined; see table `quarantine` for the reasons"
        )
    return images


def _too_many_bad(
    images: StageDir, shard_id: int, split: str, bad: int, total: int, config: Config
) -> PoolError:
    path = table_path("quarantine", shard_id)
    quarantine = tables.decode("quarantine", pa.BufferReader(images.folder.read(path)))
    rows = quarantine.slice(0, SHOWN_REASONS).to_pylist()
    reasons = "".join(f"\n  {row['image_id']}: {row['reason']}" for row in rows)
    return PoolError(
        f"{bad} of {total} images of split {split!r} cannot be used, more than "
        f"data.max_bad_fraction = {config.data.max_bad_fraction}; mend or remove them, or raise "
        f"the limit. The latest:{reasons}"
    )


def _check_pool(config: Config, totals: dict[str, int], sought: str, *, needs_masks: bool) -> None:
    if not totals["images"]:
        raise PoolError(
            f"no image of the pool can be used: all {totals['quarantined']} are quarantined"
        )
    kind = config.oracle.kind
    if needs_masks and ORACLES[kind].needs_masks and totals["without_mask"]:
        raise DataError(
            f"{totals['without_mask']} of {totals['images']} pool images have no mask, so a "
            f"{kind} oracle cannot answer for them{sought}; add the masks, or remove the images"
        )


def _cluster(
    config: Config,
    folder: Folder,
    runner: JobRunner,
    reader: ImageReader,
    images: StageDir,
    shard_ids: list[int],
    num_images: int,
    device: str,
    publish: Callable[..., PublishedWeights],
) -> tuple[StageDir, StageDir, StageDir]:
    """Return the stages of superpixels, of their features and of their clusters."""
    threads = config.resources.decode_threads
    superpixels = runner.plan(
        folder, "superpixels", config.superpixels.result_settings(), digests(images)
    )
    if not superpixels.is_done:  # then no centroids lie there: say early that they cannot be made
        choose_backend(config.clustering.backend, device)
    weights = PublishedWeights("none", None)
    if config.features.extractor != "color":
        weights = publish(
            config.features.weights, config.features.extractor, folder, option="features.weights"
        )
    # The key of superpixels, not their digest: both are written while an image is decoded.
    features = runner.plan(
        folder,
        "superpixel_features",
        config.features.result_settings() | {"weights": weights.identity},
        digests(images) | {"superpixels": superpixels.key},
    )
    if not superpixels.is_done:  # removed, perhaps: what was seen of others is of no use
        features.folder.delete(MARKER_NAME)
    embed = EmbedPool(
        output=features,
        reader=reader,
        threads=threads,
        images=images,
        superpixels=superpixels,
        config=config.features,
        weights=weights,
        device=device,
    )
    segment = SegmentPool(
        output=superpixels,
        reader=reader,
        threads=threads,
        images=images,
        config=config.superpixels,
        embed=embed,
    )
    runner.map(segment, shard_ids, total=num_images)
    runner.map(embed, shard_ids, total=num_images)
    centroids = runner.plan(
        folder, "centroids", config.clustering.result_settings(), digests(features)
    )
    find_centroids(config.clustering, folder, runner, centroids, features, shard_ids, device)
    clusters = runner.plan(folder, "superpixel_clusters", {}, digests(features, centroids))
    runner.map(
        AssignPool(output=clusters, features=features, centroids=centroids),
        shard_ids,
        total=num_images,
    )
    return superpixels, features, clusters
