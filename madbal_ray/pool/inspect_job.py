"""Pool preparation, once per pool: index, inspect, segment, embed."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from madbal_ray.config.pool import GridsConfig
from madbal_ray.errors import BadImageError, DataError, RunDirError
from madbal_ray.pool.census import Pixels, count_pixels, note_census
from madbal_ray.pool.contents import note_looks, uris_of
from madbal_ray.pool.reader import ImageShardJob
from madbal_ray.state import tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.retries import is_passing
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.vision.decode import decode_mask
from madbal_ray.vision.decode_apart import image_size
from madbal_ray.vision.grids import grid_shape


@dataclass(kw_only=True)
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
        note_looks(self.output, shard_id, self.reader.root, uris_of(rows))
        good, bad, mask_problems, held = [], [], [], []
        for row, problem, looked in map_ahead(
            self._inspect, rows, threads=self.threads, ahead=2 * self.threads
        ):
            if problem:
                uri = self.reader.root.file_uri(row["image_uri"])
                bad.append(
                    {
                        "image_id": row["image_id"],
                        "uri": uri,
                        "reason": problem,
                        "sha256": row["image_sha256"],
                    }
                )
            elif isinstance(looked, str):
                mask_problems.append(looked)
            else:
                good.append(row)
                held += [looked] if looked is not None else []
        if mask_problems:
            raise DataError("\n  ".join(["masks cannot be used:", *mask_problems]))
        if held:
            note_census(self.output, shard_id, np.sum(held, axis=0))
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

    def _inspect(
        self, row: dict[str, Any]
    ) -> tuple[dict[str, Any], str | None, Pixels | str | None]:
        """Return the row, what is wrong with the image, and what its mask holds or why not."""
        try:
            data = self.reader.encoded(row["image_uri"])
            row["image_sha256"] = hashlib.sha256(data).hexdigest()
            height, width = image_size(data, max_pixels=self.reader.max_pixels)
        except BadImageError as error:
            return row, error.reason, None
        except OSError as error:
            self._check_passing(row["image_uri"], error)
            return row, _why_not_read(row["image_uri"], error), None
        sizes = {"": (height, width)}
        sizes["input_"] = grid_shape(self.grids.input, height, width)
        sizes["work_"] = grid_shape(self.grids.working, height, width)
        for prefix, (rows, columns) in sizes.items():
            row |= {f"{prefix}height": rows, f"{prefix}width": columns}
        return row, None, self._inspect_mask(row)

    def _inspect_mask(self, row: dict[str, Any]) -> Pixels | str | None:
        if row["mask_uri"] is None:
            return None
        where = self.reader.root.file_uri(row["mask_uri"])
        try:
            data = self.reader.encoded(row["mask_uri"])
            row["mask_sha256"] = hashlib.sha256(data).hexdigest()
            mask = decode_mask(data, self.reader.mask_lookup, max_pixels=self.reader.max_pixels)
        except BadImageError as error:
            return f"{where}: {error.reason}"
        except OSError as error:
            self._check_passing(row["mask_uri"], error)
            return f"{where}: {_why_not_read(row['mask_uri'], error)}"
        if mask.shape != (row["height"], row["width"]):
            return (
                f"{where}: {mask.shape[0]} x {mask.shape[1]}, its image {row['image_id']} is "
                f"{row['height']} x {row['width']}"
            )
        return count_pixels(mask)

    def _check_passing(self, uri: str, error: OSError) -> None:
        """Raise what is no image's fault: an image that is quarantined is never looked at again.

        Raises:
            RunDirError: the disk or the store fails, or the data set is not there on this node.
        """
        root = self.reader.root
        if is_passing(error):
            raise RunDirError(
                f"{root.file_uri(uri)} cannot be read now ({error.strerror or error}), after "
                "several tries; see to the disk or the network, then start the same command again"
            ) from error
        if root.is_local and not root.local_path.is_dir():
            raise RunDirError(
                f"data.root = {root} is not there on node {socket.gethostname()}; mount it on "
                "every node, then start the same command again"
            ) from error


def _why_not_read(uri: str, error: OSError) -> str:
    reason = f"cannot be read: {error.strerror or error}"
    is_foreign = isinstance(error, FileNotFoundError) and "\\udc" in uri
    return f"{reason}: its name is not UTF-8; rename it" if is_foreign else reason
