"""Queries of strategies that score single pixels: what the scorer drew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from madbal_ray.selection.query_rows import QueryJob
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir


@dataclass(kw_only=True)
class QueryCandidates(QueryJob):
    """Queries of one shard: the pixels that the scorer drew."""

    score: StageDir
    round_index: int

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the queries of one shard."""
        table = self.score.read_table("pixel_candidates", [shard_id])
        columns = {
            name: table[name]
            for name in tables.schema("queries").names
            if name in table.schema.names
        }
        count = table.num_rows
        columns |= {
            "round": pa.array(np.full(count, self.round_index), pa.int32()),
            "unit": pa.array(["pixel"] * count, pa.string()),
        }
        names = tables.schema("queries").names
        return {"queries": pa.table({name: columns[name] for name in names})}
