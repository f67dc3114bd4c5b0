"""What mask pixels stand for: values and colours looked up, those of no class told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int16, Int32, Shaped

from madbal_ray.arrays import IGNORE_INDEX, ColorLookup, Mask, RGBImage
from madbal_ray.errors import BadImageError

SHOWN = 8
MANY_COLORS = 64
"""Colours of no class in one mask that are more likely blends of two than classes left out."""


@dataclass(frozen=True)
class MaskContents:
    """What a mask holds.

    Attributes:
        mode: Pillow's name of its form: L, P, RGB, …
        height, width: pixels.
        values: value -> pixels; None: its channels differ.
        colors: ``red << 16 | green << 8 | blue`` -> pixels; None: of 16 bits.
    """

    mode: str
    height: int
    width: int
    values: Mapping[int, int] | None
    colors: Mapping[int, int] | None

    @staticmethod
    def of(mode: str, values: np.ndarray | None, colors: RGBImage | None) -> MaskContents:
        """Count values and colours."""
        pixels = values if values is not None else colors
        assert pixels is not None
        keys = None if colors is None else mask_colors(colors)
        height, width = pixels.shape[:2]
        return MaskContents(mode, height, width, _counts(values), _counts(keys))


def _counts(values: np.ndarray | None) -> dict[int, int] | None:
    if values is None:
        return None
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def classes_of_values(
    values: Shaped[np.ndarray, "height width"], lookup: Int16[np.ndarray, "65536"]
) -> Mask:
    """Return class ids of values.

    Raises:
        BadImageError: values that the class map does not know.
    """
    if values.min() < 0 or values.max() >= len(lookup):
        raise BadImageError(f"mask values from {values.min()} to {values.max()} are out of range")
    classes = lookup[values]
    if classes.min() < 0:
        raise BadImageError(
            f"mask values outside the class map: {_listed(np.unique(values[classes < 0]))}; the "
            f"map knows {_listed_map(lookup)}, the mask holds {_listed(np.unique(values))}"
        )
    return classes.astype(np.uint8)


def mask_colors(rgb: RGBImage) -> Int32[np.ndarray, "height width"]:
    """Return the colours of an image, each ``red << 16 | green << 8 | blue``."""
    red, green, blue = np.moveaxis(rgb.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def classes_of_colors(colors: Int32[np.ndarray, "height width"], lookup: ColorLookup) -> Mask:
    """Return class ids of colours.

    Raises:
        BadImageError: colours that the class map does not know, the most frequent first.
    """
    places = np.searchsorted(lookup.keys, colors).clip(max=len(lookup.keys) - 1)
    is_unknown = lookup.keys[places] != colors
    if is_unknown.any():
        unknown, counts = np.unique(colors[is_unknown], return_counts=True)
        most = unknown[np.argsort(-counts, kind="stable")]
        raise BadImageError(
            f"{len(unknown)} mask colours outside the class map, in {counts.sum()} pixels: "
            f"{_color_list(most)}; the map knows {_color_list(lookup.keys)}"
            + ("; so many come of smoothed edges" if len(unknown) > MANY_COLORS else "")
        )
    return lookup.classes[places].astype(np.uint8)


def _color_list(keys: np.ndarray) -> str:
    shown = [f"{key >> 16},{key >> 8 & 255},{key & 255}" for key in keys[:SHOWN]]
    return " · ".join(shown) + (" ..." if len(keys) > SHOWN else "")


def _listed(values: np.ndarray) -> str:
    return ", ".join(map(str, values[:SHOWN])) + (", ..." if len(values) > SHOWN else "")


def _listed_map(lookup: Int16[np.ndarray, "65536"]) -> str:
    """Return the values of a class map in words: runs of classes, then void."""
    known = np.flatnonzero((lookup >= 0) & (lookup != IGNORE_INDEX))
    runs = np.split(known, np.flatnonzero(np.diff(known) > 1) + 1)
    shown = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs if len(run)]
    void = np.flatnonzero(lookup == IGNORE_INDEX)
    return ", ".join(shown) + (f" and {_listed(void)} (void)" if len(void) else "")


def color_text(key: int) -> str:
    """Return a packed colour as it stands in a class file.

    >>> color_text(128 << 16 | 64 << 8)
    '[128, 64, 0]'
    """
    return f"[{key >> 16}, {key >> 8 & 255}, {key & 255}]"
