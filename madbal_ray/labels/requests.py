"""Queries on the grid of the original images: what an annotator is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from madbal_ray.engine.contract import LightShardJob
from madbal_ray.engine.stages import JobRunner
from madbal_ray.labels.answer_rows import IDENTITY, Purpose, StoredQuery
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import split_by_image
from madbal_ray.state import tables
from madbal_ray.state.marker import canonical_json
from madbal_ray.state.stage_dir import StageDir, digests
from madbal_ray.state.storage import Folder
from madbal_ray.vision.grids import nearest_pixel


def query_id(run_id: str, *, round: int, image_id: str, y: int, x: int, unit: str) -> str:
    """Return the identity of a query: of its run, round, image and pixel of the working grid.

    A letter comes first, so that no spreadsheet takes it for a number.

    >>> query_id("a1", round=0, image_id="a.png", y=3, x=4, unit="pixel")
    'q09cf4646abeb80b8bd54'
    """
    text = canonical_json([run_id, round, image_id, y, x, unit])
    return f"q{hashlib.sha256(text.encode()).hexdigest()[:20]}"


@dataclass(kw_only=True)
class RequestPixels(LightShardJob):
    """Queries on the grid of the original images: what an annotator is asked.

    Attributes:
        run_id: identity of the run that asks.
    """

    pool: Pool
    queries: StageDir
    run_id: str
    table_names = ("pixel_requests",)

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Map the queries of one shard."""
        queries = self.queries.read_table("queries", [shard_id])
        rows_of = split_by_image(queries)
        parts = []
        for image in self.pool.images_of(shard_id):
            if image.image_id not in rows_of:
                continue
            span = rows_of[image.image_id]
            rows = queries.slice(span.start, span.stop - span.start)
            y = rows["y"].to_numpy().astype(np.int64)
            x = rows["x"].to_numpy().astype(np.int64)
            parts.append(
                tables.from_columns(
                    "pixel_requests",
                    {
                        "query_id": [
                            query_id(self.run_id, **row)
                            for row in rows.select(list(IDENTITY)).to_pylist()
                        ],
                        "image_id": rows["image_id"].to_pylist(),
                        "image_uri": [image.image_uri] * len(y),
                        "image_height": np.full(len(y), image.height),
                        "image_width": np.full(len(y), image.width),
                        "image_y": nearest_pixel(y, image.work_height, image.height),
                        "image_x": nearest_pixel(x, image.work_width, image.width),
                        "y": y,
                        "x": x,
                        "unit": rows["unit"].to_pylist(),
                        "rank": rows["rank"].to_numpy(),
                        "score": rows["score"].to_numpy(),
                        "superpixel_id": rows["superpixel_id"].to_pylist(),
                        "cluster_id": rows["cluster_id"].to_pylist(),
                    },
                )
            )
        return {"pixel_requests": tables.concat("pixel_requests", parts)}

    def count(self, shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
        """Count images and requests."""
        requests = shard_tables["pixel_requests"]
        return {"images": len(requests["image_id"].unique()), "asked": requests.num_rows}


def request_pixels(
    runner: JobRunner, folder: Folder, pool: Pool, queries: StageDir, *, run_id: str
) -> StageDir:
    """Complete stage `requests`: a round's queries on the original images; return it.

    Args:
        folder: of the round.
    """
    output = runner.plan(folder, "requests", {"run_id": run_id}, digests(pool.images, queries))
    job = RequestPixels(output=output, pool=pool, queries=queries, run_id=run_id)
    runner.map(job, queries.shards_with("queries"), total=None)
    return output


STORED = (
    *("query_id", "image_id", "image_uri", "y", "x", "image_y", "image_x"),
    *("unit", "superpixel_id", "rank"),
)


def stored_queries(requests: pa.Table, round_index: int, purpose: Purpose) -> Iterator[StoredQuery]:
    """Yield the rows of table `pixel_requests` as the store of answers takes them."""
    for row in requests.select(list(STORED)).to_pylist():
        yield StoredQuery(round=round_index, purpose=purpose, **row)
