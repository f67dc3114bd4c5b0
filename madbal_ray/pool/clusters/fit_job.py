"""Centroids from the superpixels of the whole pool, or from a sample of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from madbal_ray.config.pool import ClusteringConfig
from madbal_ray.engine.contract import Member
from madbal_ray.pool.clusters import cuml
from madbal_ray.pool.clusters.backend import check_rows
from madbal_ray.pool.clusters.feature_rows import FeatureRows
from madbal_ray.pool.clusters.nearest import measure_inertia
from madbal_ray.pool.clusters.sklearn import fit_kmeans, refine_in_batches
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir

BATCH_ROWS = 4096
"""Rows of a mini-batch."""

PASSES = 1
"""Over all rows in mini-batches."""


@dataclass
class Fit:
    """What one member found.

    Attributes:
        centroids: float32 [K, D], the same in every member.
        inertia: of the rows this member answers for; None: it has seen a sample of them.
    """

    centroids: np.ndarray
    inertia: float | None


@dataclass(kw_only=True)
class FitKMeans:
    """Centroids from all superpixels, a sample, or a sample refined in mini-batches.

    Attributes:
        sample: finished stage of `SampleRows`; where the way is ``whole`` there is none.
        backend: ``sklearn`` or ``cuml``, as `pool.clusters.backend.choose_backend` chose.
    """

    output: StageDir
    features: StageDir
    shard_ids: list[int]
    config: ClusteringConfig
    backend: str
    sample: StageDir | None = None

    def __post_init__(self) -> None:
        self.rows = FeatureRows(self.features, self.shard_ids)

    @property
    def way(self) -> str:
        """Return what is fitted: ``whole`` pool, ``sample``, or ``mini_batches`` after one."""
        if self.rows.total <= self.config.max_fit_rows:
            return "whole"
        if self.config.fit_on == "sample":
            return "sample"
        return "whole" if self.backend == "cuml" else "mini_batches"

    @property
    def num_gpus(self) -> int:
        """Return the most GPUs that help: one for what one fit holds, else one a shard."""
        if self.backend != "cuml":
            return 0
        is_large = self.rows.total > self.config.max_fit_rows
        return len(self.rows.counts) if is_large and self.way == "whole" else 1

    def run(self) -> None:
        """Fit in this process and commit."""
        self.finish([self.run_member(Member())])

    def run_member(self, member: Member) -> Fit:
        """Fit alone, or on this member's share of the shards together with the others.

        Raises:
            PoolError: fewer superpixels than clusters.
            ResourceError: cuML is to run and cannot.
            ValueError: the way takes a sample, and there is none.
        """
        if self.way != "whole" and self.sample is None:
            raise ValueError(f"{self.way}: a sample is fitted, and it was not given")
        check_rows(self.rows.total, self.config.num_clusters)
        if member.size > 1:
            return self._fit_share(member)
        fit = cuml.fit_kmeans if self.backend == "cuml" else fit_kmeans
        fitted = self.rows if self.sample is None else FeatureRows(self.sample, self.shard_ids)
        centroids, inertia = fit(
            fitted.whole(),
            num_clusters=self.config.num_clusters,
            num_init=self.config.num_init,
            seed=self.config.seed,
        )
        if self.sample is None:
            return Fit(centroids, inertia)
        if self.way == "mini_batches":
            batch_rows = max(BATCH_ROWS, self.config.num_clusters)
            batches = self.rows.batches(batch_rows, PASSES, self.config.seed)
            centroids = refine_in_batches(centroids, batches)
        return Fit(centroids, None)

    def _fit_share(self, member: Member) -> Fit:
        shards = self.rows.part(member.rank, member.size)
        centroids = cuml.fit_kmeans_together(
            shards,
            total_rows=self.rows.total,
            num_clusters=self.config.num_clusters,
            num_init=self.config.num_init,
            seed=self.config.seed,
            handle=member.handle,
        )
        return Fit(centroids, math.fsum(measure_inertia(shard, centroids) for shard in shards))

    def finish(self, results: Sequence[Fit]) -> None:
        """Commit; the marker says what ran, on how much, and the inertia over all rows."""
        centroids = results[0].centroids
        columns = {"cluster_id": np.arange(len(centroids)), "centroid": centroids}
        summary = {
            "backend": self.backend,
            "way": self.way,
            "rows": self.rows.total,
            "fitted_rows": self.config.max_fit_rows if self.way == "sample" else self.rows.total,
            "passes_in_batches": PASSES if self.way == "mini_batches" else 0,
            "processes": len(results),
        }
        parts = [fit.inertia for fit in results if fit.inertia is not None]
        if parts:
            summary["inertia"] = math.fsum(parts)
        _commit(self.output, tables.from_columns("centroids", columns), summary)


@dataclass(kw_only=True)
class KeepCentroids:
    """Centroids that were fitted on a sample, once their inertia over all rows is known.

    Attributes:
        fit: finished stage of `FitKMeans`.
        inertia: finished stage of `MeasureInertia`.
    """

    output: StageDir
    fit: StageDir
    inertia: StageDir

    def run(self) -> None:
        """Commit."""
        shards = self.inertia.read_table("kmeans_inertia", columns=["inertia"])
        total = math.fsum(shards["inertia"].to_pylist())
        centroids = self.fit.read_table("centroids")
        _commit(self.output, centroids, {**self.fit.marker().summary, "inertia": total})


def _commit(output: StageDir, table: pa.Table, summary: Mapping[str, Any]) -> None:
    data = tables.encode("centroids", table, key=output.key)
    # Named by its content: GPUs do not repeat themselves to the bit, so another run on the
    # same pool must not write other centroids under the name that a marker promises.
    name = f"centroids/{hashlib.sha256(data).hexdigest()[:12]}.parquet"
    output.commit([output.write_file(name, data, table.num_rows)], summary)
