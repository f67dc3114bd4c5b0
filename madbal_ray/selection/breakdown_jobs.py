"""From scores to queries: allocation, and the one pass over rows. No torch, no Ray."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, cast

import numpy as np
import pyarrow as pa

from madbal_ray.config.asking import BudgetConfig, StrategyConfig
from madbal_ray.engine.contract import Computed, TableJob
from madbal_ray.selection.cluster_budget import allocate_cluster_budget, ceil_excess
from madbal_ray.selection.cluster_statistics import ClusterStatistics, score_clusters
from madbal_ray.selection.query_rows import QueryJob, Unit, check_exact, nothing_left, query_rows
from madbal_ray.selection.scored_shard import ClusterBudgets, ScoredShard, cluster_weights
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir


def merge_statistics(score: StageDir, num_clusters: int, num_classes: int) -> ClusterStatistics:
    """Add the cluster statistics of all shards; a few kilobytes a shard."""
    shape = (num_clusters, num_classes)
    shard_ids = score.shards_with("cluster_statistics")
    parts = (
        ClusterStatistics(*(_lists(table[name], shape) for name in ("count", "score_sum")))
        for table in score.each_table("cluster_statistics", shard_ids)
    )
    return reduce(add, parts, ClusterStatistics.zeros(*shape))


def _lists(column: pa.ChunkedArray, shape: tuple[int, int]) -> np.ndarray:
    """Return the list of a table's only row as an array."""
    values = cast(pa.ListArray, column.combine_chunks()).flatten()
    return values.to_numpy().reshape(shape)


@dataclass(kw_only=True)
class AllocateBudgets(TableJob):
    """Cluster shares, scores and budgets of one round (Eq. 5, 7, 8).

    Attributes:
        total: pixels to share out: B in each image, or the round's over the whole pool.
    """

    score: StageDir
    round_index: int
    num_clusters: int
    num_classes: int
    total: int
    config: BudgetConfig
    options: StrategyConfig

    def compute(self) -> Computed:
        """Return table `cluster_budgets`, and by how much Eq. 8's ceilings exceed the budget."""
        table = self.allocate(merge_statistics(self.score, self.num_clusters, self.num_classes))
        excess = 0
        if self.config.rounding == "ceil":
            excess = ceil_excess(
                cluster_score=cluster_weights(table, self.options), budget=self.total
            )
        return Computed({("cluster_budgets", 0): table}, {"ceil_excess": excess})

    def allocate(self, statistics: ClusterStatistics) -> pa.Table:
        """Return table `cluster_budgets`.

        Raises:
            PoolError: no superpixel has an unasked pixel left.
        """
        size = statistics.count.sum(axis=1)
        if not size.any():
            raise nothing_left(self.round_index)
        class_share, score = score_clusters(
            statistics, balance_exponent=self.options.balance_exponent
        )
        columns: dict[str, Any] = {
            "round": np.full(self.num_clusters, self.round_index),
            "cluster_id": np.arange(self.num_clusters),
            "num_superpixels": size,
            "score": score,
            "class_share": class_share,
        }
        weights = cluster_weights(columns, self.options)
        columns["budget"] = allocate_cluster_budget(
            cluster_score=weights,
            budget=self.total,
            rounding=self.config.rounding,
            has_superpixels=size > 0,
        )
        total = weights.sum()
        columns["share"] = weights / total if total > 0 else np.zeros_like(weights)
        return tables.from_columns("cluster_budgets", columns)


@dataclass(kw_only=True)
class QueryShard(QueryJob):
    """Queries of one shard from its superpixel scores (the one pass over rows)."""

    score: StageDir
    budgets: StageDir
    round_index: int
    unit: Unit
    options: StrategyConfig

    def setup(self) -> None:
        """Load the cluster budgets."""
        self._budgets = ClusterBudgets.read(self.budgets, self.options)

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the queries of one shard.

        Raises:
            LabelError: an image did not get exactly its budget, or all it has.
        """
        budgets = self._budgets
        shard = ScoredShard.read(self.score, shard_id, budgets, self.options)
        unasked = shard.num_pixels
        if self.unit == "superpixel":
            unasked = (unasked > 0).astype(np.int64)
        budget = int(budgets.budget.sum())
        parts = []
        for image_id, rows in shard.rows_of.items():
            chosen = shard.query(rows, budgets.budget, budgets.weights)
            check_exact(image_id, len(chosen), budget, int(unasked[rows].sum()))
            parts.append(
                query_rows(
                    self.round_index,
                    image_id,
                    self.unit,
                    y=chosen.y,
                    x=chosen.x,
                    superpixel_id=chosen.superpixel_id,
                    cluster_id=chosen.cluster_id,
                    score=pa.array(chosen.score),
                )
            )
        return {"queries": tables.concat("queries", parts)}
