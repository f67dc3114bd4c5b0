"""From scores to queries to labels: allocation, queries, answers. No torch, no Ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, cast

import numpy as np
import pyarrow as pa

from madbal_ray import rng, tables
from madbal_ray.allocation import (
    ClusterStatistics,
    allocate_cluster_budget,
    ceil_excess,
    score_clusters,
    score_superpixels,
)
from madbal_ray.arrays import IGNORE_INDEX
from madbal_ray.config import BudgetConfig
from madbal_ray.errors import LabelError, PoolError
from madbal_ray.labels import answer_pixels
from madbal_ray.labels.ledger import check_answers, check_disjoint
from madbal_ray.loop.cluster_jobs import read_clusters
from madbal_ray.loop.pool_reader import (
    ImageShardJob,
    PoolImage,
    map_ahead,
    read_images,
    read_label_maps,
    split_by_image,
)
from madbal_ray.query import draw_initial_pixels, query_image
from madbal_ray.stage_dir import StageDir
from madbal_ray.vision.grids import nearest_pixel


def merge_statistics(score: StageDir, num_clusters: int, num_classes: int) -> ClusterStatistics:
    """Add the cluster statistics of all shards; a few kilobytes a shard."""
    table = score.read_table("cluster_statistics")
    shape = (num_clusters, num_classes)
    parts = (
        ClusterStatistics(
            np.array(row["count"], np.int64).reshape(shape),
            np.array(row["score_sum"], np.int64).reshape(shape),
        )
        for row in table.to_pylist()
    )
    return reduce(add, parts, ClusterStatistics.zeros(*shape))


@dataclass
class AllocateBudgets:
    """Cluster shares, scores and budgets of one round (Eq. 5, 7, 8)."""

    output: StageDir
    score: StageDir
    round_index: int
    num_clusters: int
    num_classes: int
    config: BudgetConfig

    def run(self) -> None:
        """Write and commit table `cluster_budgets`."""
        statistics = merge_statistics(self.score, self.num_clusters, self.num_classes)
        table = self.allocate(statistics)
        record = self.output.write_table("cluster_budgets", 0, table)
        excess = 0
        if self.config.rounding == "ceil":
            excess = ceil_excess(
                cluster_score=table["score"].to_numpy(), budget=self.config.pixels_per_image
            )
        self.output.commit([record], {"ceil_excess": excess})

    def allocate(self, statistics: ClusterStatistics) -> pa.Table:
        """Return table `cluster_budgets`.

        Raises:
            PoolError: no superpixel has an unasked pixel left.
        """
        size = statistics.count.sum(axis=1)
        if not size.any():
            raise PoolError(
                f"round {self.round_index}: every pixel of the pool was asked; nothing is left to "
                "choose from: lower num_rounds or the budget"
            )
        class_share, score = score_clusters(statistics)
        budget = allocate_cluster_budget(
            cluster_score=score,
            budget=self.config.pixels_per_image,
            rounding=self.config.rounding,
            has_superpixels=size > 0,
        )
        total = score.sum()
        return tables.from_columns(
            "cluster_budgets",
            {
                "round": np.full(self.num_clusters, self.round_index),
                "cluster_id": np.arange(self.num_clusters),
                "num_superpixels": size,
                "score": score,
                "share": score / total if total > 0 else np.zeros_like(score),
                "budget": budget,
                "class_share": class_share,
            },
        )


@dataclass
class QueryShard:
    """Queries of one shard from its superpixel scores (the one pass over rows)."""

    output: StageDir
    score: StageDir
    budgets: StageDir
    round_index: int
    is_light = True
    table_names = ("queries",)

    def setup(self) -> None:
        """Load the cluster budgets."""
        table = self.budgets.read_table("cluster_budgets")
        self._budget = table["budget"].to_numpy()
        self._score = table["score"].to_numpy()
        self._class_share = np.array(table["class_share"].to_pylist(), np.float64)

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the queries of one shard.

        Raises:
            LabelError: an image did not get exactly min(B, unasked pixels) queries.
        """
        table = self.score.read_table("superpixel_scores", [shard_id])
        cluster = table["cluster_id"].to_numpy()
        superpixel = table["superpixel_id"].to_numpy()
        score = score_superpixels(
            mean_score=table["mean_score"].to_numpy(),
            dominant_class=table["dominant_class"].to_numpy(),
            cluster_id=cluster,
            cluster_class_share=self._class_share,
        )
        top = {
            name: cast(pa.ListArray, table[name].combine_chunks())
            for name in ("top_y", "top_x", "top_score")
        }
        unasked = table["num_pixels"].to_numpy()
        parts = []
        for image_id, rows in split_by_image(table).items():
            chosen = query_image(
                superpixel_id=superpixel[rows],
                cluster_id=cluster[rows],
                score=score[rows],
                **{name: _rectangle(column, rows) for name, column in top.items()},
                cluster_budget=self._budget,
                cluster_score=self._score,
            )
            _check_exact(image_id, len(chosen), int(self._budget.sum()), int(unasked[rows].sum()))
            parts.append(
                _queries(
                    self.round_index,
                    image_id,
                    y=chosen.y,
                    x=chosen.x,
                    superpixel_id=chosen.superpixel_id,
                    cluster_id=chosen.cluster_id,
                    score=pa.array(chosen.score),
                )
            )
        return {"queries": tables.concat("queries", parts)}

    def count(self, shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
        """Count images and asked pixels."""
        return _count_asked(shard_tables["queries"])


@dataclass
class DrawInitialPool(ImageShardJob):
    """Queries of round 0: pixels at random (paper section 4)."""

    images: StageDir
    superpixels: StageDir
    clusters: StageDir
    count_per_image: int
    skip_void: bool
    seed: int
    is_light = True
    table_names = ("queries",)

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the random queries of one shard."""
        images = read_images(self.images, shard_id)
        label_maps = read_label_maps(self.superpixels, shard_id, images)
        clusters = read_clusters(self.clusters, shard_id)
        parts = []
        for image, allowed in zip(images, self._allowed(images), strict=True):
            y, x = draw_initial_pixels(
                is_allowed=allowed,
                count=self.count_per_image,
                generator=rng.stream(self.seed, "initial_pool", 0, image.image_id),
            )
            _check_exact(image.image_id, len(y), self.count_per_image, int(allowed.sum()))
            superpixel = label_maps[image.image_id][y, x].astype(np.int64)
            parts.append(
                _queries(
                    0,
                    image.image_id,
                    y=y,
                    x=x,
                    superpixel_id=superpixel,
                    cluster_id=clusters[image.image_id][superpixel],
                    score=pa.nulls(len(y), pa.float32()),
                )
            )
        return {"queries": tables.concat("queries", parts)}

    def count(self, shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
        """Count images and asked pixels."""
        return _count_asked(shard_tables["queries"])

    def _allowed(self, images: Sequence[PoolImage]) -> Iterator[np.ndarray]:
        if not self.skip_void:
            return (np.ones((image.work_height, image.work_width), bool) for image in images)
        masks = map_ahead(
            self.reader.mask_on_working_grid, images, threads=self.threads, ahead=self.threads
        )
        return (mask != IGNORE_INDEX for mask in masks)


@dataclass
class SimulateAnswers(ImageShardJob):
    """The simulated oracle: labels of one shard's queries, read off the masks."""

    images: StageDir
    queries: StageDir
    earlier_labels: tuple[StageDir, ...]
    is_light = True
    table_names = ("labels",)

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the answers, after asserting that none was asked before.

        Raises:
            LabelError: a query repeats a pixel, or answers and queries differ.
        """
        queries = self.queries.read_table("queries", [shard_id])
        rows_of = split_by_image(queries)
        images = [i for i in read_images(self.images, shard_id) if i.image_id in rows_of]
        y, x = queries["y"].to_numpy(), queries["x"].to_numpy()
        parts = []
        masks = map_ahead(self.reader.mask, images, threads=self.threads, ahead=self.threads)
        for image, mask in zip(images, masks, strict=True):
            rows = rows_of[image.image_id]
            image_y = nearest_pixel(y[rows].astype(np.int64), image.work_height, image.height)
            image_x = nearest_pixel(x[rows].astype(np.int64), image.work_width, image.width)
            class_id, is_void = answer_pixels(mask=mask, y=image_y, x=image_x)
            count = len(class_id)
            asked = queries.slice(rows.start, count)
            parts.append(
                tables.from_columns(
                    "labels",
                    {
                        **{
                            name: asked[name].combine_chunks()
                            for name in ("round", "image_id", "y", "x", "unit", "superpixel_id")
                        },
                        "image_y": image_y,
                        "image_x": image_x,
                        "class_id": pa.array(class_id, pa.int32(), mask=is_void),
                        "status": np.where(is_void, "void", "labelled").tolist(),
                        "oracle": ["simulated"] * count,
                        "revision": np.zeros(count, np.int64),
                    },
                )
            )
        labels = tables.concat("labels", parts)
        check_answers(queries, labels)
        for earlier in self.earlier_labels:
            check_disjoint(labels, earlier.read_table("labels", [shard_id]))
        return {"labels": labels}

    def count(self, shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
        """Count images, answers and void answers."""
        labels = shard_tables["labels"]
        void = int((labels["status"].to_numpy() == "void").sum())
        return {
            "images": len(labels["image_id"].unique()),
            "answers": labels.num_rows,
            "void": void,
        }


def _queries(round_index: int, image_id: str, *, y: np.ndarray, **columns: Any) -> pa.Table:
    count = len(y)
    return tables.from_columns(
        "queries",
        {
            "round": np.full(count, round_index),
            "image_id": [image_id] * count,
            "y": y,
            "unit": ["pixel"] * count,
            "rank": np.arange(count),
            **columns,
        },
    )


def _rectangle(column: pa.ListArray, rows: slice) -> np.ndarray:
    """Return the lists of one image's rows as an array; they are equally long."""
    part = column.slice(rows.start, rows.stop - rows.start)
    return part.flatten().to_numpy(zero_copy_only=False).reshape(len(part), -1)


def _count_asked(queries: pa.Table) -> dict[str, int]:
    return {"images": len(queries["image_id"].unique()), "asked": queries.num_rows}


def _check_exact(image_id: str, chosen: int, budget: int, unasked: int) -> None:
    if chosen != min(budget, unasked):
        raise LabelError(
            f"{image_id}: {chosen} pixels were chosen, expected {min(budget, unasked)} (budget "
            f"{budget}, unasked {unasked}); this is a defect, please report it"
        )
