"""Decoded training images, so that a small training set is decoded once."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from typing import Protocol, runtime_checkable

import numpy as np

from madbal_ray.arrays import RGBImage
from madbal_ray.pool.reader import PoolImage

GIBIBYTE = 2**30
KEPT_FREE = 0.1
"""Share of the disk that the cache leaves free: other programs, Ray among them, need room too."""


@runtime_checkable
class InputReader(Protocol):
    """What decodes an image: `madbal_ray.pool.reader.ImageReader`."""

    def on_input_grid(self, image: PoolImage) -> RGBImage:
        """Return the decoded image on the input grid."""
        ...


class ImageCache:
    """Images on the input grid (uint8): in memory up to a limit, then in a scratch file.

    The file has no name, so the system removes it when the process ends, however it ends. It
    lies in the system's temporary folder (``TMPDIR``) and is read through the page cache. The
    cache stops writing when a tenth of that disk is left, whoever filled the rest. An image
    for which there is room in neither place is decoded again each time it is asked for.

    Args:
        memory_gib, disk_gib: most that is kept there; 0: nothing is.
    """

    def __init__(self, reader: InputReader, *, memory_gib: float, disk_gib: float) -> None:
        self.reader = reader
        self._memory_left = int(memory_gib * GIBIBYTE)
        self._disk_left = int(disk_gib * GIBIBYTE)
        self._kept: dict[str, RGBImage] = {}
        # image_id -> where its bytes begin in the file, and its shape
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._file = tempfile.TemporaryFile() if self._disk_left else None  # noqa: SIM115
        self._end = 0
        self._lock = threading.Lock()

    def get(self, image: PoolImage) -> RGBImage:
        """Return an image on the input grid; do not change it."""
        kept = self._kept.get(image.image_id)
        if kept is not None:
            return kept
        place = self._places.get(image.image_id)
        if place is not None:
            return self._read(*place)
        decoded = self.reader.on_input_grid(image)
        with self._lock:
            # Another thread may have decoded and kept the same image in the meantime.
            if image.image_id not in self._kept and image.image_id not in self._places:
                self._keep(image.image_id, decoded)
        return decoded

    def _keep(self, image_id: str, decoded: RGBImage) -> None:
        size = decoded.nbytes
        if size <= self._memory_left:
            self._kept[image_id] = decoded
            self._memory_left -= size
        elif self._file is not None and size <= self._disk_left and _has_room(size):
            try:
                written = os.pwrite(self._file.fileno(), decoded.tobytes(), self._end)
            except OSError:  # the disk was filled up after `_has_room` looked at it
                written = 0
            if written < size:
                self._disk_left = 0  # no further attempts: what is not kept is decoded again
                return
            self._places[image_id] = (self._end, decoded.shape)
            self._end += size
            self._disk_left -= size

    def _read(self, start: int, shape: tuple[int, ...]) -> RGBImage:
        assert self._file is not None
        data = os.pread(self._file.fileno(), int(np.prod(shape)), start)
        return np.frombuffer(data, np.uint8).reshape(shape)


def _has_room(size: int) -> bool:
    """Tell whether the disk would keep its free share after `size` bytes more."""
    usage = shutil.disk_usage(tempfile.gettempdir())
    return usage.free - size >= usage.total * KEPT_FREE
