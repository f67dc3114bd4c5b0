"""Pixels by chance: the initial pool of every run, and the strategy that goes on so."""

from __future__ import annotations

from dataclasses import dataclass

from madbal_ray.selection.asking import Asking, label_digests
from madbal_ray.selection.random_jobs import AskWholeImages, DrawRandomPixels
from madbal_ray.state.stage_dir import StageDir, digests
from madbal_ray.strategies.strategy import Strategy

NEEDS_MASKS = "it looks at the masks (oracle.skip_void)"


@dataclass(frozen=True, kw_only=True)
class RandomPixels(Strategy):
    """Pixels at random, as many in each image; no network is asked."""

    def run(self, asking: Asking) -> StageDir:
        """Return random pixels that no earlier round asked for."""
        return draw_pixels(asking, asking.config.budget.pixels_per_image)

    def replay(self, asking: Asking) -> str | None:
        """Draw again, unless the draw looked at the masks."""
        return NEEDS_MASKS if asking.config.oracle.skip_void else super().replay(asking)


@dataclass(frozen=True, kw_only=True)
class InitialPool(Strategy):
    """Round 0 of every strategy: `budget.initial_pixels_per_image` at random, or all."""

    def run(self, asking: Asking) -> StageDir:
        """Return random pixels, or every image as a whole."""
        count = asking.config.budget.initial_pixels_per_image
        if count != "all":
            return draw_pixels(asking, count)
        output = asking.stages.plan("select", {"all": True}, digests(asking.pool.images))
        asking.stages.map(AskWholeImages(output=output, pool=asking.pool))
        return output

    def replay(self, asking: Asking) -> str | None:
        """Draw again, unless the draw looked at the masks."""
        return NEEDS_MASKS if asking.config.oracle.skip_void else super().replay(asking)


def draw_pixels(asking: Asking, count: int) -> StageDir:
    """Return `count` random pixels of every image, those asked before left out."""
    config, pool = asking.config, asking.pool
    settings = {
        "seed": config.seed,
        "round": asking.round_index,
        "count": count,
        "skip_void": config.oracle.skip_void,
    }
    inputs = digests(pool.images, pool.superpixels, pool.clusters) | label_digests(asking.labels)
    output = asking.stages.plan("select", settings, inputs)
    asking.stages.map(
        DrawRandomPixels(
            output=output,
            pool=pool,
            labels=asking.labels,
            round_index=asking.round_index,
            count_per_image=count,
            skip_void=config.oracle.skip_void,
            seed=config.seed,
        )
    )
    asking.report_missing(output, count, "pixel")
    return output


RANDOM = RandomPixels(name="random", source="baseline")
INITIAL_POOL = InitialPool(name="initial_pool", source="MADBAL, section 4")
