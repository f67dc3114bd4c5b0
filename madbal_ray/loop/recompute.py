"""Running the networks of a finished run again, over a part of what they saw (`verify --deep`)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from madbal_ray.engine.contract import ShardJob
from madbal_ray.engine.workers import SingleWorker
from madbal_ray.errors import IntegrityError
from madbal_ray.loop.compare import MOST_APART, compare_closely
from madbal_ray.models.trained import load_network
from madbal_ray.state import tables
from madbal_ray.training.job import TrainRound

DEEP_SHARDS = 2
"""Of every stage, drawn anew each time: nobody knows which."""


def sample_again(job: ShardJob, shard_ids: Sequence[int], where: str) -> str:
    """Compute some shards again; return which, and how they compare with what is stored.

    Args:
        where: of the stage, for messages.

    Raises:
        IntegrityError: they hold something else.
    """
    count = min(DEEP_SHARDS, len(shard_ids))
    chosen = sorted(random.SystemRandom().sample(list(shard_ids), count))
    apart = 0.0
    with _threads_kept():
        job.setup()
        for shard_id in chosen:
            for name, table in job.run(shard_id).items():
                stored = job.output.read_table(name, [shard_id])
                again = tables.in_order(name, table)
                what = f"{where}, shard {shard_id}: {name}"
                apart = max(apart, compare_closely(stored, again, what))
    how = f"{apart:.2%} of the values apart" if apart else "equal to the bit"
    return f"shards {', '.join(map(str, chosen))} computed again, {how}"


def measure_again(job: TrainRound, confusion: pa.Table, device: str, where: str) -> str:
    """Run the network of phase I over the evaluation splits; return how that compares.

    Raises:
        IntegrityError: its predictions are not those of table `confusion`.
    """
    rows = confusion.filter(pc.field("selection") == "last")
    if not rows.num_rows:
        return "there is nothing to measure again"
    again = replace(job.evaluation)
    on = torch.device(device)
    with _threads_kept():
        torch.set_num_threads(job.config.train.threads_per_worker)
        network = load_network(job.config.model, job.pool.num_classes, job.phases, job.supports)
        context = SingleWorker(on, lambda progress: None)
        again.measure(network.to(on), context, "last", rows["epoch"][0].as_py())
    new = tables.in_order("confusion", again.measured()["confusion"])
    before, now = (np.array(one["counts"].to_pylist(), np.int64) for one in (rows, new))
    moved = np.abs(before - now).sum() / 2 / max(1, before.sum())
    if (before.sum(axis=1) != now.sum(axis=1)).any() or moved > MOST_APART:
        raise IntegrityError(
            f"{where}: the weights class {moved:.1%} of the pixels otherwise than table confusion "
            "says"
        )
    how = f"{moved:.3%} of the pixels apart" if moved else "equal to the bit"
    return f"measured again from the weights: {how}"


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Give torch its number of threads back."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
