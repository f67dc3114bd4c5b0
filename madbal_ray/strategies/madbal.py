"""MADBAL and its ablations: superpixels, cluster budgets, the best pixels of each cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from madbal_ray.config.asking import BudgetConfig
from madbal_ray.config.schema import Config
from madbal_ray.pool.clusters.assign_job import AssignRandomClusters
from madbal_ray.selection.asking import Asking
from madbal_ray.selection.breakdown_jobs import AllocateBudgets, QueryShard
from madbal_ray.selection.whole_pool.jobs import query_whole_pool
from madbal_ray.state.stage_dir import StageDir, digests
from madbal_ray.strategies.strategy import Strategy

PAPER = "MADBAL (BMVC 2023)"
ABLATION = "MADBAL, Fig. 6"
SCORE_OPTIONS = ("normalize_terms", "uncertainty")
"""Options of u(x), Eq. 4."""


@dataclass(frozen=True, kw_only=True)
class Breakdown(Strategy):
    """Share the budget over clusters, then take each cluster's best superpixels (Eq. 5-8)."""

    rows: ClassVar = "superpixels"
    read_options: ClassVar = (
        *SCORE_OPTIONS,
        "balance_exponent",
        "cluster_size_exponent",
        "pixel_share",
    )
    scopes: ClassVar = ("image", "pool")

    def remarks(self, config: Config) -> Iterator[str]:
        """Yield that Eq. 8 has next to nothing to share out, where B is close to K."""
        budget, clusters = config.budget.pixels_per_image, self.num_clusters(config)
        if config.budget.scope == "image" and clusters > 1 and budget < 2 * clusters:
            yield (
                f"budget.pixels_per_image = {budget} for {clusters} clusters leaves little to "
                "share out by their scores (Eq. 8): whole pixels make it about one each, whatever "
                f"the network says; {2 * clusters} pixels or more, or fewer clusters, let it choose"
            )

    def run(self, asking: Asking) -> StageDir:
        """Return the queries: budgets of clusters, then image by image or over the pool."""
        config, stages = asking.config, asking.stages
        settings = {
            "budget": config.budget.result_settings(),
            "strategy": config.strategy.result_settings(),
        }
        budgets = stages.plan("allocate", settings, digests(asking.scored))
        stages.call(
            AllocateBudgets(
                output=budgets,
                score=asking.scored,
                round_index=asking.round_index,
                num_clusters=self.num_clusters(config),
                num_classes=asking.pool.num_classes,
                total=total_budget(config.budget, asking.pool.num_images),
                config=config.budget,
                options=config.strategy,
            )
        )
        excess = budgets.marker().summary["ceil_excess"]
        if excess:
            stages.say(f"round {asking.round_index}: Eq. 8's ceilings gave {excess} pixels back")
        if config.budget.scope == "pool":
            queries = query_whole_pool(asking, budgets, self.unit)
        else:
            queries = stages.plan("select", {}, digests(asking.scored, budgets))
            stages.map(
                QueryShard(
                    output=queries,
                    score=asking.scored,
                    budgets=budgets,
                    round_index=asking.round_index,
                    unit=self.unit,
                    options=config.strategy,
                )
            )
        asking.report_missing(queries, config.budget.total(asking.pool.num_images), self.unit)
        return queries


def total_budget(config: BudgetConfig, num_images: int) -> int:
    """Return the pixels that clusters share: B in each image, or the round's over the pool."""
    return config.total(num_images) if config.scope == "pool" else config.pixels_per_image


class EntropyBreakdown(Breakdown):
    """By entropy alone: options of Eq. 4 have nothing to act on."""

    read_options: ClassVar = tuple(
        name for name in Breakdown.read_options if name not in SCORE_OPTIONS
    )


class RandomBreakdown(Breakdown):
    """Random clusters, as many as K-means has."""

    def group(self, asking: Asking) -> StageDir:
        """Draw a cluster for every superpixel."""
        count, seed = asking.config.clustering.num_clusters, asking.config.seed
        output = asking.stages.plan(
            "random_clusters",
            {"seed": seed, "num_clusters": count},
            digests(asking.pool.clusters),
        )
        asking.stages.map(
            AssignRandomClusters(
                output=output, clusters=asking.pool.clusters, num_clusters=count, seed=seed
            )
        )
        return output


class SuperpixelBreakdown(Breakdown):
    """Whole superpixels are asked, all in one cluster."""

    unit: ClassVar = "superpixel"
    read_options: ClassVar = ()

    def num_clusters(self, config: Config) -> int:
        """Return 1: the classes alone balance the queries."""
        return 1


MADBAL = Breakdown(name="madbal", source=PAPER, supports="full", pixel_score="madbal")
AVERAGING = Breakdown(name="averaging", source=ABLATION, supports="averaging", pixel_score="madbal")
NO_MATURITY = Breakdown(
    name="no_maturity", source=ABLATION, supports="no_maturity", pixel_score="madbal"
)
VANILLA = EntropyBreakdown(name="vanilla", source=ABLATION, pixel_score="entropy")
RANDOM_CLUSTERS = RandomBreakdown(
    name="random_clusters", source=ABLATION, supports="full", pixel_score="madbal"
)
CLASS_BALANCED_SUPERPIXEL = SuperpixelBreakdown(
    name="class_balanced_superpixel",
    source="Cai et al. 2021",
    pixel_score="best_versus_second_best",
)
