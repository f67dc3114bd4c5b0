"""Queries on the grid of the original images: what an annotator is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from madbal_ray.engine.contract import LightShardJob
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import split_by_image
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.vision.grids import nearest_pixel


@dataclass(kw_only=True)
class RequestPixels(LightShardJob):
    """Queries on the grid of the original images: what an annotator is asked."""

    pool: Pool
    queries: StageDir
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
                        "image_id": rows["image_id"].to_pylist(),
                        "image_uri": [image.image_uri] * len(y),
                        "image_height": np.full(len(y), image.height),
                        "image_width": np.full(len(y), image.width),
                        "image_y": nearest_pixel(y, image.work_height, image.height),
                        "image_x": nearest_pixel(x, image.work_width, image.width),
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
