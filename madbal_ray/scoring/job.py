"""Scoring of the pool: one pass over the images, rows to choose from out."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from madbal_ray.arrays import IGNORE_INDEX, BoolMap, LabelMap
from madbal_ray.config.asking import ScoreConfig
from madbal_ray.config.training import ModelConfig, Supports
from madbal_ray.engine.contract import count_images
from madbal_ray.errors import ResourceError, one_line
from madbal_ray.labels.asked_pixels import AskedPixels
from madbal_ray.models.inputs import stack_on_host
from madbal_ray.models.trained import TrainedPhases, load_network
from madbal_ray.pool.features.stored_taps import ImageFeatures, NetworkInput, input_shape
from madbal_ray.pool.prepared import Pool, read_clusters
from madbal_ray.pool.reader import PoolImage
from madbal_ray.scoring.plan import ScoringPlan
from madbal_ray.scoring.score_images import ScoreImages
from madbal_ray.seams import SCORES
from madbal_ray.selection.cluster_statistics import cluster_statistics
from madbal_ray.state import tables
from madbal_ray.state.ahead import at_once, begun, fetch_ahead, map_ahead
from madbal_ray.state.notices import note
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
    uses_device = True
    counts_images = True
    _fits = 2**31  # images; fewer once the GPU's memory was seen to be full

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
        return self.compute(shard_id, self.load(shard_id))

    def load(self, shard_id: int) -> LoadedShard:
        """Read a shard's tables at once, while the first of its images are fetched and decoded."""
        images = self.pool.images_of(shard_id)
        threads = self.pool.threads
        decoded = fetch_ahead(
            self._fetch,
            self._decode,
            images,
            fetches=self.pool.fetches,
            threads=threads,
            ahead=2 * self.config.batch_size + threads,
        )
        decoded, label_maps, clusters = at_once(
            lambda: begun(decoded),
            lambda: self.pool.label_maps_of(shard_id),
            lambda: read_clusters(self.clusters, shard_id),
        )
        asked = AskedPixels(self.labels, shard_id, label_maps)
        return LoadedShard(zip(images, decoded, strict=True), label_maps, clusters, asked)

    def compute(self, shard_id: int, loaded: LoadedShard) -> dict[str, pa.Table]:
        """Score what is decoded, batch by batch."""
        table_name = self.table_names[0]

        def score(batch: dict[str, Any]) -> pa.Table:
            parts = [tables.from_columns(table_name, columns) for columns in self._score(batch)]
            return tables.concat(table_name, parts)

        # The next batch is put together here, in this thread, while another scores.
        cut = _batches(loaded.images, self.config.batch_size)
        batches = (self._put_together(loaded, batch) for batch in cut)
        with self._stage.threads() as threads:
            parts = list(map_ahead(score, batches, threads=threads, ahead=threads))
        scored = {table_name: tables.concat(table_name, parts)}
        if self.plan.rows == "superpixels":
            scored["cluster_statistics"] = shard_statistics(
                shard_id, scored[table_name], self.num_clusters, self.plan.num_classes
            )
        return scored

    def _score(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Score a batch; in halves, and those in halves, where it does not fit the GPU's memory.

        Raises:
            ResourceError: one image does not fit.
        """
        count = len(batch["image_id"])
        if count <= self._fits:
            try:
                return [self._stage(**batch)]
            except torch.cuda.OutOfMemoryError as error:
                reason = one_line(error)
            # Only here is the error gone, and with it the tensors that its frames hold.
            torch.cuda.empty_cache()
            if count == 1:
                raise ResourceError(
                    f"one image, {batch['image_id'][0]}, does not fit the GPU's memory ({reason}); "
                    "set score.precision=bf16 or a smaller grids.input, or see who else uses it"
                )
            self._fits = count // 2
            note(
                "halved batches",
                f"{count} images do not fit the GPU's memory ({reason}), so {self._fits} at once "
                "from here on; scores may differ in their last bits from those of whole batches: "
                "lower score.batch_size to rule that out",
            )
        half = count // 2
        parts = [_cut(batch, slice(0, half)), _cut(batch, slice(half, count))]
        return [columns for part in parts for columns in self._score(part)]

    def _put_together(self, loaded: LoadedShard, batch: list[Decoded]) -> dict[str, Any]:
        """Return what `ScoreImages` takes of a batch."""
        is_asked = []
        for image, (_, _, is_void) in batch:
            asked_map = loaded.asked.map_of(image)
            is_asked.append(asked_map if is_void is None else asked_map | is_void)
        ids = [image.image_id for image, _ in batch]
        most = self.num_clusters - 1
        return {
            "image_id": ids,
            "inputs": stack_on_host([inputs for _, (inputs, _, _) in batch], self.device),
            "boundary": [boundary for _, (_, boundary, _) in batch],
            "label_map": [loaded.label_maps[name] for name in ids],
            "cluster_id": [np.minimum(loaded.clusters[name], most) for name in ids],
            "is_asked": is_asked,
        }

    def _fetch(self, image: PoolImage) -> tuple[bytes | ImageFeatures, bytes | None]:
        """Return the encoded image or its features; where void is skipped, the encoded mask."""
        mask = self.pool.reader.fetch_mask(image) if self.skip_void else None
        return self._seen.fetch(image), mask

    def _decode(
        self, image: PoolImage, fetched: tuple[bytes | ImageFeatures, bytes | None]
    ) -> tuple[NetworkInput, BoolMap, BoolMap | None]:
        encoded, mask = fetched
        is_void = None
        if self.skip_void:
            is_void = self.pool.reader.mask_on_working_grid(image, mask) == IGNORE_INDEX
        return *self._seen.input_and_boundary(image, encoded), is_void


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


def _cut(batch: dict[str, Any], part: slice) -> dict[str, Any]:
    """Return some images of a batch; taps are a tuple of arrays."""
    return {
        name: tuple(one[part] for one in values) if isinstance(values, tuple) else values[part]
        for name, values in batch.items()
    }


@dataclass(frozen=True)
class LoadedShard:
    """What a shard is scored with; its images are decoded while it is."""

    images: Iterator[Decoded]
    label_maps: Mapping[str, LabelMap]
    clusters: Mapping[str, np.ndarray]
    asked: AskedPixels


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
