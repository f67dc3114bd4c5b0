"""From cluster scores to whole numbers of pixels (paper Eq. 8)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Int64
from numpy.typing import ArrayLike

from madbal_ray.errors import NumericalError, ShapeError
from madbal_ray.selection.apportionment import (
    ceilings,
    exact_weights,
    give_back,
    largest_remainder,
)

Rounding = Literal["largest_remainder", "ceil"]


def allocate_cluster_budget(
    *,
    cluster_score: ArrayLike,
    budget: int,
    rounding: Rounding = "largest_remainder",
    has_superpixels: ArrayLike | None = None,
) -> Int64[np.ndarray, "K"]:
    """Share `budget` pixels over clusters in proportion to their scores.

    Quotas are exact fractions, so equal scores get equal quotas whatever their size.

    Args:
        cluster_score: [K] u(cl_k) >= 0, numpy.
        budget: B >= 0 pixels; the result sums to exactly B.
        rounding: "largest_remainder": quotas rounded down, the rest by largest remainder,
            ties to the lower cluster id. "ceil": the paper's; while the sum exceeds B, the
            cluster with the lowest positive score (ties: higher id) gives back one unit,
            then the next lowest, round-robin, never below 0.
        has_superpixels: [K] bool; which clusters may share when all scores are zero
            (None: all of them). Then B is split equally, ties to the lower id.

    Returns:
        int64 [K].

    Raises:
        NumericalError: a score is NaN, infinite or negative.
        ShapeError: `budget` is negative or no whole number, or no cluster may receive it.

    Source: MADBAL Eq. 8; rounding: docs/fidelity.md.
    """
    score = np.asarray(cluster_score, np.float64)
    if score.ndim != 1 or not len(score):
        raise ShapeError(f"cluster_score has shape {score.shape}; expected one score per cluster")
    if budget < 0 or budget != int(budget):
        raise ShapeError(f"budget = {budget}; expected a whole number of pixels, 0 or more")
    budget = int(budget)
    if not np.isfinite(score).all() or (score < 0).any():
        bad = np.flatnonzero(~np.isfinite(score) | (score < 0))
        raise NumericalError(
            f"cluster {bad[0]} has score {score[bad[0]]}; expected finite and >= 0"
        )
    if rounding not in ("largest_remainder", "ceil"):
        raise ShapeError(f"rounding = {rounding!r}; expected largest_remainder or ceil")
    weights = exact_weights(score.tolist())
    if not any(weights):
        allowed = np.ones(len(score), bool) if has_superpixels is None else has_superpixels
        weights = [int(bool(flag)) for flag in np.asarray(allowed)]
        if not any(weights):
            raise ShapeError("no cluster has superpixels left, so the budget has nowhere to go")
    if rounding == "largest_remainder":
        return np.array(largest_remainder(weights, budget), np.int64)
    units = ceilings(weights, budget)
    return np.array(give_back(units, weights, sum(units) - budget), np.int64)


def ceil_excess(*, cluster_score: ArrayLike, budget: int) -> int:
    """Return by how many pixels Eq. 8's bare ceilings exceed the budget."""
    weights = exact_weights(np.asarray(cluster_score, np.float64).tolist())
    return sum(ceilings(weights, budget)) - budget if any(weights) else 0
