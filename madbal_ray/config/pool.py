"""Options of a prepared pool: grids, shards, superpixels, features, clusters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from madbal_ray.config.section import (
    ADDED,
    RUNTIME,
    Address,
    GridSize,
    NonNegative,
    Positive,
    Section,
    known,
)
from madbal_ray.seams import (
    SUPERPIXELS,
)

SuperpixelMethod = Annotated[str, known(SUPERPIXELS)]


class GridsConfig(Section):
    """The three grids (method 0); the third is `evaluation.size`."""

    input: GridSize = Field(default="original", description="what the network sees; pixels")
    working: GridSize = Field(
        default="original", description="labels, superpixels, scores, queries; pixels"
    )


class PoolConfig(Section):
    """Pool preparation, shared by all runs that agree on its settings."""

    dir: Address | None = Field(
        default=None,
        json_schema_extra=RUNTIME,
        description="null: the folder `pool` beside the run",
    )
    shard_images: Positive = Field(default=64, description="images in a shard")
    max_shards: Positive = Field(
        default=20_000,
        json_schema_extra=ADDED,
        description="shard_images is doubled until a data set has no more shards than this, one a "
        "split aside: ten million images are 19,532 shards of 512",
    )
    features_cache: Literal["auto", "always", "never"] = Field(
        default="auto",
        json_schema_extra=RUNTIME,
        description="features of a frozen backbone: kept in the pool, or computed again whenever "
        "they are needed; auto: kept when they fit features_cache_gib",
    )
    features_cache_gib: Annotated[float, Field(ge=0)] = Field(
        default=50.0, json_schema_extra=RUNTIME, description="limit of features_cache: auto"
    )

    def images_in_shard(self, num_images: int) -> int:
        """Return the images of a shard of a data set of `num_images`.

        >>> PoolConfig().images_in_shard(1000), PoolConfig().images_in_shard(10_000_000)
        (64, 512)
        """
        size = self.shard_images
        while size * self.max_shards < num_images:
            size *= 2
        return size


class SuperpixelsConfig(Section):
    """Superpixels of the working grid (paper section 4; method 4)."""

    method: SuperpixelMethod = "seeds"
    pixels: Annotated[int, Field(ge=4)] = Field(
        default=256, description="mean pixels of a superpixel asked for (16 x 16 squares)"
    )
    seeds_levels: Annotated[int, Field(ge=1, le=5)] = Field(
        default=4,
        description="levels of SEEDS at most; a level more costs three times as much "
        "(docs/performance.md)",
    )


class FeaturesConfig(Section):
    """What a superpixel looks like (method 4)."""

    extractor: Literal["color", "mobilenet_v2", "vgg16"] = "color"
    weights: str = Field(
        default="none",
        json_schema_extra=RUNTIME,
        description="torchvision weights name | file | none (random); keys hold the file's sha256",
    )
    batch_size: Positive = Field(default=256, description="patches through the network at once")


class ClusteringConfig(Section):
    """K-means over all superpixels of the pool (paper section 4)."""

    num_clusters: Positive = Field(default=9, description="K; the reference code's 9")
    backend: Literal["auto", "sklearn", "cuml"] = Field(
        default="auto",
        description="auto: cuml where workers use CUDA and cuML is installed, else sklearn",
    )
    max_fit_rows: Positive = Field(
        default=1_000_000,
        description="superpixels that one fit holds in memory; for more see fit_on",
    )
    fit_on: Literal["sample", "all"] = Field(
        default="sample",
        description="when there are more: a seeded sample of max_fit_rows | all of them (sklearn: "
        "the sample's centroids refined in mini-batches; cuml: all rows, on all GPUs)",
    )
    seed: NonNegative = Field(
        default=0, description="of K-means; apart from the run's own, so that seeds share one pool"
    )
    num_init: Positive = Field(
        default=4, description="restarts of k-means++; the lowest inertia is kept"
    )

    @model_validator(mode="after")
    def _enough_rows(self) -> ClusteringConfig:
        if self.max_fit_rows < self.num_clusters:
            raise ValueError(
                f"clustering.max_fit_rows = {self.max_fit_rows} is less than "
                f"clustering.num_clusters = {self.num_clusters}"
            )
        return self
