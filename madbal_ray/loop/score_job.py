"""Scoring of the pool: one pass over the images, superpixel rows out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load as load_safetensors

from madbal_ray import tables
from madbal_ray.allocation import cluster_statistics
from madbal_ray.arrays import IGNORE_INDEX, BoolMap, RGBImage
from madbal_ray.config import ModelConfig, ScoreConfig
from madbal_ray.loop.cluster_jobs import read_clusters
from madbal_ray.loop.pool_reader import (
    ImageShardJob,
    PoolImage,
    asked_map,
    map_ahead,
    read_asked_pixels,
    read_images,
    read_label_maps,
)
from madbal_ray.models import SegmentationNetwork, build_network
from madbal_ray.stage_dir import StageDir
from madbal_ray.stages.score_images import ScoreImages

PHASE1_WEIGHTS = "phase1.safetensors"
PHASE2_WEIGHTS = "phase2.safetensors"


@dataclass
class ScorePool(ImageShardJob):
    """Superpixel scores and cluster statistics of every shard."""

    images: StageDir
    superpixels: StageDir
    clusters: StageDir
    phase1: StageDir
    phase2: StageDir
    labels: tuple[StageDir, ...]
    model: ModelConfig
    config: ScoreConfig
    num_classes: int
    num_clusters: int
    budget: int
    skip_void: bool
    device: str
    table_names = ("superpixel_scores", "cluster_statistics")

    def setup(self) -> None:
        """Load the network."""
        torch.set_num_threads(self.config.threads_per_worker)
        device = torch.device(self.device)
        network = load_network(self.model, self.num_classes, self.phase1, self.phase2).to(device)
        network.set_phase("eval")
        self._stage = ScoreImages(
            network,
            num_classes=self.num_classes,
            budget=self.budget,
            use_bf16=self.config.precision == "bf16",
            device=device,
        )

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Score one shard."""
        images = read_images(self.images, shard_id)
        label_maps = read_label_maps(self.superpixels, shard_id, images)
        clusters = read_clusters(self.clusters, shard_id)
        asked = read_asked_pixels(self.labels, shard_id)
        decoded = map_ahead(
            self._decode, images, threads=self.threads, ahead=2 * self.config.batch_size
        )
        parts = []
        for batch in _batches(zip(images, decoded, strict=True), self.config.batch_size):
            is_asked = []
            for image, (_, _, is_void) in batch:
                one = asked_map(image, asked)
                is_asked.append(one if is_void is None else one | is_void)
            ids = [image.image_id for image, _ in batch]
            columns = self._stage(
                image_id=ids,
                input_image=np.stack([pictures[0] for _, pictures in batch]),
                work_image=[pictures[1] for _, pictures in batch],
                label_map=[label_maps[name] for name in ids],
                cluster_id=[clusters[name] for name in ids],
                is_asked=is_asked,
            )
            parts.append(tables.from_columns("superpixel_scores", columns))
        scores = tables.concat("superpixel_scores", parts)
        return {
            "superpixel_scores": scores,
            "cluster_statistics": shard_statistics(
                shard_id, scores, self.num_clusters, self.num_classes
            ),
        }

    def _decode(self, image: PoolImage) -> tuple[RGBImage, RGBImage, BoolMap | None]:
        is_void = None
        if self.skip_void:
            is_void = self.reader.mask_on_working_grid(image) == IGNORE_INDEX
        return *self.reader.on_both_grids(image), is_void


def shard_statistics(
    shard_id: int, scores: pa.Table, num_clusters: int, num_classes: int
) -> pa.Table:
    """Return the one row of table `cluster_statistics` that sums up a shard's scores."""
    statistics = cluster_statistics(
        mean_score=scores["mean_score"].to_numpy(),
        dominant_class=scores["dominant_class"].to_numpy(),
        cluster_id=scores["cluster_id"].to_numpy(),
        num_clusters=num_clusters,
        num_classes=num_classes,
    )
    row = {
        "shard_id": shard_id,
        "num_clusters": num_clusters,
        "num_classes": num_classes,
        "count": statistics.count.ravel().tolist(),
        "score_sum": statistics.score_sum.ravel().tolist(),
    }
    return tables.from_rows("cluster_statistics", [row])


Decoded = tuple[PoolImage, tuple[RGBImage, RGBImage, BoolMap | None]]


def _batches(items: Iterator[Decoded], size: int) -> Iterator[list[Decoded]]:
    """Cut a shard into batches of `size` images, and those into runs of one input size.

    Shards hold whole batches (`pool.shard_images` is a multiple), so batches do not
    depend on sharding.
    """
    window: list[Decoded] = []
    for item in items:
        window.append(item)
        if len(window) == size:
            yield from _same_size(window)
            window = []
    yield from _same_size(window)


def _same_size(window: list[Decoded]) -> Iterator[list[Decoded]]:
    for _, run in groupby(window, key=lambda item: (item[1][0].shape, item[1][1].shape)):
        yield list(run)


def load_network(
    model: ModelConfig, num_classes: int, phase1: StageDir, phase2: StageDir
) -> SegmentationNetwork:
    """Return the network of a finished round."""
    network = build_network(model, num_classes, weights=None, seed=0)
    state = {
        **load_safetensors(phase1.folder.read(PHASE1_WEIGHTS)),
        **load_safetensors(phase2.folder.read(PHASE2_WEIGHTS)),
    }
    network.load_state_dict(state, strict=True)
    return network
