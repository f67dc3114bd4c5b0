"""Images inside larger files: WebDataset tars and Parquet with image bytes.

An image URI may end in a fragment that says where in the file the image lies:
``shard-000.tar#offset=1536&length=20481`` or ``part-0.parquet#group=2&row=17``. Such a URI
is read by itself, without a listing, so any worker can read any image: a tar costs one
ranged read, a Parquet row one read of its row group (the last one is kept).
"""

from __future__ import annotations

import functools
import re
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from madbal_ray.errors import DataError
from madbal_ray.state.storage import Folder

BYTES_COLUMNS = ("image", "bytes", "image_bytes")
URI_COLUMNS = ("image_uri", "uri", "url", "path")
ID_COLUMN = "image_id"
PLACE = re.compile(
    r"(?P<path>.+)#(?:offset=(?P<offset>\d+)&length=(?P<length>\d+)|group=(?P<group>\d+)&row=(?P<row>\d+))",
    re.DOTALL,
)
"""An address inside a file; any other ``#`` belongs to the file's name."""

KEPT_ROW_GROUPS = 2
"""Row groups kept in memory per process: reading on in order, and the one before."""

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


def read_image_bytes(root: Folder, uri: str) -> bytes:
    """Return an encoded image; a URI without fragment is a file.

    Raises:
        OSError: the file cannot be read, or is shorter than its index says.
    """
    address = PLACE.fullmatch(uri)
    if address is None:
        with root.open(uri) as handle:  # the store's own errors, so that one image is retried
            return handle.read()
    path = address["path"]
    place = {
        key: int(value) for key, value in address.groupdict().items() if value and key != "path"
    }
    if "offset" in place:
        with root.open(path) as handle:
            handle.seek(place["offset"])
            data = handle.read(place["length"])
        if len(data) != place["length"]:
            raise OSError(f"{path} ends {place['length'] - len(data)} bytes early")
        return data
    with _lock:  # decoding threads read on in order: one loads, the others find it
        column = _image_column(root, path, place["group"])
    value = column[place["row"]].as_py()
    if value is None:
        raise OSError(f"row {place['row']} of row group {place['group']} holds no image")
    return value


@functools.lru_cache(maxsize=KEPT_ROW_GROUPS)
def _image_column(root: Folder, path: str, group: int) -> pa.ChunkedArray:
    with root.open(path) as handle:
        file = pq.ParquetFile(handle)
        name = _bytes_column(file.schema_arrow)
        assert name is not None
        column = file.read_row_group(group, columns=[name])[name]
    if pa.types.is_struct(column.type):
        return pa.chunked_array([chunk.field("bytes") for chunk in column.chunks])
    return column


def list_tar(root: Folder, path: str, suffixes: set[str]) -> Iterator[Member]:
    """Yield the images of a tar; reads its headers only.

    Raises:
        DataError: the tar is cut off or no tar.
    """
    size = root.size(path) or 0
    try:
        with root.open(path) as handle, tarfile.open(fileobj=handle, mode="r:") as archive:
            for entry in archive:
                suffix = "." + entry.name.rpartition(".")[2].lower()
                if not entry.isfile() or suffix not in suffixes:
                    continue
                if entry.offset_data + entry.size > size:
                    raise tarfile.ReadError("unexpected end of data")
                yield Member(
                    entry.name,
                    f"{path}#offset={entry.offset_data}&length={entry.size}",
                    entry.size,
                )
            end = archive.offset
    except tarfile.TarError as error:
        raise DataError(
            f"{root.file_uri(path)} is cut off or no tar ({error}); copy it again, or remove it "
            "from the pool"
        ) from None
    if end > size:
        raise DataError(
            f"{root.file_uri(path)} is cut off: {size} bytes where its last entry ends at {end}; "
            "copy it again, or remove it from the pool"
        )


def list_parquet(root: Folder, path: str) -> Iterator[Member]:
    """Yield the images of a Parquet file: bytes, or URIs of files.

    Bytes: a binary column ``image``, ``bytes`` or ``image_bytes``, or a struct of that name
    with a field ``bytes``. Ids: column ``image_id``, else ``<file>/<row, nine digits>``.

    Raises:
        DataError: no Parquet, or none of the columns.
    """
    size = root.size(path)
    try:
        with root.open(path) as handle:
            file = pq.ParquetFile(handle)
            schema = file.schema_arrow
            bytes_name = _bytes_column(schema)
            uri_name = _first(URI_COLUMNS, schema)
            if bytes_name is None and uri_name is None:
                raise DataError(
                    f"{root.file_uri(path)} has columns {', '.join(schema.names)}; expected image "
                    f"bytes in one of {', '.join(BYTES_COLUMNS)}, or addresses in one of "
                    f"{', '.join(URI_COLUMNS)}"
                )
            wanted = [ID_COLUMN] if ID_COLUMN in schema.names else []
            wanted += [uri_name] if bytes_name is None and uri_name is not None else []
            start = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                table = file.read_row_group(group, columns=wanted) if wanted else None
                for row in range(count):
                    image_id = f"{path}/{start + row:09d}"
                    if table is not None and ID_COLUMN in wanted:
                        image_id = str(table[ID_COLUMN][row].as_py())
                    if bytes_name is not None:
                        yield Member(image_id, f"{path}#group={group}&row={row}", size)
                    else:
                        assert table is not None
                        yield Member(image_id, str(table[uri_name][row].as_py()), None)
                start += count
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{root.file_uri(path)} is no readable Parquet file ({error}); copy it again, or "
            "remove it from the pool"
        ) from None


def _bytes_column(schema: pa.Schema) -> str | None:
    """Return the first of `BYTES_COLUMNS` that holds bytes."""
    for name in BYTES_COLUMNS:
        if name not in schema.names:
            continue
        dtype = schema.field(name).type
        if pa.types.is_struct(dtype) and dtype.get_field_index("bytes") >= 0:
            return name
        if pa.types.is_binary(dtype) or pa.types.is_large_binary(dtype):
            return name
    return None


def _first(names: tuple[str, ...], schema: pa.Schema) -> str | None:
    return next((name for name in names if name in schema.names), None)
