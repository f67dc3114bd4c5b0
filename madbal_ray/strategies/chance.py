"""Pixels by chance: the initial pool of every run, and the strategy that goes on so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from madbal_ray.config.asking import StrategyConfig
from madbal_ray.errors import PoolError
from madbal_ray.selection.asking import Asking, label_digests
from madbal_ray.selection.chance_jobs import DrawImageChances, DrawPixelChances, ShareEqually
from madbal_ray.selection.random_jobs import AskWholeImages, DrawRandomPixels
from madbal_ray.selection.whole_pool.jobs import take_offers
from madbal_ray.selection.whole_pool.offers import OfferPixels
from madbal_ray.state.stage_dir import StageDir, digests
from madbal_ray.strategies.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class RandomPixels(Strategy):
    """Pixels at random, as many in each image, or over the pool; no network is asked."""

    scopes: ClassVar = ("image", "pool")

    def run(self, asking: Asking) -> StageDir:
        """Return random pixels that no earlier round asked for."""
        budget = asking.config.budget
        if budget.scope == "image":
            return draw_pixels(asking, budget.pixels_per_image)
        total = budget.total(asking.pool.num_images)
        return draw_from_pool(asking, budget.most_per_image, total, by_cluster=False)


@dataclass(frozen=True, kw_only=True)
class InitialPool(Strategy):
    """Round 0 of every strategy: `budget.initial_pixels_per_image` of all or some images."""

    def run(self, asking: Asking) -> StageDir:
        """Return random pixels, pixels spread over clusters, or whole images."""
        budget = asking.config.budget
        only = None if budget.initial_images is None else choose_images(asking)
        count = budget.initial_pixels_per_image
        if count == "all":
            return ask_whole(asking, only)
        if budget.initial == "random":
            return draw_pixels(asking, count, only)
        total = count * (budget.initial_images or asking.pool.num_images)
        return draw_from_pool(asking, count, total, by_cluster=True, only=only)


def choose_images(asking: Asking) -> StageDir:
    """Return stage `first_images`: exactly `budget.initial_images`, a query each.

    Spread: every image stands under the cluster of one of its superpixels, drawn at random, and
    all clusters give equally many.

    Raises:
        PoolError: the pool has fewer.
    """
    config, pool, stages = asking.config, asking.pool, asking.stages
    count = config.budget.initial_images
    assert count is not None
    if count > pool.num_images:
        raise PoolError(
            f"budget.initial_images = {count}, and the pool has {pool.num_images} images: lower "
            "it, or leave it out to ask all of them"
        )
    by_cluster = config.budget.initial == "spread"
    settings = {"seed": config.seed, "by_cluster": by_cluster}
    inputs = digests(pool.images) | (digests(pool.clusters) if by_cluster else {})
    chances = stages.plan("image_chances", settings, inputs)
    stages.map(DrawImageChances(output=chances, pool=pool, by_cluster=by_cluster, seed=config.seed))
    offers = _offers(asking, "image_shares", chances, count, by_cluster=by_cluster)
    return take_offers(
        asking, offers, "image", output="first_images", prefix="image_", is_scored=False
    )


def ask_whole(asking: Asking, only: StageDir | None) -> StageDir:
    """Return every image as a whole, or those of stage `first_images`."""
    inputs = digests(asking.pool.images) | _chosen(only)
    output = asking.stages.plan("select", {"all": True}, inputs)
    job = AskWholeImages(output=output, pool=asking.pool, only=only)
    asking.stages.map(job, _shards(only))
    return output


def draw_pixels(asking: Asking, count: int, only: StageDir | None = None) -> StageDir:
    """Return `count` random pixels of every image, those asked before left out.

    Args:
        only: stage `first_images`; None: every image.
    """
    config, pool = asking.config, asking.pool
    settings = {
        "seed": config.seed,
        "round": asking.round_index,
        "count": count,
        "skip_void": config.oracle.skip_void,
    }
    inputs = digests(pool.images, pool.superpixels, pool.clusters) | label_digests(asking.labels)
    output = asking.stages.plan("select", settings, inputs | _chosen(only))
    asking.stages.map(
        DrawRandomPixels(
            output=output,
            pool=pool,
            labels=asking.labels,
            only=only,
            round_index=asking.round_index,
            count_per_image=count,
            skip_void=config.oracle.skip_void,
            seed=config.seed,
        ),
        _shards(only),
    )
    num_images = pool.num_images if only is None else config.budget.initial_images
    assert num_images is not None
    asking.report_missing(output, count * num_images, "pixel")
    return output


def draw_from_pool(
    asking: Asking, count: int, total: int, *, by_cluster: bool, only: StageDir | None = None
) -> StageDir:
    """Return exactly `total` random pixels of the pool, or all that it offers.

    Args:
        count: pixels that an image must be able to offer.
        by_cluster: equally many superpixels of every cluster; False: all pixels alike.
        only: stage `first_images`; None: every image.
    """
    config, pool, stages = asking.config, asking.pool, asking.stages
    settings = {
        "seed": config.seed,
        "round": asking.round_index,
        "count": count,
        "by_cluster": by_cluster,
        "skip_void": config.oracle.skip_void,
    }
    inputs = digests(pool.images, pool.superpixels) | label_digests(asking.labels) | _chosen(only)
    inputs |= digests(pool.clusters) if by_cluster else {}
    chances = stages.plan("chances", settings, inputs)
    stages.map(
        DrawPixelChances(
            output=chances,
            pool=pool,
            labels=asking.labels,
            only=only,
            round_index=asking.round_index,
            per_image=count,
            by_cluster=by_cluster,
            skip_void=config.oracle.skip_void,
            seed=config.seed,
        ),
        _shards(only),
    )
    offers = _offers(asking, "shares", chances, total, by_cluster=by_cluster)
    output = take_offers(asking, offers, "pixel", shard_ids=_shards(only), is_scored=False)
    asking.report_missing(output, total, "pixel")
    return output


def _offers(
    asking: Asking, name: str, chances: StageDir, total: int, *, by_cluster: bool
) -> OfferPixels:
    """Share `total` equally over the clusters, and return what is offered for it."""
    budget = asking.config.budget
    num_clusters = asking.config.clustering.num_clusters if by_cluster else 1
    shares = asking.stages.plan(
        name, {"total": total, "num_clusters": num_clusters}, digests(chances)
    )
    asking.stages.call(
        ShareEqually(
            output=shares,
            round_index=asking.round_index,
            num_clusters=num_clusters,
            total=total,
        )
    )
    if not asking.round_index:  # the limit is one of later rounds
        budget = budget.model_copy(update={"max_per_image": None})
    return OfferPixels(chances, shares, budget, StrategyConfig())


def _chosen(only: StageDir | None) -> dict[str, str]:
    return {} if only is None else digests(only)


def _shards(only: StageDir | None) -> list[int] | None:
    return None if only is None else only.shards_with("queries")


RANDOM = RandomPixels(name="random", source="baseline")
INITIAL_POOL = InitialPool(name="initial_pool", source="MADBAL, section 4")
