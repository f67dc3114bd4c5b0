"""Rows of table `queries`, and the promises they keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from madbal_ray.engine.contract import LightShardJob
from madbal_ray.errors import LabelError, PoolError
from madbal_ray.state import tables

Unit = Literal["pixel", "superpixel", "image"]
"""What one query is."""


@dataclass(kw_only=True)
class QueryJob(LightShardJob):
    """A light job whose shards are queries."""

    table_names = ("queries",)

    def count(self, shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
        """Count images and queries."""
        return count_asked(shard_tables)


def query_rows(
    round_index: int, image_id: str, unit: str, *, y: np.ndarray, **columns: Any
) -> pa.Table:
    """Return the queries of one image, ranked in the order given."""
    count = len(y)
    return tables.from_columns(
        "queries",
        {
            "round": np.full(count, round_index),
            "image_id": [image_id] * count,
            "y": y,
            "unit": [unit] * count,
            "rank": np.arange(count),
            **columns,
        },
    )


def whole_image_query(round_index: int, image_id: str, score: float | None) -> pa.Table:
    """Return the query of one whole image."""
    row = {
        "round": round_index,
        "image_id": image_id,
        "y": 0,
        "x": 0,
        "unit": "image",
        "score": score,
        "rank": 0,
    }
    return tables.from_rows("queries", [row])


def count_asked(shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
    """Count images and queries of a shard."""
    queries = shard_tables["queries"]
    return {"images": len(queries["image_id"].unique()), "asked": queries.num_rows}


def check_exact(image_id: str, chosen: int, budget: int, available: int) -> None:
    """Assert that an image got exactly its budget, or all that it has.

    Raises:
        LabelError: it did not.
    """
    if chosen != min(budget, available):
        raise LabelError(
            f"{image_id}: {chosen} queries were chosen, expected {min(budget, available)} (budget "
            f"{budget}, available {available}); this is a defect, please report it"
        )


def check_pool_exact(chosen: int, budget: int) -> None:
    """Assert that the pool got exactly what its clusters were cut to.

    Raises:
        LabelError: it did not.
    """
    if chosen != budget:
        raise LabelError(
            f"{chosen} queries were chosen in the pool, expected {budget}; this is a defect, "
            "please report it"
        )


def nothing_left(round_index: int) -> PoolError:
    """Return the error of a pool in which everything was asked."""
    return PoolError(
        f"round {round_index}: every pixel of the pool was asked that may be; nothing is left to "
        "choose from: lower num_rounds or the budget"
    )
