"""Pixels of one image from cluster budgets, superpixel scores and best pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import ArrayLike

from madbal_ray.errors import NumericalError, ShapeError
from madbal_ray.selection.apportionment import exact_weights
from madbal_ray.selection.laps import share_lap


@dataclass(frozen=True)
class Queries:
    """Pixels to ask for, in the order they were chosen: by lap, then by falling u(s).

    Attributes:
        y, x: working grid.
        superpixel_id, cluster_id: where the pixel lies.
        score: u(x) of the pixel.
        row: place of the superpixel in the arguments.
        lap: which pixel of its superpixel this is, from 0.
    """

    y: Int64[np.ndarray, "Q"]
    x: Int64[np.ndarray, "Q"]
    superpixel_id: Int64[np.ndarray, "Q"]
    cluster_id: Int64[np.ndarray, "Q"]
    score: Float32[np.ndarray, "Q"]
    row: Int64[np.ndarray, "Q"]
    lap: Int64[np.ndarray, "Q"]

    def __len__(self) -> int:
        return len(self.y)


def query_image(
    *,
    superpixel_id: ArrayLike,
    cluster_id: ArrayLike,
    score: ArrayLike,
    top_y: ArrayLike,
    top_x: ArrayLike,
    top_score: ArrayLike,
    cluster_budget: ArrayLike,
    cluster_score: ArrayLike,
) -> Queries:
    """Choose sum(cluster_budget) pixels of one image, or all it has if those are fewer.

    Lap 1: cluster k takes min(B_k, its superpixels here) superpixels by falling u(s), and
    from each its best pixel. What is left goes, by largest remainder with weights u(cl)
    (all zero: equal), to clusters that still have superpixels, until it is spent or every
    superpixel gave one. Lap n does the same with n-th pixels.

    Ties: higher u(s), then lower superpixel id; the order of rows does not matter.

    Args:
        superpixel_id: [S] distinct ids, numpy.
        cluster_id: [S] 0..K-1.
        score: [S] u(s), Eq. 6.
        top_y, top_x: [S, top] best unasked pixels, best first; negative where missing.
        top_score: [S, top] their u(x).
        cluster_budget: [K] B_k in this image.
        cluster_score: [K] u(cl_k).

    Raises:
        ShapeError: lengths differ, or a budget is negative or no whole number.
        NumericalError: a score is NaN.

    Source: MADBAL section 3.2, image level; laps: docs/fidelity.md.
    """
    ids = np.asarray(superpixel_id, np.int64)
    cluster = np.asarray(cluster_id, np.int64)
    value = np.asarray(score, np.float64)
    rows, columns = np.asarray(top_y, np.int64), np.asarray(top_x, np.int64)
    pixel_score = np.asarray(top_score, np.float32)
    budget = np.asarray(cluster_budget)
    if (budget != budget.astype(np.int64)).any() or (budget < 0).any():
        raise ShapeError(f"cluster_budget = {budget.tolist()}; expected whole numbers, 0 or more")
    budget = budget.astype(np.int64)
    _check(ids, cluster, value, rows, columns, pixel_score, budget)
    if len(ids) and (np.isnan(value).any() or np.isnan(pixel_score[rows >= 0]).any()):
        raise NumericalError("a superpixel or pixel score is NaN")

    by_score = np.lexsort((ids, -value))
    by_cluster = by_score[np.argsort(cluster[by_score], kind="stable")]
    weights = exact_weights(np.asarray(cluster_score, np.float64).tolist())
    left = int(budget.sum())
    planned = budget
    chosen: list[np.ndarray] = []
    laps: list[int] = []
    for lap in range(rows.shape[1] if rows.ndim == 2 else 0):
        if left <= 0:
            break
        candidates = by_cluster[rows[by_cluster, lap] >= 0]
        available = np.bincount(cluster[candidates], minlength=len(budget))
        take = share_lap(available, planned, left, weights)
        place = np.arange(len(candidates)) - np.repeat(np.cumsum(available) - available, available)
        taken = candidates[place < take[cluster[candidates]]]
        chosen.append(taken[np.lexsort((ids[taken], -value[taken]))])
        laps += [lap] * len(taken)
        left -= len(taken)
        planned = np.zeros_like(budget)
    picked = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    lap_of = np.array(laps, np.int64)
    return Queries(
        y=rows[picked, lap_of],
        x=columns[picked, lap_of],
        superpixel_id=ids[picked],
        cluster_id=cluster[picked],
        score=pixel_score[picked, lap_of],
        row=picked,
        lap=lap_of,
    )


def _check(
    ids: np.ndarray,
    cluster: np.ndarray,
    value: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    pixel_score: np.ndarray,
    budget: np.ndarray,
) -> None:
    if not len(ids) == len(cluster) == len(value) == len(rows):
        raise ShapeError(
            f"superpixel_id, cluster_id, score, top_y have lengths {len(ids)}, {len(cluster)}, "
            f"{len(value)}, {len(rows)}; expected one entry per superpixel in each"
        )
    if not rows.shape == columns.shape == pixel_score.shape:
        raise ShapeError(
            f"top_y {rows.shape}, top_x {columns.shape}, top_score {pixel_score.shape} differ"
        )
    if len(cluster) and not 0 <= cluster.min() <= cluster.max() < len(budget):
        raise ShapeError(
            f"cluster_id from {cluster.min()} to {cluster.max()}, but cluster_budget has "
            f"{len(budget)} entries"
        )
