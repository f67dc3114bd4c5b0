"""Whole images to ask for, chosen over the whole pool."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import pyarrow as pa

from madbal_ray.engine.contract import Computed, TableJob
from madbal_ray.labels.asked_pixels import asked_images
from madbal_ray.selection.image_choice import core_set, top_images
from madbal_ray.selection.query_rows import nothing_left, whole_image_query
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir

ImageRule = Literal["core_set", "top"]


@dataclass(kw_only=True)
class SelectImages(TableJob):
    """Queries of one round, one per chosen image; memory: one distance per image.

    Attributes:
        rule: ``core_set``: greedy k-center on features; ``top``: the highest scores.
    """

    score: StageDir
    labels: tuple[StageDir, ...]
    shard_ids: Sequence[int]
    round_index: int
    rule: ImageRule
    count: int

    def compute(self) -> Computed:
        """Choose images; return every shard's queries.

        Raises:
            PoolError: every image was asked.
        """
        ids: list[str] = []
        shard_of: list[int] = []
        scores: list[np.ndarray] = []
        for shard_id in self.shard_ids:
            table = self.score.read_table("image_scores", [shard_id], columns=["image_id", "score"])
            ids += table["image_id"].to_pylist()
            shard_of += [shard_id] * table.num_rows
            scores.append(table["score"].to_numpy())
        score = np.concatenate(scores)
        _, asked = asked_images(self.labels, self.shard_ids)
        is_asked = np.array([image_id in asked for image_id in ids], bool)
        if is_asked.all():
            raise nothing_left(self.round_index)
        if self.rule == "core_set":
            chosen = core_set(self._features, is_asked, self.count)
        else:
            chosen = top_images(score, is_asked, self.count)
        queries, counts = {}, {}
        for shard_id in self.shard_ids:
            mine = [int(i) for i in chosen if shard_of[i] == shard_id]
            rows = [whole_image_query(self.round_index, ids[i], float(score[i])) for i in mine]
            queries["queries", shard_id] = tables.concat("queries", rows)
            counts[str(shard_id)] = {"images": len(mine), "asked": len(mine)}
        return Computed(queries, {"shards": counts})

    def _features(self) -> Iterator[np.ndarray]:
        for shard_id in self.shard_ids:
            column = self.score.read_table("image_scores", [shard_id], columns=["feature"])[
                "feature"
            ]
            if len(column):
                combined = cast(pa.ListArray, column.combine_chunks())
                yield combined.flatten().to_numpy().reshape(len(combined), -1)
