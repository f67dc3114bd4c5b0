"""Superpixel scores of one shard as the selection reads them: u(s) (Eq. 6), best pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa

from madbal_ray.config.asking import StrategyConfig
from madbal_ray.pool.reader import split_by_image
from madbal_ray.selection.cluster_statistics import score_superpixels
from madbal_ray.selection.query import Queries, query_image
from madbal_ray.state.stage_dir import StageDir

TOP = ("top_y", "top_x", "top_score")


@dataclass(frozen=True)
class ClusterBudgets:
    """Table `cluster_budgets` of one round.

    Attributes:
        budget: int64 [K], pixels of each cluster, in each image or in the pool.
        weights: float64 [K], what budgets are proportional to.
        class_share: float64 [K, C], P_k(c).
        has_superpixels: bool [K].
    """

    budget: np.ndarray
    weights: np.ndarray
    class_share: np.ndarray
    has_superpixels: np.ndarray

    @staticmethod
    def read(stage: StageDir, options: StrategyConfig) -> ClusterBudgets:
        """Load the table that `AllocateBudgets` wrote."""
        table = stage.read_table("cluster_budgets")
        return ClusterBudgets(
            table["budget"].to_numpy(),
            cluster_weights(table, options),
            np.array(table["class_share"].to_pylist(), np.float64),
            table["num_superpixels"].to_numpy() > 0,
        )


def cluster_weights(columns: Any, options: StrategyConfig) -> np.ndarray:
    """Return what budgets are proportional to: u(cl_k), times n_k^alpha as an option."""
    score, size = np.asarray(columns["score"]), np.asarray(columns["num_superpixels"])
    if not options.cluster_size_exponent:
        return score
    return score * size.astype(np.float64) ** options.cluster_size_exponent


@dataclass(frozen=True)
class ScoredShard:
    """Rows of table `superpixel_scores`, in order of image_id and superpixel_id.

    Attributes:
        rows_of: rows of each image.
        superpixel, cluster: int32 [S], ids.
        num_pixels: int32 [S], unasked.
        score: float64 [S], u(s).
        top: lists of the best unasked pixels, equally long within an image.
    """

    rows_of: dict[str, slice]
    superpixel: np.ndarray
    cluster: np.ndarray
    num_pixels: np.ndarray
    score: np.ndarray
    top: dict[str, pa.ListArray]

    @staticmethod
    def read(
        score: StageDir, shard_id: int, budgets: ClusterBudgets, options: StrategyConfig
    ) -> ScoredShard:
        """Load one shard."""
        table = score.read_table("superpixel_scores", [shard_id])
        cluster = table["cluster_id"].to_numpy()
        return ScoredShard(
            split_by_image(table),
            table["superpixel_id"].to_numpy(),
            cluster,
            table["num_pixels"].to_numpy(),
            score_superpixels(
                mean_score=table["mean_score"].to_numpy(),
                dominant_class=table["dominant_class"].to_numpy(),
                cluster_id=cluster,
                cluster_class_share=budgets.class_share,
                balance_exponent=options.balance_exponent,
            ),
            {name: cast(pa.ListArray, table[name].combine_chunks()) for name in TOP},
        )

    def query(self, rows: slice, cluster_budget: np.ndarray, weights: np.ndarray) -> Queries:
        """Choose pixels of one image; see `madbal_ray.query.query_image`."""
        return query_image(
            superpixel_id=self.superpixel[rows],
            cluster_id=self.cluster[rows],
            score=self.score[rows],
            **{name: rectangle(column, rows) for name, column in self.top.items()},
            cluster_budget=cluster_budget,
            cluster_score=weights,
        )


def rectangle(column: pa.ListArray, rows: slice) -> np.ndarray:
    """Return the lists of one image's rows as an array; they are equally long."""
    part = column.slice(rows.start, rows.stop - rows.start)
    return part.flatten().to_numpy(zero_copy_only=False).reshape(len(part), -1)
