"""What mini-batches over all rows bring beside a sample: ``python -m benchmarks.kmeans``."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from madbal_ray.config.pool import ClusteringConfig
from madbal_ray.pool.clusters.find_centroids import find_centroids
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from tests.plain_runner import PlainRunner

ROWS_PER_SHARD, DIMENSIONS, CENTERS = 20_000, 64, 300


def generate(folder: Path, rows: int) -> StageDir:
    """Write features drawn from a mixture of Gaussians of unequal weight, shard by shard."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(CENTERS, DIMENSIONS)) * 2
    weights = rng.dirichlet(np.full(CENTERS, 0.5))
    stage = StageDir.plan(Folder(folder), "superpixel_features", {}, {})
    files = []
    for shard_id in range(rows // ROWS_PER_SHARD):
        drawn = centers[rng.choice(CENTERS, ROWS_PER_SHARD, p=weights)]
        feature = (drawn + rng.normal(size=drawn.shape)).astype(np.float16)
        columns = {
            "image_id": [f"{shard_id:05d}.png"] * ROWS_PER_SHARD,
            "superpixel_id": np.arange(ROWS_PER_SHARD),
            "feature": feature,
        }
        table = tables.from_columns("superpixel_features", columns)
        files.append(stage.write_table("superpixel_features", shard_id, table))
    stage.commit(files, {})
    return stage


def main() -> None:
    """Print time and inertia over all rows of both ways, for several numbers of clusters."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--sample", type=int, default=30_000)
    parser.add_argument("--clusters", type=int, nargs="+", default=[9, 50, 200])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        features = generate(Path(folder), options.rows)
        shard_ids = list(range(options.rows // ROWS_PER_SHARD))
        for clusters in options.clusters:
            found = {}
            for fit_on in ("sample", "all"):
                config = ClusteringConfig(
                    num_clusters=clusters, max_fit_rows=options.sample, fit_on=fit_on
                )
                output = StageDir.plan(
                    Folder(folder), "centroids", config.result_settings(), {"rows": "generated"}
                )
                started = time.perf_counter()
                find_centroids(
                    config, Folder(folder), PlainRunner(), output, features, shard_ids, "cpu"
                )
                found[fit_on] = time.perf_counter() - started, output.marker().summary["inertia"]
            (sample_seconds, sample), (all_seconds, whole) = found["sample"], found["all"]
            print(
                f"K = {clusters}: a sample of {options.sample:,} of {options.rows:,} rows "
                f"{sample_seconds:.1f} s; with mini-batches over all {all_seconds:.1f} s, inertia "
                f"{100 * (1 - whole / sample):.2f} % lower",
                flush=True,
            )


if __name__ == "__main__":
    main()
