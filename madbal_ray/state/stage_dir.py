"""One stage's folder: its key, its files, its marker.

A stage owns ``<parent>/<stage>/<key>/``. The key is a hash of the stage's revision and
settings, the schema version and the markers of its inputs. Files have deterministic names, appear
whole and may be written twice; ``_DONE.json`` comes last and names every file with its
sha256. Readers enter through the marker and never list the folder. ``_manifest.jsonl``
is a hint about finished shards: a torn last line is ignored, and a file that it does not
name is adopted when its footer carries the key.

Longer than others: all that keeps a stage's files what they were when they were written.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from madbal_ray.errors import ConfigError, IntegrityError, one_line
from madbal_ray.state import tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.marker import FileRecord, Marker, canonical_json, digest
from madbal_ray.state.retries import tried
from madbal_ray.state.stages import STAGES
from madbal_ray.state.storage import IN_FLIGHT, Folder

MARKER_NAME = "_DONE.json"
MANIFEST_NAME = "_manifest.jsonl"
SUFFIX = ".parquet"
WHOLE_BYTES = 2**23
"""Tables up to this size are read from an object store as a whole."""

KEPT_FILES = 1_000_000

_hashed: set[int] = set()
"""Files whose contents this process has compared with their markers since its start."""


def forget_hashed() -> None:
    """Let every file be hashed once more: a start begins."""
    _hashed.clear()


@dataclass(frozen=True)
class StageDir:
    """The folder of one stage under one key."""

    folder: Folder
    stage: str
    key: str
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)
    inputs: Mapping[str, str] = field(default_factory=dict, compare=False)

    @staticmethod
    def plan(
        parent: Folder, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str]
    ) -> StageDir:
        """Name the folder of a stage from all that its result depends on.

        Args:
            parent: folder of the pool or of a round.
            settings: JSON values; result settings only, no absolute path.
            inputs: name of each input -> its marker's digest.
        """
        identity = {
            "stage": stage,
            "revision": revision_of(stage),
            "schema_version": tables.SCHEMA_VERSION,
            "settings": settings,
            "inputs": inputs,
        }
        key = digest(identity)[:12]
        return StageDir(parent / stage / key, stage, key, settings, inputs)

    @property
    def is_done(self) -> bool:
        """Tell whether the marker is there."""
        return self.folder.exists(MARKER_NAME)

    def marker(self) -> Marker:
        """Read the marker; IntegrityError where there is none or it is not this stage's."""
        return _markers.read(self)

    def digest(self) -> str:
        """Return the marker's digest, the identity of a finished stage."""
        return _markers.digest(self)

    def write_table(self, name: str, shard_id: int, table: pa.Table) -> FileRecord:
        """Write one shard of a table under its deterministic name."""
        return self.write_file(
            table_path(name, shard_id), tables.encode(name, table, key=self.key), table.num_rows
        )

    def write_file(self, path: str, data: bytes, rows: int = -1) -> FileRecord:
        """Write one file whole."""
        self.folder.write(path, data)
        return FileRecord(path, rows, len(data), hashlib.sha256(data).hexdigest())

    def commit(self, files: Iterable[FileRecord], summary: Mapping[str, Any]) -> Marker:
        """Write the marker, last; the first marker wins.

        Raises:
            IntegrityError: a file that the marker would promise is not there.
        """
        if self.is_done:
            return self.marker()
        records = tuple(sorted(files, key=lambda record: record.path))
        if self.folder.is_local:  # an object store has said yes to each
            self._check_files(records)
        marker = Marker(
            stage=self.stage,
            key=self.key,
            settings=dict(self.settings),
            inputs=dict(self.inputs),
            files=records,
            summary=dict(summary),
            revision=revision_of(self.stage),
        )
        is_first = self.folder.write_first(MARKER_NAME, marker.to_json())
        self.folder.remove_stale_temporaries()
        return marker if is_first else self.marker()

    def _check_files(self, records: Iterable[FileRecord]) -> None:
        found = dict(self.folder.walk())  # one listing, not a question for each file
        for record in records:
            if record.path not in found:
                raise IntegrityError(f"{self.folder}/{record.path} vanished before the commit")
            if found[record.path] != record.bytes:
                raise IntegrityError(
                    f"{self.folder}/{record.path} has {found[record.path]} bytes, {record.bytes} "
                    "were written: something else writes into this folder"
                )

    def read_table(
        self,
        name: str,
        shard_ids: Sequence[int] | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Read shards of a finished table; all of them where `shard_ids` is None.

        A shard that the marker does not name is empty; one without rows is not opened.
        """
        paths = self.marker().paths
        if shard_ids is None:
            wanted = [path for path in sorted(paths) if path.startswith(f"{name}/")]
        else:
            wanted = [path for i in shard_ids if (path := table_path(name, i)) in paths]
        wanted = [path for path in wanted if paths[path].rows]
        shards = list(self._ahead(lambda path: self._decode(name, paths[path], columns), wanted))
        if not shards and columns is not None:
            return tables.empty(name).select(list(columns))
        return tables.concat(name, shards)

    def each_table(
        self, name: str, shard_ids: Sequence[int], columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Yield shards of a finished table in the order given.

        From an object store up to `IN_FLIGHT` of them are fetched ahead, so they should be small.
        """
        return self._ahead(lambda i: self.read_table(name, [i], columns), shard_ids)

    def _ahead(self, read: Callable[[Any], pa.Table], items: Sequence[Any]) -> Iterator[pa.Table]:
        if self.folder.is_local or len(items) < 2:
            return map(read, items)
        return map_ahead(read, items, threads=IN_FLIGHT, ahead=IN_FLIGHT)

    def read_file(self, path: str) -> bytes:
        """Return a finished stage's file, which holds what its marker promises.

        Raises:
            IntegrityError: it does not, or the marker does not name it.
        """
        record = self.marker().paths.get(path)
        if record is None:
            raise IntegrityError(f"{self.folder}/{MARKER_NAME} names no file {path}")
        try:
            data = self.folder.read(path)
        except FileNotFoundError:
            raise IntegrityError(f"{self.folder}/{path} is missing") from None
        self._check(record, lambda: hashlib.sha256(data))
        return data

    def check_once(self, path: str) -> None:
        """Hash a finished stage's file on a disk, unless this process has since its start.

        Raises:
            IntegrityError: it holds something else than its marker promises.
        """
        record = self.marker().paths.get(path)
        if record is not None and self.folder.is_local:
            self._check(record, lambda: self._hash(path))

    def _hash(self, path: str) -> Any:
        with self.folder.open(path) as handle:
            return hashlib.file_digest(handle, "sha256")

    def _check(self, record: FileRecord, hashed: Callable[[], Any]) -> None:
        place = hash((self.folder.uri, record.path, record.sha256))
        if place in _hashed:
            return
        if hashed().hexdigest() != record.sha256:
            raise IntegrityError(
                f"{self.folder}/{record.path} is damaged: it holds something else than was written "
                f"({MARKER_NAME} has the sha256); restore it from a copy, or start another run"
            )
        _hashed.add(place)

    def _decode(self, name: str, record: FileRecord, columns: Sequence[str] | None) -> pa.Table:
        where = f"{self.folder}/{record.path}"
        try:
            with self.folder.told("read", record.path):
                return tried(lambda: self._decode_once(name, record, columns), where)
        except FileNotFoundError:
            raise IntegrityError(f"{where} is missing") from None

    def _decode_once(
        self, name: str, record: FileRecord, columns: Sequence[str] | None
    ) -> pa.Table:
        is_streamed = not self.folder.is_local and record.bytes > WHOLE_BYTES
        if is_streamed:
            source = self.folder.open(record.path)
        elif self.folder.is_local:
            self._check(record, lambda: self._hash(record.path))
            source = self.folder.open(record.path)
        else:  # whole: not footer first, columns then
            data = self.folder.read(record.path)
            self._check(record, lambda: hashlib.sha256(data))
            source = pa.BufferReader(data)
        try:
            return tables.decode(name, source, columns=columns)
        except (pa.ArrowException, OSError) as error:
            # Arrow tells of a damaged page by an OSError too, but without a number.
            is_of_disk = isinstance(error, OSError) and (error.errno or is_streamed)
            if is_of_disk or isinstance(error, IntegrityError):
                raise
            where = f"{self.folder}/{record.path}"
            raise IntegrityError(f"{where} is damaged ({one_line(error)})") from None

    def shards_with(self, name: str) -> list[int]:
        """Return the shards of a finished table that hold rows, in order; no file is opened."""
        paths, prefix = self.marker().paths, f"{name}/"
        return sorted(
            int(path[len(prefix) : -len(SUFFIX)])
            for path, record in paths.items()
            if path.startswith(prefix) and record.rows
        )

    def append_manifest(self, *rows: Mapping[str, Any]) -> None:
        """Note finished shards."""
        self.folder.append_line(MANIFEST_NAME, "\n".join(canonical_json(row) for row in rows))

    def read_manifest(self) -> list[dict[str, Any]]:
        """Return the finished shards noted so far; a torn line ends nothing and is skipped."""
        return self.folder.read_json_lines(MANIFEST_NAME)

    def adopt(self, path: str) -> FileRecord | None:
        """Return the record of a file that is whole and carries this key, else None."""
        if not self.folder.exists(path):
            return None
        data = self.folder.read(path)
        if tables.footer_key(pa.BufferReader(data)) != self.key:
            return None
        rows = tables.count_rows(pa.BufferReader(data))
        return FileRecord(path, rows, len(data), hashlib.sha256(data).hexdigest())

    def verify_files(self) -> str | None:
        """Return what differs from the marker's promise first, None where all is well."""
        for record in _parse_marker(self).files:
            if not self.folder.exists(record.path):
                return f"{self.folder}/{record.path} is missing"
            sha256 = hashlib.sha256(self.folder.read(record.path)).hexdigest()
            if sha256 != record.sha256:
                promised = f"the marker says {record.sha256[:12]}..."
                return f"{self.folder}/{record.path}: sha256 {sha256[:12]}..., {promised}"
        return None


def revision_of(stage: str) -> int:
    """Return a stage's revision in the catalogue.

    Raises:
        ConfigError: the catalogue does not know the stage.
    """
    if stage not in STAGES:
        raise ConfigError(
            f"stage {stage!r} is not in the catalogue; enter it with "
            "madbal_ray.state.stages.add_stage"
        )
    return STAGES[stage].revision


def digests(*inputs: StageDir) -> dict[str, str]:
    """Return what a stage that reads these finished stages puts into its key."""
    return {stage.stage: stage.digest() for stage in inputs}


def total_of(stage: StageDir, name: str) -> int:
    """Add up what the shards of a finished stage counted; a shard without any may leave it out."""
    return sum(counts.get(name, 0) for counts in stage.marker().summary["shards"].values())


def table_path(name: str, shard_id: int) -> str:
    """Return the path of a table's shard inside a stage folder."""
    return f"{name}/{shard_id:05d}{SUFFIX}"


def _parse_marker(stage_dir: StageDir) -> Marker:
    try:
        marker = Marker.from_json(stage_dir.folder.read(MARKER_NAME))
    except FileNotFoundError:
        raise IntegrityError(
            f"{stage_dir.folder} has no {MARKER_NAME}: the stage is not finished"
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{stage_dir.folder}/{MARKER_NAME} is damaged: {error}") from None
    if marker.key != stage_dir.key:
        raise IntegrityError(
            f"{stage_dir.folder}/{MARKER_NAME} has key {marker.key}, expected {stage_dir.key}"
        )
    return marker


class _Markers:
    """Parsed markers, those used last: of at most `KEPT_FILES` files together.

    A marker of 20,000 shards takes 10 MB; a run of many rounds has hundreds of them.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[StageDir, Marker] = OrderedDict()
        self._held = 0  # their files
        self._digests: dict[StageDir, str] = {}
        self._lock = threading.Lock()

    def read(self, stage: StageDir) -> Marker:
        with self._lock:
            if stage in self._kept:
                self._kept.move_to_end(stage)
                return self._kept[stage]
            marker = self._kept[stage] = _parse_marker(stage)
            self._held += len(marker.files)
            while self._held > KEPT_FILES and len(self._kept) > 1:
                self._held -= len(self._kept.popitem(last=False)[1].files)
            return marker

    def digest(self, stage: StageDir) -> str:
        if stage not in self._digests:
            self._digests[stage] = self.read(stage).digest
        return self._digests[stage]

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._held = 0
            self._digests.clear()


_markers = _Markers()
