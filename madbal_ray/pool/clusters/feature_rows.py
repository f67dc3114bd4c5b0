"""The features of a pool's superpixels as rows: all, some, or a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import pyarrow as pa

from madbal_ray import rng
from madbal_ray.state.stage_dir import StageDir, table_path

TABLE = "superpixel_features"


def read_features(features: StageDir, shard_id: int) -> np.ndarray:
    """Return the features of one shard, float16 [rows, D]."""
    return feature_matrix(features.read_table(TABLE, [shard_id], columns=["feature"]))


def feature_matrix(table: pa.Table) -> np.ndarray:
    """Return column `feature` of a table, float16 [rows, D]."""
    combined = cast(pa.ListArray, table["feature"].combine_chunks())
    if not len(combined):
        return np.zeros((0, 1), np.float16)
    return combined.flatten().to_numpy(zero_copy_only=False).reshape(len(combined), -1)


class FeatureRows:
    """Rows of table ``superpixel_features`` of a stage, numbered from 0 through its shards.

    Attributes:
        counts: rows by shard, in shard order; empty shards are left out.
        total: rows of all shards.
    """

    def __init__(self, features: StageDir, shard_ids: list[int]) -> None:
        paths = features.marker().paths
        rows = {i: paths[table_path(TABLE, i)].rows for i in shard_ids}
        self.features = features
        self.counts = {shard_id: count for shard_id, count in rows.items() if count}
        self.total = sum(self.counts.values())

    def shards(self) -> Iterator[np.ndarray]:
        """Yield the rows of each shard, float16 [rows, D]."""
        yield from map(
            feature_matrix, self.features.each_table(TABLE, list(self.counts), ["feature"])
        )

    def whole(self) -> np.ndarray:
        """Return all rows in order, float32 [total, D]; beside them lies one shard in memory."""
        rows = np.zeros((0, 1), np.float32)
        done = 0
        for shard in self.shards():
            if not done:
                rows = np.empty((self.total, shard.shape[1]), np.float32)
            rows[done : done + len(shard)] = shard
            done += len(shard)
        return rows

    def batches(self, size: int, passes: int, seed: int) -> Iterator[np.ndarray]:
        """Yield every row once a pass: shards in seeded order, rows shuffled within a shard.

        Yields:
            float16 [size, D]; the last batch may be shorter. One shard is in memory.
        """
        kept: list[np.ndarray] = []
        for number in range(passes):
            shards = rng.stream(seed, "kmeans_shards", number).permutation(list(self.counts))
            for shard_id in shards.tolist():
                rows = read_features(self.features, shard_id)
                order = rng.stream(seed, "kmeans_rows", number, shard_id).permutation(len(rows))
                waiting = np.concatenate([*kept, rows[order]])
                whole = len(waiting) - len(waiting) % size
                for start in range(0, whole, size):
                    yield waiting[start : start + size]
                kept = [waiting[whole:].copy()]
        if kept and len(kept[0]):
            yield kept[0]

    def part(self, rank: int, size: int) -> list[np.ndarray]:
        """Return the shards of one of `size` members (every `size`-th), float32 [rows, D] each."""
        ids = list(self.counts)[rank::size]
        return [read_features(self.features, i).astype(np.float32) for i in ids]
