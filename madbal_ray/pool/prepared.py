"""A prepared pool: what every job of a round reads from, as one frozen thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from madbal_ray.arrays import BoolMap, LabelMap
from madbal_ray.pool.features.stored_taps import ImageFeatures, NetworkInput, read_features
from madbal_ray.pool.reader import (
    ImageReader,
    PoolImage,
    read_images,
    read_label_maps,
    split_by_image,
)
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import IN_FLIGHT
from madbal_ray.vision.boundary import boundary_map
from madbal_ray.vision.grids import mirror_images


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A prepared pool; travels with every job, so it holds folders and never rows.

    Attributes:
        reader: reads images and masks.
        threads: decoding threads of a worker.
        images, superpixels, clusters: finished stages.
        shard_ids: shards of the pool split.
        num_images: images of the pool split, quarantined ones not counted (N).
        num_pixels: pixels of their working grids.
        evaluation_shards: shards of every evaluation split.
        evaluation_images: their table `images`; None: that of the pool.
        points_split: split of `evaluation.points` and its shards; None: nothing is measured so.
        evaluation_points: their answers (table `labels`), once there are any.
        held_points: their queries, where they lie in the pool: neither asked nor trained on.
        features: what is kept of a frozen backbone's taps; None: nothing is.
        mirrored_features: the same of mirrored images, where they are learned from and kept.
        tap_statistics: of a frozen backbone.
        superpixel_features: looks of superpixels, which `clusters` come from.
    """

    reader: ImageReader
    threads: int
    class_names: tuple[str, ...]
    images: StageDir
    superpixels: StageDir
    clusters: StageDir
    shard_ids: Sequence[int]
    num_images: int
    num_pixels: int
    evaluation_shards: Mapping[str, Sequence[int]] = field(default_factory=dict)
    evaluation_images: StageDir | None = None
    points_split: tuple[str, Sequence[int]] | None = None
    evaluation_points: StageDir | None = None
    held_points: StageDir | None = None
    features: StageDir | None = None
    mirrored_features: StageDir | None = None
    tap_statistics: StageDir | None = None
    superpixel_features: StageDir | None = None

    @property
    def num_classes(self) -> int:
        """Return C."""
        return len(self.class_names)

    def images_of(self, shard_id: int) -> list[PoolImage]:
        """Return the images of one shard in image_id order."""
        return read_images(self.images, shard_id)

    def label_maps_of(self, shard_id: int) -> dict[str, LabelMap]:
        """Return the label maps of one shard by image_id."""
        return read_label_maps(self.superpixels, shard_id, self.images_of(shard_id))

    def input_of(self, image: PoolImage) -> NetworkInput:
        """Return what the network takes of an image: its kept features, or the picture."""
        if self.features is None:
            return self.reader.on_input_grid(image)
        return read_features(self.features, image).taps

    def fetch(self, image: PoolImage) -> bytes | ImageFeatures:
        """Return what `input_and_boundary` decodes: the encoded image, or its kept features."""
        if self.features is None:
            return self.reader.fetch(image)
        return read_features(self.features, image)

    def input_and_boundary(
        self, image: PoolImage, fetched: bytes | ImageFeatures | None = None
    ) -> tuple[NetworkInput, BoolMap]:
        """Return what the network takes of an image, and delta on the working grid.

        Args:
            fetched: what `fetch` gave; None: it is fetched now.
        """
        fetched = self.fetch(image) if fetched is None else fetched
        if isinstance(fetched, ImageFeatures):
            return fetched.taps, fetched.boundary
        picture, work_image = self.reader.on_both_grids(image, fetched)
        return picture, boundary_map(work_image)

    def mirrored_input(self, image: PoolImage, inputs: NetworkInput) -> NetworkInput:
        """Return what the network takes of an image's mirror image.

        Args:
            inputs: of the image itself.
        """
        if not isinstance(inputs, tuple):
            return mirror_images(inputs)
        assert self.mirrored_features is not None
        return read_features(self.mirrored_features, image).taps

    @property
    def fetches(self) -> int:
        """Return how many images to ask for at once; kept features are read one at a time."""
        is_far = self.features is None and not self.reader.root.is_local
        return IN_FLIGHT if is_far else self.threads

    def clusters_of(self, shard_id: int) -> dict[str, np.ndarray]:
        """Return cluster ids in superpixel order by image_id of one shard."""
        return read_clusters(self.clusters, shard_id)


def read_clusters(clusters: StageDir, shard_id: int) -> dict[str, np.ndarray]:
    """Return cluster ids in superpixel order by image_id of one shard."""
    table = clusters.read_table("superpixel_clusters", [shard_id])
    ids = table["cluster_id"].to_numpy()
    return {name: ids[rows] for name, rows in split_by_image(table).items()}
