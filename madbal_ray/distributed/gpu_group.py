"""A group of processes, each with a GPU of its own, that do one job together through NCCL.

Some steps of such a job are collective: they return only when every member has entered them.
A member that fails, dies or hangs would leave the others waiting for ever, so the loss of one
ends them all.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from madbal_ray.distributed.job_actors import LOST, own_error
from madbal_ray.engine.contract import GpuJob, Member
from madbal_ray.errors import ResourceError, StageError

LOGGER = logging.getLogger("madbal_ray")

PLACE_SECONDS = 3600.0
"""How long a group waits for its GPUs, which may be at work for another run of a suite."""

PATIENT_SECONDS = 30.0
"""A group that still has no GPUs after so long says in the log that it is waiting."""

ONE_GPU = MappingProxyType({"GPU": 1.0})
"""What a member reserves of Ray's resources, unless it is told otherwise."""

JOIN_SECONDS = 300.0
"""How long members may take to start, and again to find each other."""

WORK_SECONDS = 6 * 3600.0
"""How long the job itself may take."""


class GpuActor:
    """One member of a group, as a Ray actor."""

    def __init__(self) -> None:
        self.member = Member()
        self.communicator: Any = None

    def make_id(self) -> bytes:
        """Return the name under which the members of a group find each other.

        Raises:
            ResourceError: raft_dask, which brings NCCL, cannot be imported here.
        """
        try:
            from raft_dask.common.nccl import nccl  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise _no_raft(error) from error
        return nccl.get_unique_id()

    def join(self, rank: int, size: int, group_id: bytes) -> None:
        """Enter a group as its member number `rank`; return when all `size` members have.

        Raises:
            ResourceError: NCCL is not installed here, or cannot reach the other members.
        """
        try:
            from pylibraft.common.handle import Handle  # pyright: ignore[reportMissingImports]
            from raft_dask.common.comms_utils import inject_comms_on_handle_coll_only  # pyright: ignore[reportMissingImports]
            from raft_dask.common.nccl import nccl  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise _no_raft(error) from error
        try:
            # The handle does not keep the communicator alive, so this actor has to.
            self.communicator = nccl()
            self.communicator.init(size, group_id, rank)
            handle = Handle(n_streams=0)
            inject_comms_on_handle_coll_only(handle, self.communicator, size, rank, False)
        except RuntimeError as error:
            raise ResourceError(
                f"GPU {rank} of {size} cannot join the others through NCCL: {error}; see to the "
                "driver and the network between the nodes (NCCL_DEBUG=INFO tells more, "
                "NCCL_SOCKET_IFNAME names the interface), or set resources.scoring_workers=1"
            ) from error
        self.member = Member(rank, size, handle)

    def run_member(self, job: GpuJob) -> Any:
        """Do this member's part."""
        return job.run_member(self.member)


def call_on_gpus(job: GpuJob, size: int, *, bundle: Mapping[str, float] = ONE_GPU) -> None:
    """Run a job on `size` GPUs, and finish it with what every member returned.

    Args:
        bundle: what each member reserves of Ray's resources.

    Raises:
        ResourceError: the members cannot join each other.
        StageError: no GPUs became free, a member was lost, or one took too long. No member
            is left running.
        MadbalError: whatever the job itself raised.
    """
    stage = job.output.stage
    group = placement_group([dict(bundle) for _ in range(size)], strategy="PACK")
    actors: list[Any] = []
    try:
        if not group.wait(PATIENT_SECONDS):
            LOGGER.warning("stage %s: waiting for %d free GPUs", stage, size)
        if not group.wait(PLACE_SECONDS):
            raise StageError(
                f"stage {stage}: no {size} GPUs became free in {PLACE_SECONDS:.0f} s; lower "
                "resources.scoring_workers, or start the same command when others are done"
            )
        for index in range(size):
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
            options: dict[str, Any] = {"num_cpus": 0, "num_gpus": bundle.get("GPU", 0)}
            remote: Any = ray.remote(scheduling_strategy=strategy, **options)(GpuActor)
            actors.append(remote.remote())
        if size > 1:
            (group_id,) = _gather(stage, "start", [actors[0].make_id.remote()], JOIN_SECONDS)
            joins = [actor.join.remote(i, size, group_id) for i, actor in enumerate(actors)]
            _gather(stage, "join", joins, JOIN_SECONDS)
        reference = ray.put(job)
        parts = [actor.run_member.remote(reference) for actor in actors]
        results = _gather(stage, "fit", parts, WORK_SECONDS)
    finally:
        for actor in actors:
            ray.kill(actor)
        remove_placement_group(group)
    job.finish(results)


def _gather(stage: str, step: str, references: Sequence[Any], seconds: float) -> list[Any]:
    """Return all results in order, or raise as soon as one fails, without waiting for the rest.

    Args:
        step: what the members are to do, as a verb for the message.
        seconds: for all of them together.
    """
    ends = time.monotonic() + seconds
    waiting = list(references)
    while waiting:
        ready, waiting = ray.wait(waiting, timeout=max(0.0, ends - time.monotonic()))
        if not ready:
            raise StageError(
                f"stage {stage}: {len(waiting)} of {len(references)} GPU processes did not "
                f"{step} within {seconds:.0f} s, so all were ended; see to the network between the "
                "nodes (NCCL_DEBUG=INFO tells more), then start the same command again, or set "
                "resources.scoring_workers=1"
            )
        try:
            ray.get(ready)
        except LOST as error:
            rank = list(references).index(ready[0])
            raise StageError(
                f"stage {stage}: GPU process {rank} of {len(references)} was lost, so all were "
                f"ended: {error}; look at the memory of its node, then start the same command again"
            ) from None
        except RayTaskError as error:
            raise own_error(error) from None
    return ray.get(list(references))


def _no_raft(error: ImportError) -> ResourceError:
    return ResourceError(
        f"clustering on several GPUs: raft_dask cannot be imported on a worker ({error}); pip "
        "install 'madbal_ray[gpu]' there, or set resources.scoring_workers=1"
    )
