"""Shape letters, array types and the one ignore index.

Legend, used in every annotation and docstring:

| letter   | meaning                                       |
|----------|-----------------------------------------------|
| B        | images in a batch                             |
| C        | classes                                       |
| K        | clusters                                      |
| S        | superpixels of one image                      |
| P        | points (labelled pixels)                      |
| Q        | queries                                       |
| H W      | a full grid (working or evaluation)           |
| h w      | a smaller grid (network output)               |
| D        | feature dimension                             |
| top      | best unasked pixels kept for each superpixel  |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Int16, Int32, UInt8, UInt16

IGNORE_INDEX: Final = 255
"""Class id of void in decoded masks; hence at most 255 classes."""

MAX_CLASSES: Final = 255
MAX_SUPERPIXELS: Final = 65_535
"""`label_map` is uint16; an image with more superpixels is refused."""

# Anonymous sizes: these also stand in lists of images that differ in size.
RGBImage = UInt8[np.ndarray, "_ _ 3"]
Mask = UInt8[np.ndarray, "_ _"]
LabelMap = UInt16[np.ndarray, "_ _"]
BoolMap = Bool[np.ndarray, "_ _"]


@dataclass(frozen=True)
class ColorLookup:
    """The class map of masks whose colours stand for classes.

    Attributes:
        keys: colours as ``red << 16 | green << 8 | blue``, ascending.
        classes: class id of each, or `IGNORE_INDEX`.
    """

    keys: Int32[np.ndarray, "_"]
    classes: Int16[np.ndarray, "_"]
