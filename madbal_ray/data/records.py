"""Records of images, packed: ten million of them take a gigabyte, as objects three."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute
"""Its functions are made when it is imported, so that no type checker knows them."""

CHUNK = 65_536
"""Records that are objects at once."""

_SCHEMA = pa.schema(
    {
        "image_id": pa.string(),
        "image_uri": pa.string(),
        "mask_uri": pa.string(),
        "split": pa.int16(),
        "num_bytes": pa.int64(),
    }
)


def printable(name: str | None) -> str | None:
    r"""Return a name as text that can be stored: what is not UTF-8 in it is written out.

    >>> print(printable("caf\udce9.png"))
    caf\udce9.png
    """
    if name is None or name.isascii():
        return name
    return name.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class ImageRecord:
    """One image of a data set; URIs are relative to the data root.

    Attributes:
        num_bytes: of the encoded image, where listing the data set told it.
    """

    image_id: str
    image_uri: str
    mask_uri: str | None
    split: str
    num_bytes: int | None = None


class PackedRecords(Sequence[ImageRecord]):
    """A sequence of records in columns; each is made when it is asked for.

    Args:
        records: read once, a chunk at a time.
    """

    def __init__(self, records: Iterable[ImageRecord]) -> None:
        names: dict[str, int] = {}
        batches = []
        source = iter(records)
        while part := list(islice(source, CHUNK)):
            columns = [
                [printable(one.image_id) for one in part],
                # null: the same as the id, as in every data set of files
                [
                    None if one.image_uri == one.image_id else printable(one.image_uri)
                    for one in part
                ],
                [printable(one.mask_uri) for one in part],
                [names.setdefault(one.split, len(names)) for one in part],
                [one.num_bytes for one in part],
            ]
            arrays = [pa.array(c, t) for c, t in zip(columns, _SCHEMA.types, strict=True)]
            batches.append(pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA))
        self._splits = list(names)
        self._table = pa.Table.from_batches(batches, _SCHEMA)

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits, in order of first appearance."""
        return tuple(self._splits)

    def __len__(self) -> int:
        return self._table.num_rows

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[ImageRecord]: ...
    def __getitem__(self, index: int | slice) -> ImageRecord | list[ImageRecord]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._of(self._table.slice(index % len(self), 1).to_pylist()[0])

    def __iter__(self) -> Iterator[ImageRecord]:
        for batch in self._table.to_batches():
            yield from map(self._of, batch.to_pylist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def size_of(self, split: str) -> int:
        """Return the number of records of one split."""
        if split not in self._splits:
            return 0
        return pc.sum(pc.equal(self._table["split"], self._splits.index(split))).as_py()

    def of_split(self, split: str) -> Iterator[ImageRecord]:
        """Yield the records of one split in image_id order; a chunk of them are objects."""
        if split not in self._splits:
            return
        found = self._table
        if len(self._splits) > 1:
            found = found.filter(pc.equal(found["split"], self._splits.index(split)))
        if not _is_sorted(found["image_id"]):
            found = found.take(pc.array_sort_indices(found["image_id"]))
        for batch in found.to_batches(max_chunksize=CHUNK):
            yield from map(self._of, batch.to_pylist())

    def first_twice(self) -> tuple[int, str] | None:
        """Return how many ids occur more than once and the lowest of them; None: none does."""
        ids = self._table["image_id"]
        if _is_sorted(ids, strictly=True) or pc.count_distinct(ids).as_py() == len(ids):
            return None
        counts = pc.value_counts(ids)
        twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        return len(twice), pc.min(twice).as_py()

    def _of(self, row: dict[str, Any]) -> ImageRecord:
        return ImageRecord(
            row["image_id"],
            row["image_id"] if row["image_uri"] is None else row["image_uri"],
            row["mask_uri"],
            self._splits[row["split"]],
            row["num_bytes"],
        )


def _is_sorted(column: pa.ChunkedArray, *, strictly: bool = False) -> bool:
    before = pc.greater if strictly else pc.greater_equal
    last = None
    for chunk in column.chunks:
        if not len(chunk):
            continue
        if last is not None and not before(chunk[0], last).as_py():
            return False
        if not pc.all(before(chunk.slice(1), chunk.slice(0, len(chunk) - 1))).as_py():
            return False
        last = chunk[-1]
    return True
