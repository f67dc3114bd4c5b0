"""Reading a pool's shards: tables, images, masks."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from jaxtyping import Int16

from madbal_ray.arrays import ColorLookup, LabelMap, Mask, RGBImage
from madbal_ray.config.data import DataConfig
from madbal_ray.data.dataset import Dataset, MaskCoding, color_lookup, mask_lookup
from madbal_ray.data.members import read_image_bytes
from madbal_ray.engine.contract import count_images
from madbal_ray.errors import BadImageError, DataError
from madbal_ray.pool.label_map import unpack_label_map
from madbal_ray.state.retries import tried
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from madbal_ray.vision.decode import decode_image, decode_mask, resize_image, resize_mask

Item = TypeVar("Item")


@dataclass(frozen=True)
class PoolImage:
    """One row of table `images`."""

    image_id: str
    image_uri: str
    mask_uri: str | None
    height: int
    width: int
    input_height: int
    input_width: int
    work_height: int
    work_width: int
    shard_id: int = -1
    image_sha256: str | None = None
    mask_sha256: str | None = None


@dataclass(frozen=True)
class ImageReader:
    """Reads images and masks of a data set.

    Attributes:
        root: folder that URIs are relative to.
        mask_values: mask value, or colour, -> class id or `IGNORE_INDEX`.
        coding: which of the two.
        max_pixels, max_bytes: of one image or mask; more is refused before it is read.
    """

    root: Folder
    mask_values: Mapping[int, int]
    max_pixels: int
    max_bytes: int
    coding: MaskCoding = "values"

    @functools.cached_property
    def mask_lookup(self) -> Int16[np.ndarray, "65536"] | ColorLookup:
        """Return the class map as a table; small jobs travel faster without it."""
        if self.coding == "colors":
            return color_lookup(self.mask_values)
        return mask_lookup(self.mask_values)

    @staticmethod
    def of(dataset: Dataset, root: Folder, config: DataConfig) -> ImageReader:
        """Return what reads a data set that was opened."""
        limits = {"max_pixels": config.max_pixels, "max_bytes": config.max_bytes}
        return ImageReader(root, dataset.mask_values, coding=dataset.coding, **limits)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the table out."""
        return {k: v for k, v in self.__dict__.items() if k != "mask_lookup"}

    def encoded(self, uri: str) -> bytes:
        """Return the bytes of an image or mask.

        Raises:
            BadImageError, OSError: see `madbal_ray.data.members.read_image_bytes`.
        """
        return tried(
            lambda: read_image_bytes(self.root, uri, max_bytes=self.max_bytes),
            self.root.file_uri(uri),
        )

    def _same(self, uri: str, sha256: str | None) -> bytes:
        """Return the bytes of an image or mask, which are those that were inspected.

        Raises:
            BadImageError: they are others. A pool made before there were hashes is not checked.
        """
        data = self.encoded(uri)
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise BadImageError("it holds something else")
        return data

    def fetch(self, image: PoolImage) -> bytes:
        """Return the encoded image; it may be fetched long before it is decoded."""
        try:
            return self._same(image.image_uri, image.image_sha256)
        except (OSError, BadImageError) as error:
            raise _vanished(image.image_id, self.root, image.image_uri, error) from None

    def original(self, image: PoolImage, data: bytes | None = None) -> RGBImage:
        """Return the decoded image at its own size.

        Args:
            data: what `fetch` gave; None: it is fetched now.
        """
        data = self.fetch(image) if data is None else data
        try:
            return decode_image(data, max_pixels=self.max_pixels)
        except BadImageError as error:
            raise _vanished(image.image_id, self.root, image.image_uri, error) from None

    def on_input_grid(self, image: PoolImage) -> RGBImage:
        """Return the image on the input grid."""
        return resize_image(self.original(image), image.input_height, image.input_width)

    def on_both_grids(
        self, image: PoolImage, data: bytes | None = None
    ) -> tuple[RGBImage, RGBImage]:
        """Return the image on the input grid and on the working grid, decoded once."""
        original = self.original(image, data)
        return (
            resize_image(original, image.input_height, image.input_width),
            resize_image(original, image.work_height, image.work_width),
        )

    def on_working_grid(self, image: PoolImage) -> RGBImage:
        """Return the image on the working grid."""
        return resize_image(self.original(image), image.work_height, image.work_width)

    def fetch_mask(self, image: PoolImage) -> bytes:
        """Return the encoded mask; it may be fetched long before it is decoded."""
        if image.mask_uri is None:
            raise DataError(f"{image.image_id} has no mask")
        try:
            return self._same(image.mask_uri, image.mask_sha256)
        except (OSError, BadImageError) as error:
            raise _vanished(image.image_id, self.root, image.mask_uri, error) from None

    def mask(self, image: PoolImage, data: bytes | None = None) -> Mask:
        """Return the mask at its own size.

        Args:
            data: what `fetch_mask` gave; None: it is fetched now.
        """
        data = self.fetch_mask(image) if data is None else data
        try:
            return decode_mask(
                data,
                self.mask_lookup,
                max_pixels=self.max_pixels,
                is_known=image.mask_sha256 is not None,
            )
        except BadImageError as error:
            uri = image.mask_uri or ""
            raise _vanished(image.image_id, self.root, uri, error) from None

    def mask_on_working_grid(self, image: PoolImage, data: bytes | None = None) -> Mask:
        """Return the mask on the working grid: the value under each pixel's centre."""
        return resize_mask(self.mask(image, data), image.work_height, image.work_width)


def _vanished(image_id: str, root: Folder, uri: str, error: Exception) -> DataError:
    return DataError(
        f"{image_id}: {root.file_uri(uri)} was fine when the pool was prepared and is not now "
        f"({error}); restore it and start the same command again"
    )


def read_images(images: StageDir, shard_id: int) -> list[PoolImage]:
    """Return the images of one shard in image_id order."""
    return list(_images(images, shard_id))


@functools.lru_cache(maxsize=4)  # a shard's job asks several times, and two shards are under way
def _images(images: StageDir, shard_id: int) -> tuple[PoolImage, ...]:
    return tuple(pool_images(images.read_table("images", [shard_id])))


def pool_images(table: pa.Table) -> list[PoolImage]:
    """Return the rows of table `images`."""
    return [
        PoolImage(**row) for row in table.select(list(PoolImage.__dataclass_fields__)).to_pylist()
    ]


def read_label_maps(
    superpixels: StageDir, shard_id: int, images: Sequence[PoolImage]
) -> dict[str, LabelMap]:
    """Return the label maps of one shard by image_id."""
    sizes = {image.image_id: (image.work_height, image.work_width) for image in images}
    table = superpixels.read_table("superpixels", [shard_id])
    return {
        row["image_id"]: unpack_label_map(row["label_map"], *sizes[row["image_id"]])
        for row in table.to_pylist()
        if row["image_id"] in sizes  # a fold holds a part of a shard
    }


def split_by_image(table: pa.Table) -> dict[str, slice]:
    """Return the rows of each image of a table that is sorted by image_id."""
    if not table.num_rows:
        return {}
    codes = table["image_id"].combine_chunks().dictionary_encode()
    index = codes.indices.to_numpy()
    starts = np.flatnonzero(np.diff(index, prepend=-1))
    ends = np.append(starts[1:], len(index))
    names = codes.dictionary.to_pylist()
    return {
        names[index[start]]: slice(int(start), int(end))
        for start, end in zip(starts, ends, strict=True)
    }


def cut_batches(
    items: Iterable[Item], size: int, *, shape_of: Callable[[Item], Any]
) -> Iterator[list[Item]]:
    """Cut runs of items of one shape into batches of at most `size`."""
    for _, run in groupby(items, key=shape_of):
        while batch := list(islice(run, size)):
            yield batch


@dataclass(kw_only=True)
class ImageShardJob:
    """A shard job that decodes images.

    Attributes:
        output: folder of the stage.
        reader: reads images and masks.
        threads: decoding threads.
    """

    output: StageDir
    reader: ImageReader
    threads: int
    is_light = False
    uses_device = False
    counts_images = True

    def setup(self) -> None:
        """Load nothing."""

    def count(self, shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
        """Count the shard's images."""
        return count_images(shard_tables)
