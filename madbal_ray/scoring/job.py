"""Scoring of the pool: one pass over the images, rows to choose from out."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import pyarrow as pa
import torch

from madbal_ray.arrays import IGNORE_INDEX, BoolMap
from madbal_ray.config.asking import ScoreConfig
from madbal_ray.config.training import ModelConfig, Supports
from madbal_ray.engine.contract import count_images
from madbal_ray.labels.asked_pixels import AskedPixels
from madbal_ray.models.trained import TrainedPhases, load_network
from madbal_ray.pool.features.stored_taps import NetworkInput, input_shape
from madbal_ray.pool.prepared import Pool, read_clusters
from madbal_ray.pool.reader import PoolImage
from madbal_ray.scoring.plan import ScoringPlan
from madbal_ray.scoring.score_images import ScoreImages
from madbal_ray.seams import SCORES
from madbal_ray.selection.cluster_statistics import cluster_statistics
from madbal_ray.state import tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.stage_dir import StageDir


@dataclass(kw_only=True)
class ScoreShards:
    """Rows to choose from, of every shard: superpixels, pixel candidates or images.

    Attributes:
        clusters: what superpixels are grouped by.
        phases: the network that asks.
        num_clusters: K of the statistics; 1 puts all superpixels into one cluster.
    """

    output: StageDir
    pool: Pool
    clusters: StageDir
    phases: TrainedPhases
    labels: tuple[StageDir, ...]
    model: ModelConfig
    config: ScoreConfig
    plan: ScoringPlan
    supports: Supports
    num_clusters: int
    skip_void: bool
    device: str
    is_light = False
    counts_images = True

    def count(self, shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
        """Count the shard's images."""
        return count_images(shard_tables)

    @property
    def table_names(self) -> tuple[str, ...]:
        """Return the tables that every shard writes."""
        return {
            "superpixels": ("superpixel_scores", "cluster_statistics"),
            "candidates": ("pixel_candidates",),
            "images": ("image_scores",),
        }[self.plan.rows]

    def setup(self) -> None:
        """Load the network."""
        torch.set_num_threads(self.config.threads_per_worker)
        device = torch.device(self.device)
        network = load_network(self.model, self.plan.num_classes, self.phases, self.supports).to(
            device
        )
        network.set_phase("eval")
        if self.config.compile:
            network.compile()
        self._stage = ScoreImages(
            network, self.plan, use_bf16=self.config.precision == "bf16", device=device
        )

    @functools.cached_property
    def _seen(self) -> Pool:
        """Return where inputs come from; a flipped image has other features than the image."""
        flips = SCORES[self.plan.pixel_score].passes == "flip"
        return replace(self.pool, features=None) if flips else self.pool

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Score one shard."""
        images = self.pool.images_of(shard_id)
        label_maps = self.pool.label_maps_of(shard_id)
        clusters = read_clusters(self.clusters, shard_id)
        asked = AskedPixels(self.labels, shard_id, label_maps)
        decoded = map_ahead(
            self._decode, images, threads=self.pool.threads, ahead=2 * self.config.batch_size
        )
        table_name = self.table_names[0]

        def score(batch: list[Decoded]) -> pa.Table:
            is_asked = []
            for image, (_, _, is_void) in batch:
                asked_map = asked.map_of(image)
                is_asked.append(asked_map if is_void is None else asked_map | is_void)
            ids = [image.image_id for image, _ in batch]
            columns = self._stage(
                image_id=ids,
                inputs=[inputs for _, (inputs, _, _) in batch],
                boundary=[boundary for _, (_, boundary, _) in batch],
                label_map=[label_maps[name] for name in ids],
                cluster_id=[np.minimum(clusters[name], self.num_clusters - 1) for name in ids],
                is_asked=is_asked,
            )
            return tables.from_columns(table_name, columns)

        batches = _batches(zip(images, decoded, strict=True), self.config.batch_size)
        with self._stage.threads() as threads:
            parts = list(map_ahead(score, batches, threads=threads, ahead=threads))
        scored = {table_name: tables.concat(table_name, parts)}
        if self.plan.rows == "superpixels":
            scored["cluster_statistics"] = shard_statistics(
                shard_id, scored[table_name], self.num_clusters, self.plan.num_classes
            )
        return scored

    def _decode(self, image: PoolImage) -> tuple[NetworkInput, BoolMap, BoolMap | None]:
        is_void = None
        if self.skip_void:
            is_void = self.pool.reader.mask_on_working_grid(image) == IGNORE_INDEX
        return *self._seen.input_and_boundary(image), is_void


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


Decoded = tuple[PoolImage, tuple[NetworkInput, BoolMap, BoolMap | None]]


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
    for _, run in groupby(window, key=lambda item: (input_shape(item[1][0]), item[1][1].shape)):
        yield list(run)
