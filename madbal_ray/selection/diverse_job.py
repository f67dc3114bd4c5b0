"""Queries in two stages: superpixels that stand for an image's looks, then the most doubtful."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from madbal_ray.labels.asked_pixels import AskedPixels
from madbal_ray.pool.clusters.feature_rows import feature_matrix
from madbal_ray.pool.reader import split_by_image
from madbal_ray.selection.query_rows import QueryJob, query_rows
from madbal_ray.selection.scored_shard import TOP, rectangle
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir


def herd(
    features: Float64[np.ndarray, "S D"], count: int, taken: Sequence[int] | np.ndarray = ()
) -> Int64[np.ndarray, "Q"]:
    """Return `count` different rows whose mean stays close to the mean of all, in order of choice.

    Kernel herding with a linear kernel on standardised features: each time the row with the
    highest <w, row>, then w += mean - row. Ties go to the lower row: products are summed row by
    row, since a BLAS gives rows that are alike different last bits, and other ones elsewhere.

    Args:
        taken: rows that were chosen before, each as often as it was: they go into the mean, and
            are not chosen again.

    Source: Welling 2009 (herding); Chen, Welling and Smola 2010.
    """
    if not len(features):
        return np.zeros(0, np.int64)
    deviation = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    weight = np.zeros(scaled.shape[1])  # the mean, which is 0 now
    is_left = np.ones(len(scaled), bool)
    for row in taken:
        is_left[row] = False
        weight -= scaled[row]
    chosen = np.zeros(min(count, int(is_left.sum())), np.int64)
    for turn in range(len(chosen)):
        fit = (scaled * weight).sum(axis=1)
        chosen[turn] = np.argmax(np.where(is_left, fit, -np.inf))
        is_left[chosen[turn]] = False
        weight -= scaled[chosen[turn]]
    return chosen


@dataclass(kw_only=True)
class QueryDiverse(QueryJob):
    """Queries of one shard: of `candidates` superpixels the best pixels of the most doubtful.

    Where an image's budget is larger than that, the other superpixels follow, and second pixels.

    Attributes:
        features: stage `superpixel_features`.
        labels: answers that the herding goes on from; empty: it begins anew every round.
        per_image: queries of an image at most.
    """

    score: StageDir
    features: StageDir
    labels: tuple[StageDir, ...] = ()
    candidates: int
    per_image: int
    round_index: int

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the queries of one shard."""
        scores = self.score.read_table("superpixel_scores", [shard_id])
        looks = self.features.read_table("superpixel_features", [shard_id])
        looks_of, vectors = split_by_image(looks), feature_matrix(looks)
        asked = AskedPixels(self.labels, shard_id, {})
        parts = []
        for image_id, span in split_by_image(scores).items():
            rows = scores.slice(span.start, span.stop - span.start)
            of_image = vectors[looks_of[image_id]].astype(np.float64)
            before = asked.superpixels_of(image_id)
            parts.append(
                self._queries(image_id, rows, of_image[rows["superpixel_id"].to_numpy()], before)
            )
        return {"queries": tables.concat("queries", parts)}

    def _queries(
        self, image_id: str, rows: pa.Table, vectors: np.ndarray, before: np.ndarray
    ) -> pa.Table:
        whole = slice(0, rows.num_rows)
        top_y, top_x, top_score = (
            rectangle(cast(pa.ListArray, rows[name].combine_chunks()), whole) for name in TOP
        )
        offers = np.flatnonzero(rows["num_pixels"].to_numpy() > 0)
        row_of = np.searchsorted(rows["superpixel_id"].to_numpy()[offers], before)
        is_offered = np.isin(before, rows["superpixel_id"].to_numpy()[offers])
        herded = offers[herd(vectors[offers], self.candidates, row_of[is_offered])]
        is_herded = np.isin(np.arange(rows.num_rows), herded)
        superpixel, lap = np.nonzero(top_y >= 0)
        keys = (superpixel, -top_score[superpixel, lap], ~is_herded[superpixel], lap)
        order = np.lexsort(keys)[: self.per_image]
        row, lap = superpixel[order], lap[order]
        return query_rows(
            self.round_index,
            image_id,
            "pixel",
            y=top_y[row, lap],
            x=top_x[row, lap],
            score=top_score[row, lap],
            superpixel_id=rows["superpixel_id"].to_numpy()[row],
            cluster_id=rows["cluster_id"].to_numpy()[row],
        )
