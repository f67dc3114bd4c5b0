"""What a data set is: records of images and masks, class names, a map of mask values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Int16

from madbal_ray.arrays import IGNORE_INDEX, MAX_CLASSES, ColorLookup
from madbal_ray.data.records import ImageRecord as ImageRecord
from madbal_ray.data.records import PackedRecords
from madbal_ray.errors import DataError

MaskCoding = Literal["values", "colors"]
INVALID = -1
"""Entry of a mask lookup for a value that the class map does not know."""


@dataclass(frozen=True)
class Dataset:
    """An index plus a class map.

    Attributes:
        records: images of every split; any iterable is packed.
        class_names: C names; class id = position.
        mask_values: mask value -> class id, or `IGNORE_INDEX` for void; a value that is
            not listed is an error in the mask. Of coding ``colors``: ``red << 16 | green << 8 |
            blue`` in place of the value.
        colors: one RGB triple (0..255) per class, for pictures.
        coding: what of a mask's pixel says its class.
        is_mapped: the data set's own file says what mask values mean, so that what it says
            belongs to the index.
        mask_sought: where a mask was looked for that is not there, for messages.
    """

    name: str
    records: Iterable[ImageRecord]
    class_names: tuple[str, ...]
    mask_values: Mapping[int, int]
    colors: tuple[tuple[int, int, int], ...]
    coding: MaskCoding = "values"
    is_mapped: bool = False
    mask_sought: str = ""

    def __post_init__(self) -> None:
        if not 1 < len(self.class_names) <= MAX_CLASSES:
            raise DataError(
                f"{self.name}: {len(self.class_names)} classes; from 2 to {MAX_CLASSES} can be used"
            )
        object.__setattr__(self, "records", PackedRecords(self.records))
        twice = self._packed.first_twice()
        if twice is not None:
            raise DataError(
                f"{self.name}: {twice[0]} image ids occur more than once, the first is "
                f"{twice[1]!r}; an id must name one image"
            )

    @property
    def _packed(self) -> PackedRecords:
        assert isinstance(self.records, PackedRecords)
        return self.records

    @property
    def num_classes(self) -> int:
        """Return C."""
        return len(self.class_names)

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits, in order of first appearance."""
        return self._packed.splits

    def size_of(self, split: str) -> int:
        """Return the number of images of one split."""
        return self._packed.size_of(split)

    def each_of(self, split: str) -> Iterator[ImageRecord]:
        """Yield the records of one split in image_id order, few of them in memory at a time."""
        return self._packed.of_split(split)

    def of_split(self, split: str) -> list[ImageRecord]:
        """Return the records of one split in image_id order."""
        return list(self.each_of(split))

    def thinned(self, split: str, count: int) -> Dataset:
        """Keep `count` images of one split, evenly spaced in image_id order."""
        total = self.size_of(split)
        places = {i * total // count for i in range(count)}
        kept = {one.image_id for i, one in enumerate(self.each_of(split)) if i in places}
        return replace(
            self,
            records=(r for r in self._packed if r.split != split or r.image_id in kept),
        )


def color_lookup(mask_colors: Mapping[int, int]) -> ColorLookup:
    """Return the table of a mask's colours, for coding ``colors``."""
    keys = sorted(mask_colors)
    classes = [mask_colors[key] for key in keys]
    return ColorLookup(np.array(keys, np.int32), np.array(classes, np.int16))


def mask_lookup(mask_values: Mapping[int, int]) -> Int16[np.ndarray, "65536"]:
    """Return the table mask value -> class id, `IGNORE_INDEX` (void) or `INVALID`."""
    lookup = np.full(65_536, INVALID, np.int16)
    for value, class_id in mask_values.items():
        lookup[value] = class_id
    return lookup


def identity_values(num_classes: int, void_value: int = IGNORE_INDEX) -> dict[int, int]:
    """Return the map of masks that hold class ids and one void value.

    Raises:
        DataError: the void value is a class, which would have no pixel left.
    """
    if void_value < num_classes:
        raise DataError(
            f"data.folder.void_value = {void_value} is the value of a class (0 to "
            f"{num_classes - 1}), which would have no pixel left; give a value that is none"
        )
    return {**{i: i for i in range(num_classes)}, void_value: IGNORE_INDEX}


def spread_colors(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Return well-separated colours (the PASCAL VOC bit-interleaved palette)."""
    colors = []
    for index in range(num_classes):
        red = green = blue = 0
        value = index
        for bit in range(7, -1, -1):
            red |= (value & 1) << bit
            green |= (value >> 1 & 1) << bit
            blue |= (value >> 2 & 1) << bit
            value >>= 3
        colors.append((red, green, blue))
    return tuple(colors)
