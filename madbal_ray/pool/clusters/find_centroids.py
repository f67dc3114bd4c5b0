"""The stages that lead to a pool's centroids."""

from __future__ import annotations

from dataclasses import replace

from madbal_ray.config.pool import ClusteringConfig
from madbal_ray.engine.stages import JobRunner
from madbal_ray.pool.clusters.backend import choose_backend
from madbal_ray.pool.clusters.fit_job import FitKMeans, KeepCentroids
from madbal_ray.pool.clusters.sample_job import MeasureInertia, SampleRows
from madbal_ray.state.stage_dir import StageDir, digests
from madbal_ray.state.storage import Folder


def find_centroids(
    config: ClusteringConfig,
    folder: Folder,
    runner: JobRunner,
    centroids: StageDir,
    features: StageDir,
    shard_ids: list[int],
    device: str,
) -> None:
    """Find centroids unless they are there, whatever found them, and on whatever machine.

    Where a sample is fitted, it is drawn shard by shard, and so is the inertia over all rows
    measured: no process reads all features, but for mini-batches (`clustering.fit_on: all`).

    Args:
        folder: of the pool.
        centroids: the stage to complete.
        features: finished stage ``superpixel_features``.

    Raises:
        PoolError: fewer superpixels than clusters.
        ResourceError: cuML is asked for and cannot run.
    """
    if centroids.is_done:
        runner.point(centroids)
        return
    backend, reason = choose_backend(config.backend, device)
    runner.progress.say(f"K-means: {backend} ({reason})")
    fit = FitKMeans(
        output=centroids, features=features, shard_ids=shard_ids, config=config, backend=backend
    )
    if fit.way == "whole":
        runner.call(fit)
        return
    drawn = {"rows": config.max_fit_rows, "seed": config.seed}
    sample = runner.plan(folder, "kmeans_sample", drawn, digests(features))
    runner.map(
        SampleRows(
            output=sample,
            features=features,
            shard_ids=shard_ids,
            size=config.max_fit_rows,
            seed=config.seed,
        ),
        shard_ids,
        total=None,
    )
    fitted = runner.plan(folder, "kmeans_fit", config.result_settings(), digests(features, sample))
    runner.call(replace(fit, output=fitted, sample=sample))
    inertia = runner.plan(folder, "kmeans_inertia", {}, digests(features, fitted))
    runner.map(MeasureInertia(output=inertia, features=features, fit=fitted), shard_ids, total=None)
    runner.call(KeepCentroids(output=centroids, fit=fitted, inertia=inertia))
