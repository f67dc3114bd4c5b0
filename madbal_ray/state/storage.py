"""Folders on a disk or an object store, with writes that appear whole or not at all.

Local: a temporary file beside the target, fsync, rename, fsync of the folder. Object
stores: one PUT. Nothing in this package writes a file in any other way.
"""

from __future__ import annotations

import functools
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs as pafs

from madbal_ray.errors import RunDirError
from madbal_ray.state.ahead import map_ahead

TEMPORARY_PREFIX = "_tmp-"
STALE_SECONDS = 3600.0
IN_FLIGHT = 64
"""Requests to an object store at once, where many files are read one after another."""


class Folder:
    """A folder named by a local path or a URI that `pyarrow.fs` understands (``s3://…``).

    Instances are cheap, picklable and hold no open handle.
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        text = os.fspath(uri)
        self.is_local = "://" not in text or text.startswith("file://")
        if self.is_local:
            text = str(Path(text.removeprefix("file://")).absolute())
        self.uri = text.rstrip("/") or "/"

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.uri}/{name}")

    def __repr__(self) -> str:
        return f"Folder({self.uri!r})"

    def __str__(self) -> str:
        return self.uri

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Folder) and other.uri == self.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    @property
    def local_path(self) -> Path:
        """Return the path on this machine; raise RunDirError on an object store."""
        if not self.is_local:
            raise RunDirError(f"{self.uri} is not on a local file system")
        return Path(self.uri)

    def file_uri(self, name: str) -> str:
        """Return the address of a file in this folder; an absolute `name` stays itself."""
        return name if name.startswith("/") or "://" in name else f"{self.uri}/{name}"

    def _is_here(self, name: str) -> bool:
        """Tell whether a file lies on this machine's disks; an address may point elsewhere."""
        return "://" not in name if self.is_local else name.startswith("/")

    def _remote(self, name: str = "") -> tuple[pafs.FileSystem, str]:
        scheme, _, rest = (self.file_uri(name) if name else self.uri).partition("://")
        return _filesystem(scheme, rest.partition("/")[0]), rest

    @contextmanager
    def _told(self, done: str, name: str) -> Iterator[None]:
        """Turn a store's refusal into a sentence; a missing file stays FileNotFoundError."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise RunDirError(
                f"{self.file_uri(name) if name else self.uri} cannot be {done} ({error}); see that "
                "the bucket exists, that the network reaches it and that the credentials in the "
                "environment allow it, then start the same command again"
            ) from None

    def exists(self, name: str) -> bool:
        """Tell whether the file `name` is there."""
        if self._is_here(name):
            return Path(self.file_uri(name)).is_file()
        with self._told("asked for", name):
            filesystem, path = self._remote(name)
            return filesystem.get_file_info(path).type == pafs.FileType.File

    def size(self, name: str) -> int | None:
        """Return the bytes of a file, None where there is none."""
        if self._is_here(name):
            try:
                return Path(self.file_uri(name)).stat().st_size
            except OSError:
                return None
        with self._told("asked for", name):
            filesystem, path = self._remote(name)
            info = filesystem.get_file_info(path)
            return info.size if info.type == pafs.FileType.File else None

    def open(self, name: str) -> Any:
        """Open a file for random reading (a `pyarrow.NativeFile`); errors are the store's own."""
        if self._is_here(name):
            return pa.OSFile(self.file_uri(name), "rb")
        filesystem, path = self._remote(name)
        return filesystem.open_input_file(path)

    def read(self, name: str) -> bytes:
        """Return the whole content of a file; FileNotFoundError where there is none."""
        if self._is_here(name):
            return Path(self.file_uri(name)).read_bytes()
        with self._told("read", name), self.open(name) as handle:
            return handle.read()

    def write(self, name: str, data: bytes) -> None:
        """Make `name` hold `data`: at any moment it is the old content or the new, whole."""
        if not self.is_local:
            with self._told("written", name):
                filesystem, path = self._remote(name)
                with filesystem.open_output_stream(path) as sink:
                    sink.write(data)
            return
        target = Path(self.file_uri(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-{target.name}"
        try:
            with open(temporary, "xb") as sink:
                sink.write(data)
                sink.flush()
                os.fsync(sink.fileno())
                written = os.fstat(sink.fileno()).st_size
            if written != len(data):
                raise OSError(f"{written} of {len(data)} bytes arrived")
            os.replace(temporary, target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise RunDirError(
                f"cannot write {target}: {error.strerror or error}; free space or mend the "
                "permissions, then start the same command again"
            ) from error
        _sync_directory(target.parent)

    def append_line(self, name: str, line: str) -> None:
        """Append a line, or several joined by line ends; `read_lines` bears a torn last one.

        Object stores cannot append: there each call is an object of its own below ``name``.
        """
        if not self.is_local:
            moment = f"{time.time_ns():020d}-{secrets.token_hex(3)}"
            self.write(f"{name}/{moment}", line.encode())
            return
        target = self.local_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(target, "ab") as sink:
                if sink.tell() and not _ends_with_newline(target):
                    sink.write(b"\n")  # close a line that a crash tore
                sink.write(line.encode() + b"\n")
        except OSError as error:
            raise RunDirError(f"cannot append to {target}: {error.strerror or error}") from error

    def read_lines(self, name: str) -> list[str]:
        """Return what `append_line` wrote, in order; nothing where nothing was written."""
        if self.is_local:
            if not self.exists(name):
                return []
            return self.read(name).decode(errors="replace").splitlines()
        folder = self / name
        paths = [path for path, _ in folder.walk()]
        parts = map_ahead(folder.read, paths, threads=IN_FLIGHT, ahead=IN_FLIGHT)
        return [line for part in parts for line in part.decode(errors="replace").splitlines()]

    def read_json_lines(self, name: str) -> list[dict[str, Any]]:
        """Return the JSON objects that `append_line` wrote; a torn line is skipped."""
        rows = []
        for line in self.read_lines(name):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is fine."""
        if self.is_local:
            Path(self.file_uri(name)).unlink(missing_ok=True)
            return
        with self._told("deleted", name), suppress(FileNotFoundError):
            filesystem, path = self._remote(name)
            filesystem.delete_file(path)

    def walk(self) -> Iterator[tuple[str, int]]:
        """Yield (path relative to this folder, bytes) of every file below it, sorted."""
        if self.is_local:
            root = Path(self.uri)
            files = [
                (path.relative_to(root).as_posix(), path.stat().st_size)
                for path in root.rglob("*")
                if path.is_file()
            ]
        else:
            with self._told("listed", ""):
                filesystem, path = self._remote()
                selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
                files = [
                    (info.path[len(path) :].lstrip("/"), info.size)
                    for info in filesystem.get_file_info(selector)
                    if info.type == pafs.FileType.File
                ]
        yield from sorted(files)

    def remove_stale_temporaries(self) -> None:
        """Remove what killed writers left behind more than an hour ago."""
        if not self.is_local:
            return
        for path in Path(self.uri).rglob(f"{TEMPORARY_PREFIX}*"):
            try:
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue


@functools.lru_cache(maxsize=16)
def _filesystem(scheme: str, bucket: str) -> pafs.FileSystem:
    """Return the file system of one bucket; credentials come from the environment."""
    # Opened when the first bytes come: else a small file is an upload in parts, three requests.
    options = "?allow_delayed_open=true" if scheme == "s3" else ""
    try:
        return pafs.FileSystem.from_uri(f"{scheme}://{bucket}{options}")[0]
    except (pa.ArrowInvalid, OSError) as error:
        raise RunDirError(
            f"{scheme}://{bucket} cannot be opened ({error}); the address, the network and the "
            "credentials in the environment must fit"
        ) from None


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as handle:
        handle.seek(-1, os.SEEK_END)
        return handle.read(1) == b"\n"


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
