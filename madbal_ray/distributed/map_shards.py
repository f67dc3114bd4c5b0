"""Shards through Ray Data: rows are shards, actors write them, rows come back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray.data
from ray.exceptions import RayError

from madbal_ray.distributed.metrics import note_gpu_memory
from madbal_ray.engine.contract import ShardJob
from madbal_ray.engine.shards import ShardWorker
from madbal_ray.errors import StageError
from madbal_ray.seams import load_plugins
from madbal_ray.state.stage_dir import canonical_json


class ShardActor:
    """One Ray Data actor: set up once, then shard after shard."""

    def __init__(self, job: ShardJob, run: str, plugins: Sequence[str]) -> None:
        load_plugins(plugins)
        self.stage, self.run = job.output.stage, run
        self.worker = ShardWorker(job)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Run the shards of a batch (one) and return their manifest rows as JSON."""
        rows = [canonical_json(self.worker.run(int(i))) for i in batch["shard_id"].to_numpy()]
        note_gpu_memory(self.stage, self.run)
        return pa.table({"row": rows})


def map_with_ray_data(
    job: ShardJob,
    shard_ids: Sequence[int],
    *,
    run: str,
    plugins: Sequence[str],
    num_workers: int,
    num_cpus: float,
    num_gpus: float,
) -> Iterator[dict[str, Any]]:
    """Run a job on a pool of actors; a shard whose actor dies is run again.

    Args:
        run: name of the run, for metrics.
        plugins: modules that every actor imports first.
    """
    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.from_items(
        [{"shard_id": shard_id} for shard_id in shard_ids], override_num_blocks=len(shard_ids)
    ).map_batches(
        ShardActor,
        fn_constructor_args=(job, run, tuple(plugins)),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(num_workers, len(shard_ids))),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )
    try:
        for row in dataset.iter_rows():
            yield json.loads(row["row"])
    except RayError as error:
        raise StageError(f"stage {job.output.stage}: a Ray worker failed: {error}") from error
