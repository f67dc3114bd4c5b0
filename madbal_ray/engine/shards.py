"""Decode, stage, write, manifest row: what both engines do with a shard."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from madbal_ray import errors
from madbal_ray.engine.contract import (
    Engine,
    ShardJob,
    StreamedJob,
    WritesBeside,
    written_row,
)
from madbal_ray.state import notices, tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.marker import FileRecord, Marker
from madbal_ray.state.notes import Notes
from madbal_ray.state.stage_dir import table_path
from madbal_ray.state.storage import IN_FLIGHT

KIBIBYTE = 1024


class ShardWorker:
    """Runs shards of one job in one process.

    A shard is loaded, computed, written. `compute` belongs to the thread that made the worker;
    the other two may run in any, so that the device has no need to wait for the store.
    """

    def __init__(self, job: ShardJob) -> None:
        self.job = job
        job.setup()

    def run(self, shard_id: int) -> dict[str, Any]:
        """Load, compute and write one shard; return its manifest row.

        A `MadbalError` becomes a row with ``error``, so that one bad shard does not take
        the others down; any other exception is a defect and is raised.
        """
        return self.write(self.compute(self.load(shard_id)))

    def run_all(self, shard_ids: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Yield the rows of shards in order; the next is loaded meanwhile, the last written."""
        loaded = map_ahead(self.load, shard_ids, threads=1, ahead=1)
        yield from map_ahead(self.write, map(self.compute, loaded), threads=1, ahead=1)

    def load(self, shard_id: int) -> Shard:
        """Read what a shard needs, as far as its job can do so beforehand."""
        shard = Shard(shard_id, time.perf_counter())
        if isinstance(self.job, StreamedJob):
            with shard.failing():
                shard.loaded = self.job.load(shard_id)
        return shard

    def compute(self, shard: Shard) -> Shard:
        """Compute a shard's tables."""
        with shard.failing():
            if shard.error is None and isinstance(self.job, StreamedJob):
                loaded, shard.loaded = shard.loaded, None  # two shards are enough in memory
                shard.tables = self.job.compute(shard.shard_id, loaded)
            elif shard.error is None:
                shard.tables = self.job.run(shard.shard_id)
        return shard

    def write(self, shard: Shard) -> dict[str, Any]:
        """Write a shard's tables; return its manifest row."""
        files = []
        with shard.failing():
            for name, table in shard.tables.items():
                files.append(self.job.output.write_table(name, shard.shard_id, table))
        if shard.error is not None:
            return {"shard_id": shard.shard_id, "error": errors.pack(shard.error)}
        row = {
            "shard_id": shard.shard_id,
            "files": [vars(record) for record in files],
            "counts": self.job.count(shard.tables),
            "seconds": round(time.perf_counter() - shard.started, 3),
            "peak_memory": peak_memory(),
        }
        beside = self.job.beside(shard.shard_id) if isinstance(self.job, WritesBeside) else None
        row |= {"beside": beside} if beside is not None else {}
        noted = notices.take()  # of this process: shards side by side share them
        return row | ({"notices": noted} if noted else {})


@dataclass
class Shard:
    """A shard on its way through a worker.

    Attributes:
        started: by the clock of this process.
        error: of ours, which ends its way.
    """

    shard_id: int
    started: float
    loaded: Any = None
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    error: errors.MadbalError | None = None

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Keep an error of ours; any other is a defect."""
        try:
            yield
        except errors.MadbalError as error:
            self.error, self.tables = error, {}


def peak_memory() -> int:
    """Return the most memory this process ever held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIBIBYTE


def complete_stage(
    engine: Engine,
    job: ShardJob,
    shard_ids: Sequence[int],
    *,
    on_row: Callable[[dict[str, Any]], None],
) -> Marker:
    """Run what is missing of a stage and commit it.

    Args:
        on_row: hears every manifest row, those of earlier starts included.

    Raises:
        MadbalError: shards failed; the first error is shown. Finished shards are kept.
    """
    stage = job.output
    done = _finished_shards(job, shard_ids)
    for row in done.values():
        on_row(row)
    missing = [shard_id for shard_id in shard_ids if shard_id not in done]
    failed = []
    notes = Notes(stage)
    later = Notes(job.beside_output) if isinstance(job, WritesBeside) else None
    try:
        for row in engine.map_shards(job, missing) if missing else ():
            beside = row.pop("beside", None)
            if later is not None and beside is not None:
                later.add(beside)
            if "error" in row:
                failed.append(row)
                continue
            notes.add(row)
            done[row["shard_id"]] = row
            on_row(row)
    finally:
        if later is not None:
            later.flush()
        if len(done) < len(shard_ids):  # else the marker says it all
            notes.flush()
    if failed:
        _raise_first(stage.stage, failed, len(shard_ids))
    files = [FileRecord(**record) for row in done.values() for record in row["files"]]
    counts = {str(shard_id): done[shard_id]["counts"] for shard_id in sorted(done)}
    return stage.commit(files, {"shards": counts})


def _finished_shards(job: ShardJob, shard_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return manifest rows of shards whose files are whole, from the manifest or the files."""
    stage = job.output
    found = dict(stage.folder.walk())  # one listing, not a question for each file
    if not found:
        return {}
    noted = {row["shard_id"]: row for row in stage.read_manifest() if "files" in row}
    done, unnoted = {}, []
    for shard_id in shard_ids:
        row = noted.get(shard_id)
        if row is not None and all(found.get(f["path"]) == f["bytes"] for f in row["files"]):
            done[shard_id] = row
        elif all(table_path(name, shard_id) in found for name in job.table_names):
            unnoted.append(shard_id)
    threads = 1 if stage.folder.is_local else IN_FLIGHT
    adopted = map_ahead(partial(_adopt_shard, job), unnoted, threads=threads, ahead=threads)
    done |= {row["shard_id"]: row for row in adopted if row is not None}
    return done


def _adopt_shard(job: ShardJob, shard_id: int) -> dict[str, Any] | None:
    """Return the row of a shard that was written whole but not noted, else None."""
    paths = {name: table_path(name, shard_id) for name in job.table_names}
    records = [job.output.adopt(path) for path in paths.values()]
    if any(record is None for record in records):
        return None
    folder = job.output.folder
    adopted = {
        name: tables.decode(name, pa.BufferReader(folder.read(path)))
        for name, path in paths.items()
    }
    whole = [record for record in records if record is not None]
    return written_row(shard_id, whole, job.count(adopted))


def _raise_first(stage: str, rows: Sequence[dict[str, Any]], total: int) -> None:
    """Raise the error of the first failed shard, or how many answers all of them wait for."""
    packed = [row["error"] for row in sorted(rows, key=lambda row: row["shard_id"])]
    failures = [errors.unpack(error) for error in packed]
    pending = [error for error in failures if isinstance(error, errors.AnswersPending)]
    if len(pending) == len(failures):
        raise errors.AnswersPending(str(pending[0]), sum(error.count for error in pending))
    index = next(i for i, error in enumerate(failures) if error not in pending)
    more = f" ({len(rows)} of {total} shards failed)" if len(rows) > 1 else ""
    shard_id = sorted(row["shard_id"] for row in rows)[index]
    raise type(failures[index])(f"stage {stage}, shard {shard_id}{more}: {failures[index]}")
