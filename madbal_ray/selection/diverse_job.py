"""Queries in two stages: superpixels that stand for an image's looks, then the most doubtful."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from madbal_ray.pool.reader import split_by_image
from madbal_ray.selection.query_rows import QueryJob, query_rows
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir


def herd(features: Float64[np.ndarray, "S D"], count: int) -> Int64[np.ndarray, "Q"]:
    """Return `count` different rows whose mean stays close to the mean of all, in order of choice.

    Kernel herding with a linear kernel on standardised features: each time the row with the
    highest <w, row>, then w += mean - row. Ties go to the lower row.

    Source: Welling 2009 (herding); Chen, Welling and Smola 2010.
    """
    if not len(features):
        return np.zeros(0, np.int64)
    deviation = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    weight = np.zeros(scaled.shape[1])  # the mean, which is 0 now
    is_left = np.ones(len(scaled), bool)
    chosen = np.zeros(min(count, len(scaled)), np.int64)
    for turn in range(len(chosen)):
        chosen[turn] = np.argmax(np.where(is_left, scaled @ weight, -np.inf))
        is_left[chosen[turn]] = False
        weight -= scaled[chosen[turn]]
    return chosen


@dataclass(kw_only=True)
class QueryDiverse(QueryJob):
    """Queries of one shard: of `candidates` superpixels the best pixels of the most doubtful.

    Where an image's budget is larger than that, the other superpixels follow, and second pixels.

    Attributes:
        features: stage `superpixel_features`.
        per_image: queries of an image at most.
    """

    score: StageDir
    features: StageDir
    candidates: int
    per_image: int
    round_index: int

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the queries of one shard."""
        scores = self.score.read_table("superpixel_scores", [shard_id])
        looks = self.features.read_table("superpixel_features", [shard_id])
        looks_of = split_by_image(looks)
        parts = []
        for image_id, span in split_by_image(scores).items():
            rows = scores.slice(span.start, span.stop - span.start)
            place = looks_of[image_id]
            column = looks["feature"].slice(place.start, place.stop - place.start)
            vectors = np.array(column.to_pylist(), np.float64)
            parts.append(self._queries(image_id, rows, vectors[rows["superpixel_id"].to_numpy()]))
        return {"queries": tables.concat("queries", parts)}

    def _queries(self, image_id: str, rows: pa.Table, vectors: np.ndarray) -> pa.Table:
        top = {name: np.array(rows[f"top_{name}"].to_pylist()) for name in ("y", "x", "score")}
        offers = np.flatnonzero(rows["num_pixels"].to_numpy() > 0)
        herded = offers[herd(vectors[offers], self.candidates)]
        is_herded = np.isin(np.arange(rows.num_rows), herded)
        superpixel, lap = np.nonzero(top["y"] >= 0)
        keys = (superpixel, -top["score"][superpixel, lap], ~is_herded[superpixel], lap)
        order = np.lexsort(keys)[: self.per_image]
        row, lap = superpixel[order], lap[order]
        return query_rows(
            self.round_index,
            image_id,
            "pixel",
            y=top["y"][row, lap],
            x=top["x"][row, lap],
            score=top["score"][row, lap].astype(np.float32),
            superpixel_id=rows["superpixel_id"].to_numpy()[row],
            cluster_id=rows["cluster_id"].to_numpy()[row],
        )
