"""The index of a data set: one row per image, cut into shards once, few rows in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from madbal_ray.data.dataset import Dataset, ImageRecord
from madbal_ray.state import tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.marker import FileRecord
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import IN_FLIGHT, Folder

SIZED_AT_ONCE = 10_000


def index_rows(dataset: Dataset, root: Folder, splits: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield one row per image, in order of `splits` and image_id, with the file's size.

    A data set that lists its files knows their sizes; others are asked for, many at once.
    """

    def sized(record: ImageRecord) -> ImageRecord:
        if record.num_bytes is not None or _is_elsewhere(record.image_uri):
            return record
        return replace(record, num_bytes=root.size(record.image_uri))

    for split in splits:
        records = dataset.each_of(split)
        of_split = map(sized, records) if root.is_local else _sized_ahead(records, sized)
        yield from map(vars, of_split)


def _sized_ahead(records: Iterator[ImageRecord], sized: Any) -> Iterator[ImageRecord]:
    """Look up the sizes that are not known in threads; records that know theirs need none."""
    for first in records:
        if first.num_bytes is not None or _is_elsewhere(first.image_uri):
            yield first
            continue
        rest = islice(records, SIZED_AT_ONCE)
        yield from map_ahead(sized, (first, *rest), threads=IN_FLIGHT, ahead=IN_FLIGHT)


def _is_elsewhere(uri: str) -> bool:
    """Tell whether a URI points into an archive, or at a place that may not answer."""
    return "#" in uri or "://" in uri


def write_index(
    output: StageDir,
    dataset: Dataset,
    root: Folder,
    *,
    pool_split: str,
    shard_images: int,
) -> None:
    """Cut the data set into shards, in image_id order, the pool's split first, and commit.

    A shard holds images of one split.
    """
    shards: dict[str, list[int]] = {}

    def parts() -> Iterator[tuple[int, list[dict[str, Any]]]]:
        number = 0
        for split in sorted(dataset.splits, key=lambda name: (name != pool_split, name)):
            rows = index_rows(dataset, root, [split])
            shards[split] = []
            while part := list(islice(rows, shard_images)):
                shards[split].append(number)
                yield number, part
                number += 1

    def write(part: tuple[int, list[dict[str, Any]]]) -> FileRecord:
        shard_id, rows = part
        table = tables.from_rows("images", [{**row, "shard_id": shard_id} for row in rows])
        return output.write_table("images", shard_id, table)

    threads = 1 if output.folder.is_local else IN_FLIGHT
    files = list(map_ahead(write, parts(), threads=threads, ahead=threads))
    summary = {
        "shards_of_split": shards,
        "class_names": list(dataset.class_names),
        "colors": [list(color) for color in dataset.colors],
    }
    output.commit(files, summary)
