"""WebDataset tars: listed by their headers, and only when they end whole."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Any

from madbal_ray.data.members import Member, archive_errors
from madbal_ray.state.storage import Folder

MAX_HEADER_BYTES = 2**20
"""Of one header of a tar, its long names and attributes included."""

BLOCK = 512
END_BLOCKS = 2
"""Blocks of zeros that end a tar."""


class _Headers:
    """What `tarfile` reads headers through: never more than a header may have."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.tell, self.seek = handle.tell, handle.seek

    def read(self, size: int) -> bytes:
        """Read some bytes of a header."""
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes at byte {self.tell()}")
        return self.handle.read(size)


def list_tar(root: Folder, path: str, suffixes: set[str]) -> Iterator[Member]:
    """Yield the images of a tar; reads its headers only. macOS's ``._*`` files are left out.

    Raises:
        DataError: the tar is damaged, cut off, several in one, or no tar; the offset is named.
    """
    size = root.size(path) or 0
    with archive_errors(root, path, "damaged, cut off or no tar"), root.open(path) as handle:
        headers: Any = _Headers(handle)
        with tarfile.open(fileobj=headers, mode="r:") as archive:
            for entry in archive:
                if entry.size < 0 or archive.offset <= entry.offset:
                    raise tarfile.ReadError(f"an impossible entry at byte {entry.offset}")
                if archive.offset > size or entry.offset_data + entry.size > size:
                    raise tarfile.ReadError(
                        f"{size} bytes, where the entry at byte {entry.offset} ends at "
                        f"{entry.offset_data + entry.size}"
                    )
                name = entry.name.rpartition("/")[2]
                suffix = "." + name.rpartition(".")[2].lower()
                if not entry.isfile() or suffix not in suffixes or name.startswith("._"):
                    continue
                yield Member(
                    entry.name,
                    f"{path}#offset={entry.offset_data}&length={entry.size}",
                    entry.size,
                )
            end = archive.offset
        _check_end(handle, end, size)


def _check_end(handle: Any, end: int, size: int) -> None:
    """Check that blocks of zeros end a tar, and that nothing follows them.

    Raises:
        tarfile.ReadError: with the offset of what is there instead.
    """
    if size - end < END_BLOCKS * BLOCK:
        raise tarfile.ReadError(f"it ends at byte {size} without end-of-archive blocks")
    handle.seek(end)
    position = end
    while chunk := handle.read(2**20):
        rest = chunk.lstrip(b"\0")
        if rest:
            found = position + len(chunk) - len(rest)
            if found < end + BLOCK:
                raise tarfile.ReadError(f"a damaged header at byte {end}")
            raise tarfile.ReadError(
                f"more data at byte {found}, after its end: several tars in one file?"
            )
        position += len(chunk)
