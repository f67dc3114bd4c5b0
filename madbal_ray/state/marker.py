"""What a finished stage promises, as values: files with hashes, settings, inputs, a digest."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value (sorted keys, no spaces)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_each(values: Iterable[Any]) -> tuple[int, str]:
    """Return the length of a list and its `digest`; the list is never in memory.

    >>> digest_each(iter([{"a": 1}, 2])) == (2, digest([{"a": 1}, 2]))
    True
    """
    hasher, count = hashlib.sha256(b"["), 0
    for value in values:
        hasher.update(b"," * bool(count) + canonical_json(value).encode())
        count += 1
    hasher.update(b"]")
    return count, hasher.hexdigest()


@dataclass(frozen=True)
class FileRecord:
    """A finished file: path relative to the stage folder, rows (-1: not a table), bytes."""

    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Marker:
    """What a finished stage promises; holds no timing and no host fact."""

    stage: str
    key: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    files: tuple[FileRecord, ...]
    summary: Mapping[str, Any]
    revision: int = 0

    @functools.cached_property
    def digest(self) -> str:
        """Return the hash that stages downstream put into their keys."""
        return digest(self._values())

    def _values(self) -> dict[str, Any]:
        values = asdict(self)
        if not self.revision:  # made before there were revisions; its digest stays
            del values["revision"]
        return values

    @functools.cached_property
    def paths(self) -> Mapping[str, FileRecord]:
        """Return the files by path."""
        return {record.path: record for record in self.files}

    def to_json(self) -> bytes:
        """Return the marker file's content."""
        return (json.dumps(self._values(), indent=1, sort_keys=True) + "\n").encode()

    @staticmethod
    def from_json(data: bytes) -> Marker:
        """Parse a marker file."""
        values = json.loads(data)
        files = tuple(FileRecord(**record) for record in values.pop("files"))
        return Marker(files=files, **values)
