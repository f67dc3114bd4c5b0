"""What an engine is: the four things a loop asks of a machine or a cluster.

`madbal_ray.engine.local` runs everything in this process;
`madbal_ray.distributed.engine` runs it on Ray. Both pass the same test suite and write
the same bytes.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from madbal_ray.state.marker import FileRecord
from madbal_ray.state.stage_dir import StageDir


@runtime_checkable
class ShardJob(Protocol):
    """Work on a pool, shard by shard; picklable before `setup`."""

    @property
    def output(self) -> StageDir:
        """Return the folder of the stage."""
        ...

    @property
    def is_light(self) -> bool:
        """Tell whether no network and no accelerator is needed."""
        ...

    @property
    def uses_device(self) -> bool:
        """Tell whether the accelerator is needed; a heavy job without asks for CPUs alone."""
        ...

    @property
    def counts_images(self) -> bool:
        """Tell whether `count` counts the pool's images, for the progress view."""
        ...

    @property
    def table_names(self) -> tuple[str, ...]:
        """Return the tables that every shard writes."""
        ...

    def setup(self) -> None:
        """Load what every shard needs (weights, centroids), once per worker."""
        ...

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the tables of one shard; the same shard gives the same rows."""
        ...

    def count(self, shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
        """Return what to add up over shards; at least ``images``, the images done."""
        ...


@runtime_checkable
class StreamedJob(ShardJob, Protocol):
    """A shard job whose next shard is read and decoded while this one is computed."""

    def load(self, shard_id: int) -> Any:
        """Return what `compute` needs, or what hands it over bit by bit; from any thread."""
        ...

    def compute(self, shard_id: int, loaded: Any) -> dict[str, pa.Table]:
        """Return the tables of one shard; one shard at a time, in the thread of `setup`."""
        ...


@runtime_checkable
class WritesBeside(ShardJob, Protocol):
    """A shard job that writes shards of a later stage, too, and says what it wrote.

    Else whoever completes that stage would have to read every file to know what it holds.
    """

    @property
    def beside_output(self) -> StageDir:
        """Return the folder of the later stage."""
        ...

    def beside(self, shard_id: int) -> dict[str, Any] | None:
        """Return the later stage's manifest row of a shard that was run; None: not written."""
        ...


def written_row(
    shard_id: int, files: Sequence[FileRecord], counts: Mapping[str, int]
) -> dict[str, Any]:
    """Return the manifest row of a shard that was written elsewhere, or by whoever was killed."""
    return {
        "shard_id": shard_id,
        "files": [vars(record) for record in files],
        "counts": counts,
        "seconds": 0.0,
        "peak_memory": 0,
    }


@dataclass(kw_only=True)
class LightShardJob:
    """A shard job on tables alone: no network, no accelerator, and nothing to load.

    Attributes:
        output: folder of the stage.
    """

    output: StageDir
    is_light = True
    uses_device = False
    counts_images = True

    @property
    def reads_images(self) -> bool:
        """Tell whether it opens files of the data set, so that it needs them to be there."""
        return False

    def setup(self) -> None:
        """Load nothing."""

    def count(self, shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
        """Count the shard's images."""
        return count_images(shard_tables)


def count_images(shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
    """Count the images of a shard's first table."""
    first = next(iter(shard_tables.values()))
    return {"images": len(first["image_id"].unique())}


@runtime_checkable
class CallJob(Protocol):
    """Work that one process does as a whole (K-means, allocation)."""

    @property
    def output(self) -> StageDir:
        """Return the folder of the stage."""
        ...

    def run(self) -> None:
        """Do it and write the results into `output`."""
        ...


@dataclass(kw_only=True)
class TableJob(abc.ABC):
    """A whole-pool job that gives small tables; what it computes can be computed again.

    Attributes:
        output: folder of the stage.
    """

    output: StageDir

    @abc.abstractmethod
    def compute(self) -> Computed:
        """Return the tables and the marker's summary; the same inputs give the same."""

    def run(self) -> None:
        """Compute, write, commit."""
        computed = self.compute()
        records = [
            self.output.write_table(name, shard_id, table)
            for (name, shard_id), table in computed.tables.items()
        ]
        self.output.commit(records, computed.summary)


@dataclass(frozen=True)
class Computed:
    """What a `TableJob` gives.

    Attributes:
        tables: (name, shard) -> rows.
        summary: of the marker.
    """

    tables: Mapping[tuple[str, int], pa.Table]
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Member:
    """One process of a group that works on a job together.

    Attributes:
        handle: RAFT handle that carries the group's communicator; None in a group of one.
    """

    rank: int = 0
    size: int = 1
    handle: Any = None


@runtime_checkable
class GpuJob(CallJob, Protocol):
    """A whole-pool job that may run on GPUs, each with a process of its own.

    Its `run` does all of it as a group of one, which is what an engine without GPUs calls.
    """

    @property
    def num_gpus(self) -> int:
        """Return the most GPUs that help; 0: none does."""
        ...

    def run_member(self, member: Member) -> Any:
        """Do one member's part; its result travels to where `finish` runs."""
        ...

    def finish(self, results: Sequence[Any]) -> None:
        """Write the results, one from each member in rank order, into `output`."""
        ...


@runtime_checkable
class TrainingJob(Protocol):
    """Training of one round; every worker calls `run` with its own context."""

    @property
    def name(self) -> str:
        """Return a name that is the same at every start."""
        ...

    @property
    def num_workers(self) -> int:
        """Return the training world size."""
        ...

    @property
    def min_workers(self) -> int:
        """Return the world size that will do while nodes are missing."""
        ...

    def run(self, context: Any) -> None:
        """Train, evaluate, and (rank 0) write and commit the results."""
        ...


@runtime_checkable
class Listener(Protocol):
    """Who hears about progress."""

    def on_training(self, progress: dict[str, Any]) -> None:
        """Hear of a finished epoch: phase, epoch, epochs, loss, learning_rate."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Runs jobs somewhere."""

    @property
    def device(self) -> str:
        """Return the device type of scoring and training, ``cpu`` or ``cuda``."""
        ...

    @property
    def most_training_workers(self) -> int:
        """Return how many training workers there is room for now, one at least."""
        ...

    def map_shards(self, job: ShardJob, shard_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Run a job over shards in any order; yield one manifest row per finished shard.

        The shard's files are written and whole before its row is yielded. A shard that
        fails yields a row with the key ``error``.
        """
        ...

    def call(self, job: CallJob) -> None:
        """Run a whole-pool job in one process; a `GpuJob` (K-means) on GPUs where there are."""
        ...

    def train(self, job: TrainingJob, listener: Listener) -> None:
        """Run a training job on its workers."""
        ...

    def close(self) -> None:
        """Give resources back."""
        ...
