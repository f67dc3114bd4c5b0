"""Pool preparation, once per pool: index, inspect, segment, embed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from madbal_ray import tables
from madbal_ray.config import FeaturesConfig, GridsConfig, SuperpixelsConfig
from madbal_ray.data import Dataset
from madbal_ray.errors import BadImageError, DataError
from madbal_ray.loop.pool_reader import (
    ImageShardJob,
    map_ahead,
    read_images,
    read_label_maps,
    read_with_retries,
)
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.stage_dir import StageDir
from madbal_ray.stages.embed_superpixels import EmbedSuperpixels
from madbal_ray.stages.segment_images import SegmentImages
from madbal_ray.storage import Folder
from madbal_ray.vision.decode import decode_image, decode_mask
from madbal_ray.vision.grids import grid_shape


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


@dataclass
class InspectImages(ImageShardJob):
    """Decode every image and mask once: sizes of the grids, or quarantine."""

    index: StageDir
    grids: GridsConfig
    table_names = ("images", "quarantine")

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the good images with their sizes, and the bad ones with reasons.

        Raises:
            DataError: masks that do not fit their images or the class map; all of the
                shard's are listed.
        """
        rows = self.index.read_table("images", [shard_id]).to_pylist()
        good, bad, mask_problems = [], [], []
        for row, problem, mask_problem in map_ahead(
            self._inspect, rows, threads=self.threads, ahead=2 * self.threads
        ):
            if problem:
                uri = self.reader.root.file_uri(row["image_uri"])
                bad.append({"image_id": row["image_id"], "uri": uri, "reason": problem})
            elif mask_problem:
                mask_problems.append(mask_problem)
            else:
                good.append(row)
        if mask_problems:
            raise DataError("\n  ".join(["masks cannot be used:", *mask_problems]))
        return {
            "images": tables.from_rows("images", good),
            "quarantine": tables.from_rows("quarantine", bad),
        }

    def count(self, shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
        """Count good and quarantined images, working-grid pixels and missing masks."""
        images = shard_tables["images"]
        heights, widths = images["work_height"].to_numpy(), images["work_width"].to_numpy()
        return {
            "images": images.num_rows,
            "quarantined": shard_tables["quarantine"].num_rows,
            "work_pixels": int((heights.astype(np.int64) * widths).sum()),
            "without_mask": images["mask_uri"].null_count,
        }

    def _inspect(self, row: dict[str, Any]) -> tuple[dict[str, Any], str | None, str | None]:
        root, limit = self.reader.root, self.reader.max_pixels
        try:
            data = read_with_retries(root, row["image_uri"])
            height, width = decode_image(data, max_pixels=limit).shape[:2]
        except BadImageError as error:
            return row, error.reason, None
        except OSError as error:
            return row, f"cannot be read: {error.strerror or error}", None
        sizes = {"": (height, width)}
        sizes["input_"] = grid_shape(self.grids.input, height, width)
        sizes["work_"] = grid_shape(self.grids.working, height, width)
        for prefix, (rows, columns) in sizes.items():
            row |= {f"{prefix}height": rows, f"{prefix}width": columns}
        return row, None, self._inspect_mask(row)

    def _inspect_mask(self, row: dict[str, Any]) -> str | None:
        if row["mask_uri"] is None:
            return None
        where = self.reader.root.file_uri(row["mask_uri"])
        try:
            data = read_with_retries(self.reader.root, row["mask_uri"])
            mask = decode_mask(data, self.reader.mask_lookup, max_pixels=self.reader.max_pixels)
        except BadImageError as error:
            return f"{where}: {error.reason}"
        except OSError as error:
            return f"{where}: cannot be read: {error.strerror or error}"
        if mask.shape != (row["height"], row["width"]):
            return (
                f"{where}: {mask.shape[0]} x {mask.shape[1]}, its image {row['image_id']} is "
                f"{row['height']} x {row['width']}"
            )
        return None


@dataclass
class SegmentPool(ImageShardJob):
    """Superpixels of every image."""

    images: StageDir
    config: SuperpixelsConfig
    table_names = ("superpixels",)

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the label maps of one shard."""
        stage = SegmentImages(self.config)

        def segment(image: Any) -> dict[str, Any]:
            work_image = self.reader.on_working_grid(image)
            return stage(image_id=[image.image_id], work_image=[work_image])

        parts = [
            tables.from_columns("superpixels", columns)
            for columns in map_ahead(
                segment,
                read_images(self.images, shard_id),
                threads=self.threads,
                ahead=self.threads,
            )
        ]
        return {"superpixels": tables.concat("superpixels", parts)}


@dataclass
class EmbedPool(ImageShardJob):
    """Features of every superpixel."""

    images: StageDir
    superpixels: StageDir
    config: FeaturesConfig
    weights: PublishedWeights
    device: str
    table_names = ("superpixel_features",)

    def setup(self) -> None:
        """Load the extractor; one thread, since the workers are the parallelism."""
        torch.set_num_threads(1)
        self._stage = EmbedSuperpixels(
            self.config, weights=self.weights.load(), device=torch.device(self.device)
        )

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the features of one shard."""
        images = read_images(self.images, shard_id)
        label_maps = read_label_maps(self.superpixels, shard_id, images)
        parts = []
        pictures = map_ahead(
            self.reader.on_working_grid, images, threads=self.threads, ahead=2 * self.threads
        )
        for image, picture in zip(images, pictures, strict=True):
            columns = self._stage(
                image_id=[image.image_id],
                work_image=[picture],
                label_map=[label_maps[image.image_id]],
            )
            parts.append(tables.from_columns("superpixel_features", columns))
        return {"superpixel_features": tables.concat("superpixel_features", parts)}
