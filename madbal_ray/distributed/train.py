"""Training with several workers: one `fit` of Ray Train a round, both phases in one function.

Ray Train starts its workers anew for each `fit`, which costs the imports of torch every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
import ray.train
import torch.distributed as dist
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from madbal_ray import errors
from madbal_ray.distributed.metrics import RunMetrics, note_gpu_memory
from madbal_ray.distributed.train_in_actor import STAGE, forwarded
from madbal_ray.engine.contract import Listener, TrainingJob
from madbal_ray.seams import load_plugins

CONTROLLER_RETRIES = 1


class RayWorker:
    """The context of one Ray Train worker."""

    def __init__(self, mailbox: Any, run: str) -> None:
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self.device = get_device()
        self.mailbox = mailbox
        self.run = run

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all workers."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_gather(self, value: Any) -> list[Any]:
        """Return every worker's value, in rank order."""
        if self.world_size == 1:
            return [value]
        gathered: list[Any] = [None] * self.world_size
        dist.all_gather_object(gathered, value)
        return gathered

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module under DistributedDataParallel."""
        if self.world_size == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices)

    def barrier(self) -> None:
        """Wait for all workers."""
        if self.world_size > 1:
            dist.barrier()

    def report(self, progress: dict[str, Any]) -> None:
        """Drop a finished epoch into the driver's mailbox; rank 0 only."""
        note_gpu_memory(STAGE, self.run)
        if self.rank == 0:
            self.mailbox.put.remote(progress)


def train_worker(settings: dict[str, Any]) -> dict[str, Any] | None:
    """Run the job in one worker.

    A lone worker returns our own errors, which a retry would only repeat. One of several
    must raise, since the others wait for it.
    """
    load_plugins(settings["plugins"])
    worker = RayWorker(settings["mailbox"], settings["run"])
    try:
        settings["job"].run(worker)
    except errors.MadbalError as error:
        if worker.world_size > 1:
            raise
        return errors.pack(error)
    return None


def train_with_ray(
    job: TrainingJob,
    listener: Listener,
    *,
    mailbox: Any,
    metrics: RunMetrics,
    plugins: Sequence[str],
    storage_path: str,
    use_gpu: bool,
    num_cpus: float,
    retries: int,
) -> None:
    """Fit one round; lost workers are replaced and go on from the job's checkpoint.

    Raises:
        MadbalError: the job's own, as on the local engine.
        StageError: workers kept failing.
    """
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "job": job,
            "mailbox": mailbox,
            "run": metrics.run,
            "plugins": tuple(plugins),
        },
        scaling_config=ScalingConfig(
            num_workers=job.num_workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": num_cpus} | ({"GPU": 1} if use_gpu else {}),
        ),
        run_config=RunConfig(
            name=job.name,
            storage_path=storage_path,
            failure_config=FailureConfig(
                max_failures=retries, controller_failure_limit=CONTROLLER_RETRIES
            ),
        ),
    )
    try:
        with metrics.clock(STAGE) as tick, forwarded(mailbox, listener, tick):
            failure = trainer.fit().return_value
    except ray.train.TrainingFailedError as error:
        raise errors.StageError(f"training of {job.name} failed on Ray: {error}") from error
    if failure is not None:
        raise errors.unpack(failure)
