"""The index of a data set: one row per image, cut into shards once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from madbal_ray.data.dataset import Dataset
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder


def index_rows(dataset: Dataset, root: Folder) -> list[dict[str, Any]]:
    """Return one row per image, in order of split and image_id, with the file's size."""
    return [
        {
            "image_id": record.image_id,
            "image_uri": record.image_uri,
            "mask_uri": record.mask_uri,
            "split": split,
            "num_bytes": root.size(record.image_uri)
            if record.num_bytes is None and "#" not in record.image_uri
            else record.num_bytes,
        }
        for split in dataset.splits
        for record in dataset.of_split(split)
    ]


def write_index(
    output: StageDir,
    rows: Sequence[Mapping[str, Any]],
    *,
    pool_split: str,
    shard_images: int,
    class_names: Sequence[str],
    colors: Sequence[Sequence[int]],
) -> None:
    """Cut the data set into shards, in image_id order, the pool's split first, and commit.

    A shard holds images of one split.
    """
    by_split: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_split.setdefault(row["split"], []).append(row)
    files, shards = [], {}
    next_shard = 0
    for split in sorted(by_split, key=lambda name: (name != pool_split, name)):
        shards[split] = []
        for start in range(0, len(by_split[split]), shard_images):
            part = by_split[split][start : start + shard_images]
            table = tables.from_rows("images", [{**row, "shard_id": next_shard} for row in part])
            files.append(output.write_table("images", next_shard, table))
            shards[split].append(next_shard)
            next_shard += 1
    summary = {
        "shards_of_split": shards,
        "class_names": list(class_names),
        "colors": [list(color) for color in colors],
    }
    output.commit(files, summary)
