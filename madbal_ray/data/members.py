"""The one door for a user's files: images in files, archives and Parquet, and text lists.

An image URI may end in a fragment that says where in the file the image lies:
``shard-000.tar#offset=1536&length=20481`` or ``part-0.parquet#group=2&row=17``. Such a URI
is read by itself, without a listing, so any worker can read any image: a tar costs one
ranged read, a Parquet row one read of its row group (the last one is kept).

Sizes are checked before anything is read. What is wrong with one image is a `BadImageError`,
which quarantines it; what is wrong with an archive is a `DataError`; what a store refuses is an
`OSError`, which may heal.
"""

from __future__ import annotations

import functools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from madbal_ray.errors import BadImageError, DataError, one_line
from madbal_ray.state.storage import Folder

BYTES_COLUMNS = ("image", "bytes", "image_bytes")
URI_COLUMNS = ("image_uri", "uri", "url", "path")
ID_COLUMN = "image_id"
PLACE = re.compile(
    r"(?P<path>.+)#(?:offset=(?P<offset>\d{1,18})&length=(?P<length>\d{1,18})"
    r"|group=(?P<group>\d{1,9})&row=(?P<row>\d{1,18}))",
    re.DOTALL,
)
"""An address inside a file; any other ``#`` belongs to the file's name."""

KEPT_ROW_GROUPS = 4
"""Row groups kept in memory per process: reading on in order, and the one before; of two shards."""

MAX_ROW_GROUP_BYTES = 4 * 2**30
MAX_DOCUMENT_BYTES = 2**31
MAX_LIST_BYTES = 256 * 2**20

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")

_lock = threading.Lock()


@dataclass(frozen=True)
class Member:
    """One image of an archive.

    Attributes:
        uri: with a fragment, or of a file of its own (Parquet with URIs).
        num_bytes: of the encoded image, or of the whole Parquet file: what tells a change;
            None: not known without a look at the file.
    """

    image_id: str
    uri: str
    num_bytes: int | None


def file_of(uri: str) -> str:
    """Return the file that an image URI points into.

    >>> file_of("a/b.tar#offset=512&length=7"), file_of("c#1.png")
    ('a/b.tar', 'c#1.png')
    """
    address = PLACE.fullmatch(uri)
    return uri if address is None else address["path"]


def read_image_bytes(root: Folder, uri: str, *, max_bytes: int) -> bytes:
    """Return an encoded image; a URI without fragment is a file.

    Raises:
        BadImageError: larger than `max_bytes`, or there is no image at this address.
        OSError: the file cannot be read, or is shorter than its index says.
    """
    address = PLACE.fullmatch(uri)
    try:
        if address is None:
            with root.open(uri) as handle:  # the store's own errors, so that one image is retried
                _check_size(handle.size(), max_bytes)
                return handle.read()
        if address["offset"] is not None:
            offset, length = int(address["offset"]), int(address["length"])
            _check_size(length, max_bytes)
            with root.open(address["path"]) as handle:
                handle.seek(offset)
                data = handle.read(length)
            if len(data) != length:
                raise OSError(f"{address['path']} ends {length - len(data)} bytes early")
            return data
        return _parquet_value(
            root, address["path"], int(address["group"]), int(address["row"]), max_bytes
        )
    except (OSError, BadImageError):
        raise
    except (pa.ArrowException, ValueError, LookupError, TypeError, OverflowError) as error:
        raise BadImageError(f"holds no image that can be read ({one_line(error)})") from None


def _check_size(num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise BadImageError(f"{num_bytes} bytes, more than data.max_bytes = {max_bytes}")


def _parquet_value(root: Folder, path: str, group: int, row: int, max_bytes: int) -> bytes:
    with _lock:  # decoding threads read on in order: one loads, the others find it
        column = _image_column(root, path, group)
    value = None if column is None else column[row]
    if value is None or not value.is_valid:
        raise BadImageError(f"row {row} of row group {group} holds no image and no address")
    _check_size(value.as_buffer().size, max_bytes)
    return value.as_py()


@functools.lru_cache(maxsize=KEPT_ROW_GROUPS)
def _image_column(root: Folder, path: str, group: int) -> pa.ChunkedArray | None:
    """Return the images of a row group; None: the file holds addresses."""
    with root.open(path) as handle:
        file = pq.ParquetFile(handle, page_checksum_verification=True)
        name = _bytes_column(file.schema_arrow)
        if name is None:
            return None
        size = _uncompressed_bytes(file.metadata.row_group(group), name)
        if size > MAX_ROW_GROUP_BYTES:
            raise BadImageError(
                f"row group {group} unpacks to {size} bytes, more than {MAX_ROW_GROUP_BYTES}: "
                "write smaller row groups"
            )
        try:
            column = _read_few(file, group, [name])[name]
        except OSError as error:  # Parquet's own, of a damaged page; the file was opened
            raise BadImageError(f"row group {group} is damaged ({one_line(error)})") from None
    if pa.types.is_struct(column.type):
        return pa.chunked_array(
            [chunk.field("bytes") for chunk in column.chunks], column.type.field("bytes").type
        )
    return column


def forget_row_groups() -> None:
    """Forget what is kept of Parquet files, which may have been written anew."""
    _image_column.cache_clear()


def _uncompressed_bytes(group: Any, name: str) -> int:
    chunks = (group.column(index) for index in range(group.num_columns))
    return sum(
        chunk.total_uncompressed_size
        for chunk in chunks
        if chunk.path_in_schema.partition(".")[0] == name
    )


def read_document(root: Folder, name: str) -> Any:
    """Return what a JSON document holds, such as COCO's annotations.

    Raises:
        DataError: it is missing, too large or no JSON.
    """
    try:
        return json.loads(_bounded(root, name, MAX_DOCUMENT_BYTES))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{root}/{name} is no JSON: {error}") from None


def _bounded(root: Folder, name: str, most: int) -> bytes:
    size = root.size(name)
    if size is None:
        raise DataError(f"{root}/{name} is missing")
    if size > most:
        raise DataError(f"{root}/{name} has {size} bytes, more than such a file may: {most}")
    return root.read(name)


def read_lines(root: Folder, name: str) -> list[str]:
    """Return the lines of a text list: classes, or images of a split.

    Raises:
        DataError: it is missing, too large or not UTF-8.
    """
    where = f"{root}/{name}"
    try:
        text = _bounded(root, name, MAX_LIST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    return text.splitlines()


@contextmanager
def archive_errors(root: Folder, path: str, found: str) -> Iterator[None]:
    """Turn what a library raises on a damaged archive into one sentence."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # foreign bytes: tarfile and Arrow raise anything
        raise DataError(
            f"{root.file_uri(path)} is {found} ({one_line(error)}); copy it again, or remove it "
            "from the pool"
        ) from None


def list_parquet(root: Folder, path: str) -> Iterator[Member]:
    """Yield the images of a Parquet file: bytes, or URIs of files.

    Bytes: a binary column ``image``, ``bytes`` or ``image_bytes``, or a struct of that name
    with a field ``bytes``. Ids: column ``image_id``, else ``<file>/<row, nine digits>``.

    Raises:
        DataError: no Parquet, or none of the columns, or one of them twice.
    """
    size = root.size(path)
    with archive_errors(root, path, "no readable Parquet file"), root.open(path) as handle:
        file = pq.ParquetFile(handle, page_checksum_verification=True)
        schema = file.schema_arrow
        where, known = root.file_uri(path), (*BYTES_COLUMNS, *URI_COLUMNS, ID_COLUMN)
        twice = [name for name in known if schema.names.count(name) > 1]
        if twice:
            raise DataError(f"{where} has several columns {twice[0]!r}; leave one of them")
        bytes_name = _bytes_column(schema)
        uri_name = _first(URI_COLUMNS, schema)
        if bytes_name is None and uri_name is None:
            raise DataError(
                f"{where} has columns {', '.join(schema.names)[:400]}; expected image bytes in one "
                f"of {', '.join(BYTES_COLUMNS)}, or addresses in one of {', '.join(URI_COLUMNS)}"
            )
        wanted = [ID_COLUMN] if ID_COLUMN in schema.names else []
        wanted += [uri_name] if bytes_name is None and uri_name is not None else []
        start = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            table = _read_few(file, group, wanted) if wanted else None
            if table is not None and table.num_rows != count:
                raise DataError(
                    f"{where}: row group {group} holds {table.num_rows} rows and declares {count}"
                )
            for row in range(count):
                number = f"{path}/{start + row:09d}"
                image_id = _text(table, ID_COLUMN, row) if ID_COLUMN in wanted else None
                uri = None if bytes_name is not None else _text(table, uri_name, row)
                is_own_file = uri is not None
                yield Member(
                    image_id or number,
                    uri if uri is not None else f"{path}#group={group}&row={row}",
                    None if is_own_file else size,
                )
            start += count
        if start != file.metadata.num_rows:
            raise DataError(
                f"{where} declares {file.metadata.num_rows} rows, its row groups hold {start}; "
                "copy it again, or remove it from the pool"
            )


def _read_few(file: pq.ParquetFile, group: int, names: list[str]) -> pa.Table:
    """Read columns of a row group by this thread alone: a damaged page leaves no other waiting."""
    return file.read_row_group(group, columns=names, use_threads=False)


def _text(table: pa.Table | None, name: str | None, row: int) -> str | None:
    """Return a cell as text, None where it is null or empty."""
    assert table is not None
    value = table[name][row].as_py()
    return None if value is None or value == "" else str(value)


def _bytes_column(schema: pa.Schema) -> str | None:
    """Return the first of `BYTES_COLUMNS` that holds bytes."""
    for name in BYTES_COLUMNS:
        if name not in schema.names:
            continue
        dtype = schema.field(schema.names.index(name)).type
        if pa.types.is_struct(dtype) and dtype.get_field_index("bytes") >= 0:
            dtype = dtype.field("bytes").type
        if pa.types.is_binary(dtype) or pa.types.is_large_binary(dtype):
            return name
    return None


def _first(names: tuple[str, ...], schema: pa.Schema) -> str | None:
    return next((name for name in names if name in schema.names), None)
