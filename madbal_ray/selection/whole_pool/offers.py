"""What images offer under `budget.scope: pool`: pixels of superpixels, with u(s)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from madbal_ray.config.asking import BudgetConfig, StrategyConfig
from madbal_ray.selection.cluster_budget import allocate_cluster_budget
from madbal_ray.selection.scored_shard import TOP, ClusterBudgets, ScoredShard
from madbal_ray.selection.whole_pool.cut import score_bits
from madbal_ray.state.stage_dir import StageDir


@dataclass(frozen=True)
class Offered:
    """Pixels that the images of a shard offer, by image_id, superpixel_id and lap.

    Attributes:
        row: of the superpixel in the shard.
        lap: which pixel of its superpixel, from 0.
        bits: of u(s), ordered as u(s) is.
    """

    shard: ScoredShard
    row: np.ndarray
    lap: np.ndarray
    bits: np.ndarray

    def group(self, num_clusters: int) -> np.ndarray:
        """Return lap * K + cluster, what is cut apart."""
        return self.lap * num_clusters + self.shard.cluster[self.row].astype(np.int64)

    def pixel(self) -> dict[str, np.ndarray]:
        """Return where the pixels lie, and their u(x)."""
        pixels = {}
        for name in TOP:
            column = self.shard.top[name]
            offset = column.offsets.to_numpy().astype(np.int64)
            values = column.values.to_numpy(zero_copy_only=False)
            pixels[name] = values[offset[self.row] + self.lap]
        return pixels


@dataclass
class OfferPixels:
    """Reads what a shard offers the pool.

    Without `max_per_image` an image offers every superpixel. With it, an image offers what
    it would be asked for under scope `image` with that budget, so that the cap keeps the
    breakdown by clusters; `max_per_image` = `pixels_per_image` is scope `image` itself.
    """

    score: StageDir
    budgets: StageDir
    config: BudgetConfig
    options: StrategyConfig

    def setup(self) -> None:
        """Load the cluster budgets."""
        self.clusters = ClusterBudgets.read(self.budgets, self.options)
        self._cap = None
        if self.config.max_per_image is not None:
            self._cap = allocate_cluster_budget(
                cluster_score=self.clusters.weights,
                budget=self.config.max_per_image,
                rounding=self.config.rounding,
                has_superpixels=self.clusters.has_superpixels,
            )

    def of_shard(self, shard_id: int) -> Offered:
        """Return the offers of one shard."""
        shard = ScoredShard.read(self.score, shard_id, self.clusters, self.options)
        row, lap = self._everything(shard) if self._cap is None else self._capped(shard, self._cap)
        return Offered(shard, row, lap, score_bits(shard.score[row]))

    def _everything(self, shard: ScoredShard) -> tuple[np.ndarray, np.ndarray]:
        column = shard.top["top_y"]
        length = np.diff(column.offsets.to_numpy()).astype(np.int64)
        row = np.repeat(np.arange(len(length)), length)
        lap = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
        is_there = column.flatten().to_numpy(zero_copy_only=False) >= 0
        return row[is_there], lap[is_there]

    def _capped(self, shard: ScoredShard, cap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, laps = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for where in shard.rows_of.values():
            chosen = shard.query(where, cap, self.clusters.weights)
            rows.append(chosen.row + where.start)
            laps.append(chosen.lap)
        row, lap = np.concatenate(rows), np.concatenate(laps)
        order = np.lexsort((lap, row))
        return row[order], lap[order]
