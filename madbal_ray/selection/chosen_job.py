"""Queries of strategies that choose image by image among the rows that the scorer kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import pyarrow as pa

from madbal_ray import rng
from madbal_ray.errors import LabelError
from madbal_ray.pool.reader import split_by_image
from madbal_ray.selection.query_rows import QueryJob, Unit, query_rows
from madbal_ray.selection.scored_shard import TOP, rectangle
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir

TABLES = {"superpixels": "superpixel_scores", "candidates": "pixel_candidates"}
"""Of the rows that can be chosen from."""


@runtime_checkable
class Choose(Protocol):
    """Chooses rows of one image."""

    def __call__(
        self,
        rows: pa.Table,
        *,
        count: int,
        options: Mapping[str, Any],
        generator: np.random.Generator,
    ) -> Sequence[int]:
        """Return up to `count` different positions in `rows`, in the order of choice."""
        ...


@dataclass(kw_only=True)
class QueryChosen(QueryJob):
    """Queries of one shard: the rows that a strategy chooses in each image.

    Attributes:
        rows: which rows there are; of a superpixel its best unasked pixel is asked, and where
            pixels are asked and every superpixel was chosen, further ones in the same order.
        options: `strategy.options`, handed to `choose`.
        per_image: queries of an image at most.
    """

    score: StageDir
    choose: Choose
    rows: str
    unit: Unit
    options: Mapping[str, Any]
    per_image: int
    round_index: int
    seed: int

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the queries of one shard.

        Raises:
            LabelError: the strategy chose a row twice, or one that there is not.
        """
        table = self.score.read_table(TABLES[self.rows], [shard_id])
        if self.rows == "superpixels":
            table = table.filter(pa.array(table["num_pixels"].to_numpy() > 0))
        parts = []
        for image_id, span in split_by_image(table).items():
            rows = table.slice(span.start, span.stop - span.start)
            generator = rng.stream(self.seed, "choice", self.round_index, image_id)
            positions = self.choose(
                rows, count=self.per_image, options=self.options, generator=generator
            )
            chosen = np.array(positions, np.int64)
            self._check(image_id, chosen, rows.num_rows)
            laps = self.unit == "pixel" and len(chosen) == rows.num_rows
            parts.append(self._queries(image_id, rows.take(chosen), laps=laps))
        return {"queries": tables.concat("queries", parts)}

    def _check(self, image_id: str, chosen: np.ndarray, available: int) -> None:
        is_inside = not len(chosen) or 0 <= chosen.min() <= chosen.max() < available
        if len(chosen) > self.per_image or len(set(chosen.tolist())) < len(chosen) or not is_inside:
            raise LabelError(
                f"round {self.round_index}, {image_id}: the strategy chose rows {chosen.tolist()}; "
                f"expected up to {self.per_image} different ones of 0 to {available - 1}"
            )

    def _queries(self, image_id: str, rows: pa.Table, *, laps: bool) -> pa.Table:
        row = np.arange(rows.num_rows)
        if self.rows == "superpixels":
            every = [
                rectangle(cast(pa.ListArray, rows[name].combine_chunks()), slice(0, len(row)))
                for name in TOP
            ]
            most = every[0].shape[1] if laps else 1
            lap, row = np.nonzero(every[0][:, :most].T >= 0)  # lap by lap, in the order of choice
            lap, row = lap[: self.per_image], row[: self.per_image]
            y, x, score = (values[row, lap] for values in every)
        else:
            y, x, score = (rows[name].to_numpy() for name in ("y", "x", "score"))
        return query_rows(
            self.round_index,
            image_id,
            self.unit,
            y=y,
            x=x,
            score=score,
            superpixel_id=rows["superpixel_id"].to_numpy()[row],
            cluster_id=rows["cluster_id"].to_numpy()[row],
        )
