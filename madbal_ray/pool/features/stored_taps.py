"""Reading the taps of single images back, from a disk or an object store."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float16

from madbal_ray.arrays import BoolMap, RGBImage
from madbal_ray.errors import IntegrityError
from madbal_ray.pool.reader import PoolImage
from madbal_ray.state.retries import tried
from madbal_ray.state.stage_dir import StageDir, table_path

TABLE = "backbone_features"

Taps = tuple[Float16[np.ndarray, "_ _ _"], ...]
"""Feature maps of one image, shallow first, each height x width x channels."""

NetworkInput = RGBImage | Taps
"""What a network takes of an image: the picture on the input grid, or its taps."""


def input_shape(one: NetworkInput) -> tuple[int, ...]:
    """Return what the inputs of one batch must agree on."""
    return one[0].shape if isinstance(one, tuple) else one.shape


@dataclass(frozen=True)
class ImageFeatures:
    """What is kept of one image.

    Attributes:
        boundary: delta, on the working grid.
    """

    taps: Taps
    boundary: BoolMap


def feature_row(image_id: str, taps: Sequence[np.ndarray], boundary: BoolMap) -> dict:
    """Return the row of table `backbone_features` that `read_features` reads back."""
    return {
        "image_id": image_id,
        "shape": [size for tap in taps for size in tap.shape],
        "taps": b"".join(tap.tobytes() for tap in taps),
        "boundary": np.packbits(boundary).tobytes(),
    }


def read_features(stage: StageDir, image: PoolImage) -> ImageFeatures:
    """Return the features of one image; from several threads at once if need be.

    Raises:
        IntegrityError: the file is gone or damaged.
    """
    path = stage.folder.file_uri(table_path(TABLE, image.shard_id))
    try:
        row = tried(lambda: _read_row(stage, image), path)
        shape = row["shape"].reshape(-1, 3)
        sizes = shape.prod(axis=1)
        values = np.frombuffer(row["taps"], np.float16)
        parts = np.split(values, np.cumsum(sizes)[:-1])
        bits = np.unpackbits(
            np.frombuffer(row["boundary"], np.uint8), count=image.work_height * image.work_width
        )
        return ImageFeatures(
            taps=tuple(part.reshape(size) for part, size in zip(parts, shape, strict=True)),
            boundary=bits.reshape(image.work_height, image.work_width).astype(bool),
        )
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise IntegrityError(
            f"the kept features of {image.image_id} cannot be read from {path} "
            f"({type(error).__name__}: {error}); start the same command again: what is missing or "
            "damaged is computed anew, and nothing else is lost"
        ) from None


def _read_row(stage: StageDir, image: PoolImage) -> dict:
    try:
        return _open_shard(stage, image.shard_id).row(image.image_id)
    except (pa.ArrowException, OSError, KeyError, ValueError):
        _open_shard.cache_clear()  # so that a mended file is opened anew
        raise


def damaged_shards(stage: StageDir) -> list[str]:
    """Return the files of a finished stage that are gone or have another size."""
    sizes = dict(stage.folder.walk())  # one listing, not a question for each file
    return [
        record.path for record in stage.marker().files if sizes.get(record.path) != record.bytes
    ]


class _Shard:
    """One open file; a row is a row group."""

    def __init__(self, stage: StageDir, shard_id: int) -> None:
        stage.check_once(table_path(TABLE, shard_id))
        # Not a memory map: a file that is cut while it is mapped ends the process (SIGBUS).
        self.file = pq.ParquetFile(stage.folder.open(table_path(TABLE, shard_id)))
        names = self.file.read(columns=["image_id"])["image_id"].to_pylist()
        self.position = {name: index for index, name in enumerate(names)}
        self.lock = threading.Lock()

    def row(self, image_id: str) -> dict:
        with self.lock:
            group = self.file.read_row_group(self.position[image_id])
        table = group.combine_chunks()
        return {
            "shape": table["shape"].chunk(0).flatten().to_numpy(),
            "taps": table["taps"].chunk(0)[0].as_buffer(),
            "boundary": table["boundary"].chunk(0)[0].as_buffer(),
        }


@functools.lru_cache(maxsize=8)
def _open_shard(stage: StageDir, shard_id: int) -> _Shard:
    return _Shard(stage, shard_id)
