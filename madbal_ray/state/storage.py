"""Folders on a disk or an object store, with writes that appear whole or not at all.

Local: a temporary file beside the target, fsync, rename, fsync of the folder. Object
stores: one PUT. Nothing in this package writes a file in any other way.

Longer than others: every way to a disk or a store in one place, with what is said when it fails.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs as pafs

from madbal_ray.config.section import check_address, holds_credentials
from madbal_ray.errors import ConfigError, IntegrityError, RunDirError
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.retries import tried

FILE_SCHEME = "file://"
TEMPORARY_PREFIX = "_tmp-"
STALE_SECONDS = 3600.0
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
"""How a file system says that it has no hard links; there a second writer may win."""

IN_FLIGHT = 64
"""Requests to an object store at once, where many files are read one after another."""


class Folder:
    """A folder named by a local path or a URI that `pyarrow.fs` understands (``s3://…``).

    Instances are cheap, picklable and hold no open handle.

    Raises:
        ConfigError: the address holds credentials, which files and messages would repeat.
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        text = os.fspath(uri)
        try:
            check_address(text)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self.is_local = "://" not in text or text.startswith(FILE_SCHEME)
        if self.is_local:
            text = str(Path(local_name(text)).absolute())
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
        if name.startswith(FILE_SCHEME):
            return local_name(name)
        return name if name.startswith("/") or "://" in name else f"{self.uri}/{name}"

    def _is_here(self, name: str) -> bool:
        """Tell whether a file lies on this machine's disks; an address may point elsewhere."""
        if name.startswith(FILE_SCHEME):
            return True
        return "://" not in name if self.is_local else name.startswith("/")

    def _remote(self, name: str = "") -> tuple[pafs.FileSystem, str]:
        scheme, _, rest = (self.file_uri(name) if name else self.uri).partition("://")
        return _filesystem(scheme, rest.partition("/")[0]), rest

    @contextmanager
    def told(self, done: str, name: str = "", *, makes: bool = False) -> Iterator[None]:
        """Turn a refusal of disk or store into a sentence.

        Args:
            makes: the file is made, so that a missing one is a refusal too; else it stays a
                FileNotFoundError.
        """
        where = self.file_uri(name) if name else self.uri
        try:
            yield
        except RunDirError:
            raise
        except FileNotFoundError as error:
            if makes:
                raise RunDirError(f"{where} cannot be {done} ({error.strerror or error})") from None
            raise
        except ValueError as error:  # a name that no file can have
            raise RunDirError(f"{where!r} cannot be {done}: {error}") from None
        except OSError as error:
            reason = error.strerror or " ".join(str(error).split())
            what_to_do = "free space or mend the permissions"
            if not self._is_here(name):
                what_to_do = (
                    "see that the bucket exists, that the network reaches it and that the "
                    "credentials in the environment allow it"
                )
            raise RunDirError(
                f"{where} cannot be {done} ({reason}); {what_to_do}, then start the same command "
                "again"
            ) from error

    def exists(self, name: str) -> bool:
        """Tell whether the file `name` is there."""
        with self.told("asked for", name):
            if self._is_here(name):
                return Path(self.file_uri(name)).is_file()
            return self._info(name).type == pafs.FileType.File

    def size(self, name: str) -> int | None:
        """Return the bytes of a file, None where there is none."""
        if self._is_here(name):
            try:
                return Path(self.file_uri(name)).stat().st_size
            except (OSError, ValueError):
                return None
        with self.told("asked for", name):
            info = self._info(name)
            return info.size if info.type == pafs.FileType.File else None

    def look(self, name: str) -> str | None:
        """Return size and times of a file, which a write changes; None where there is none."""
        if self._is_here(name):
            try:
                info = Path(self.file_uri(name)).stat()
            except (OSError, ValueError):
                return None
            return f"{info.st_size}-{info.st_mtime_ns}-{info.st_ctime_ns}"
        try:
            with self.told("asked for", name):
                return _look(self._info(name))
        except RunDirError:
            return None

    def _info(self, name: str) -> pafs.FileInfo:
        filesystem, path = self._remote(name)
        return tried(lambda: filesystem.get_file_info(path), self.file_uri(name))

    def _list(self) -> tuple[str, list[pafs.FileInfo]]:
        """Return this folder's path in its store, and what lies below it."""
        filesystem, path = self._remote()
        selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
        return path, tried(lambda: filesystem.get_file_info(selector), self.uri)

    def looks(self) -> Iterator[tuple[str, str]]:
        """Yield (path relative to this folder, look) of every file below it on a store."""
        with self.told("listed"):
            path, found = self._list()
            for info in found:
                look = _look(info)
                if look is not None:
                    yield info.path[len(path) :].lstrip("/"), look

    def open(self, name: str) -> Any:
        """Open a file for random reading (a `pyarrow.NativeFile`); errors are the store's own.

        On a disk, only a regular file is opened: a pipe would wait, a device would never end.
        """
        if self._is_here(name):
            path = self.file_uri(name)
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            return pa.OSFile(path, "rb")
        filesystem, path = self._remote(name)
        return filesystem.open_input_file(path)

    def read(self, name: str) -> bytes:
        """Return the whole content of a file; FileNotFoundError where there is none."""
        with self.told("read", name):
            return tried(lambda: self._read(name), self.file_uri(name))

    def _read(self, name: str) -> bytes:
        if self._is_here(name):
            return Path(self.file_uri(name)).read_bytes()
        with self.open(name) as handle:
            return handle.read()

    def write(self, name: str, data: bytes) -> None:
        """Make `name` hold `data`: at any moment it is the old content or the new, whole."""
        with self.told("written", name, makes=True):
            tried(lambda: self._write(name, data, os.replace), self.file_uri(name))

    def write_first(self, name: str, data: bytes) -> bool:
        """Write a file unless it is there; tell whether it was not.

        Of several writers on a disk exactly one is told so. A store writes, whatever is there: who
        calls has asked it.
        """
        if self._is_here(name) and self.exists(name):
            return False
        try:
            with self.told("written", name, makes=True):
                tried(lambda: self._write(name, data, _link), self.file_uri(name))
        except RunDirError as error:
            if isinstance(error.__cause__, FileExistsError):
                return False
            raise
        return True

    def _write(self, name: str, data: bytes, put: Callable[[Path, Path], None]) -> None:
        """Write a file whole.

        Args:
            put: gives a temporary file that is complete its name.
        """
        if not self.is_local:
            filesystem, path = self._remote(name)
            with filesystem.open_output_stream(path) as sink:
                sink.write(data)
            return
        target = Path(self.file_uri(name))
        temporary = target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-{target.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as sink:
                sink.write(data)
                sink.flush()
                os.fsync(sink.fileno())
                written = os.fstat(sink.fileno()).st_size
            if written != len(data):
                raise OSError(f"{written} of {len(data)} bytes arrived")
            put(temporary, target)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
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
        with self.told("appended to", name, makes=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "ab") as sink:
                if sink.tell() and not _ends_with_newline(target):
                    sink.write(b"\n")  # close a line that a crash tore
                sink.write(line.encode() + b"\n")

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
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                rows.append(row)
        return rows

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the JSON object in a file of this package.

        Raises:
            FileNotFoundError: there is none.
            IntegrityError: it holds something else.
        """
        try:
            value = json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise IntegrityError(f"{self.file_uri(name)} is damaged ({error})") from None
        if not isinstance(value, dict):
            raise IntegrityError(f"{self.file_uri(name)} is damaged (no JSON object)")
        return value

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is fine."""
        with self.told("deleted", name), suppress(FileNotFoundError):
            if self.is_local:
                Path(self.file_uri(name)).unlink(missing_ok=True)
                return
            filesystem, path = self._remote(name)
            filesystem.delete_file(path)

    def walk(self) -> Iterator[tuple[str, int]]:
        """Yield (path relative to this folder, bytes) of every file below it, sorted.

        On a disk, links to folders are followed.

        Raises:
            RunDirError: a folder cannot be listed: what it holds is not left out in silence.
        """
        with self.told("listed"):
            if self.is_local:
                start = len(self.uri.rstrip("/")) + 1
                files = [(path[start:], size) for path, size in _files_below(self.uri)]
            else:
                path, found = self._list()
                files = [
                    (info.path[len(path) :].lstrip("/"), info.size)
                    for info in found
                    if info.type == pafs.FileType.File
                ]
        yield from sorted(files)

    def why_empty(self) -> str:
        """Return why nothing is found below a folder, as a part of a sentence."""
        if not self.is_local:
            return "there is nothing of that kind"
        path = Path(self.uri)
        if not path.exists():
            return "it does not exist"
        if not path.is_dir():
            return "it is a file"
        if not os.access(path, os.R_OK | os.X_OK):
            return "this user may not read it: mend the permissions"
        return "it holds other files" if any(path.iterdir()) else "it is empty"

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


def _files_below(
    folder: str, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, int]]:
    """Yield (path, bytes) of every file below a folder; a link to one of `above` is passed over."""
    try:
        info = os.stat(folder)
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    here = (info.st_dev, info.st_ino)
    for entry in entries if here not in above else ():
        try:
            info = entry.stat()
        except OSError as error:  # a temporary file was renamed, or a link leads nowhere
            if error.errno in {errno.ENOENT, errno.ELOOP}:
                continue
            raise
        if stat.S_ISDIR(info.st_mode):
            yield from _files_below(entry.path, above | {here})
        elif stat.S_ISREG(info.st_mode):
            yield entry.path, info.st_size


def _link(temporary: Path, target: Path) -> None:
    """Give a file its name unless another has it, which raises FileExistsError."""
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.replace(temporary, target)
    else:
        temporary.unlink()


def _look(info: pafs.FileInfo) -> str | None:
    """Return size and time, in whole seconds: more is told by some listings and by no question."""
    is_file = info.type == pafs.FileType.File
    return f"{info.size}-{info.mtime_ns // 10**9}" if is_file else None


def local_name(address: str) -> str:
    """Return the path that a ``file://`` address stands for; a path stays itself."""
    if not address.startswith(FILE_SCHEME):
        return address
    return unquote(address.removeprefix(FILE_SCHEME).removeprefix("localhost"))


@functools.lru_cache(maxsize=16)
def _filesystem(scheme: str, bucket: str) -> pafs.FileSystem:
    """Return the file system of one bucket; credentials come from the environment."""
    if holds_credentials(f"{scheme}://{bucket}"):
        raise RunDirError("the address holds credentials; they belong into the environment")
    # Arrow's client holds no more connections than there are threads here, or 25.
    pa.set_io_thread_count(max(IN_FLIGHT, pa.io_thread_count()))
    # Opened when the first bytes come: else a small file is an upload in parts, three requests.
    options = "?allow_delayed_open=true" if scheme == "s3" else ""
    try:
        return pafs.FileSystem.from_uri(f"{scheme}://{bucket}{options}")[0]
    except (pa.ArrowException, ValueError, OSError) as error:
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
