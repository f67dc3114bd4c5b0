"""What a data set is: records of images and masks, class names, a map of mask values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int16

from madbal_ray.arrays import IGNORE_INDEX, MAX_CLASSES
from madbal_ray.errors import DataError

INVALID = -1
"""Entry of a mask lookup for a value that the class map does not know."""


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


@dataclass(frozen=True)
class Dataset:
    """An index plus a class map.

    Attributes:
        records: images of every split.
        class_names: C names; class id = position.
        mask_values: mask value -> class id, or `IGNORE_INDEX` for void; a value that is
            not listed is an error in the mask.
        colors: one RGB triple (0..255) per class, for pictures.
    """

    name: str
    records: Sequence[ImageRecord]
    class_names: tuple[str, ...]
    mask_values: Mapping[int, int]
    colors: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if not 1 < len(self.class_names) <= MAX_CLASSES:
            raise DataError(
                f"{self.name}: {len(self.class_names)} classes; from 2 to {MAX_CLASSES} can be used"
            )
        counts = Counter(record.image_id for record in self.records)
        twice = [image_id for image_id, count in counts.items() if count > 1]
        if twice:
            raise DataError(
                f"{self.name}: {len(twice)} image ids occur more than once, the first is "
                f"{min(twice)!r}; an id must name one image"
            )

    @property
    def num_classes(self) -> int:
        """Return C."""
        return len(self.class_names)

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits, in order of first appearance."""
        return tuple(dict.fromkeys(record.split for record in self.records))

    def of_split(self, split: str) -> list[ImageRecord]:
        """Return the records of one split in image_id order."""
        return sorted(
            (record for record in self.records if record.split == split),
            key=lambda record: record.image_id,
        )

    def thinned(self, split: str, count: int) -> Dataset:
        """Keep `count` images of one split, evenly spaced in image_id order."""
        records = self.of_split(split)
        kept = {records[i * len(records) // count].image_id for i in range(count)}
        return replace(
            self,
            records=[r for r in self.records if r.split != split or r.image_id in kept],
        )


def mask_lookup(mask_values: Mapping[int, int]) -> Int16[np.ndarray, "65536"]:
    """Return the table mask value -> class id, `IGNORE_INDEX` (void) or `INVALID`."""
    lookup = np.full(65_536, INVALID, np.int16)
    for value, class_id in mask_values.items():
        lookup[value] = class_id
    return lookup


def identity_values(num_classes: int, void_value: int = IGNORE_INDEX) -> dict[int, int]:
    """Return the map of masks that hold class ids and one void value."""
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
