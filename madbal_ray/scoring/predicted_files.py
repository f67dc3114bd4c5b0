"""What is predicted of one image, as files that other programs open."""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int, UInt8
from PIL import Image

from madbal_ray.arrays import RGBImage
from madbal_ray.data.folder import SUFFIXES

LONGEST_NAME = 200
"""Bytes of one part of a path; most file systems allow 255."""

PLAIN = frozenset(" !#$&'()+,;=@[]{}^_.-")
"""Signs that stay as they are, as letters and digits of all scripts do."""

_ENDING = re.compile(rf"(?i:{'|'.join(map(re.escape, sorted(SUFFIXES)))})$")

OPACITY = 0.5
"""Of the classes' colours over the image."""


def same_stems(image_ids: pa.ChunkedArray) -> frozenset[str]:
    """Return the images that differ from another one in their name's ending alone."""
    ids = image_ids.to_pandas()
    stems = ids.str.replace(_ENDING, "", regex=True)
    return frozenset(ids[stems.duplicated(keep=False)])


def file_name(image_id: str, suffix: str, whole: frozenset[str] = frozenset()) -> str:
    """Return a relative path for an image's file: its own, with another ending.

    An image's name may come from anywhere, a table or an archive: nothing in it leads out of the
    folder or is too long for a file system, and different images have different files. Signs that
    a name cannot have are written as in addresses: %3A for a colon.

    Args:
        whole: `same_stems`; these keep their ending, a tilde and the new one behind it.

    >>> file_name("street/a.jpg", ".png"), file_name("../b.png", ".png")
    ('street/a.png', '%2E%2E/b.png')
    >>> file_name("straße/東京 1:2.jpg", ".png")
    'straße/東京 1%3A2.png'
    >>> file_name("a.jpg", ".png", whole=frozenset(["a.jpg", "a.tif"]))
    'a.jpg~.png'
    """
    is_whole = image_id in whole
    stem = image_id if is_whole else _ENDING.sub("", image_id)
    return "/".join(_part(part) for part in stem.split("/")) + ("~" if is_whole else "") + suffix


def _part(part: str) -> str:
    if not part.strip("."):  # empty, or a way up
        return "%2E" * len(part) or "%"
    # Some file systems hold an accent alike whether it is a sign of its own or not.
    keeps = unicodedata.is_normalized("NFC", part)
    safe = "".join(sign if _is_plain(sign, keeps) else _quoted(sign) for sign in part)
    if len(safe.encode()) <= LONGEST_NAME:
        return safe
    start = safe.encode()[: LONGEST_NAME - 17].decode(errors="ignore")
    return start + "-" + hashlib.sha256(part.encode()).hexdigest()[:16]


def _is_plain(sign: str, keeps: bool) -> bool:
    if sign.isascii():
        return sign.isalnum() or sign in PLAIN
    return keeps and unicodedata.category(sign)[0] in "LMN"


def _quoted(sign: str) -> str:
    return "".join(f"%{byte:02X}" for byte in sign.encode())


def mask_png(classes: Int[np.ndarray, "H W"], colors: Sequence[tuple[int, int, int]]) -> bytes:
    """Return class ids as a palette PNG; grey of 16 bits where there are more than 256 classes.

    Args:
        colors: RGB, 0..255, by class id.
    """
    if len(colors) > 256:
        return _encoded(Image.fromarray(classes.astype(np.uint16)), "PNG")
    picture = Image.fromarray(classes.astype(np.uint8))
    picture.putpalette(np.array(colors, np.uint8).tobytes())
    return _encoded(picture, "PNG")


def overlay_jpeg(
    image: RGBImage, classes: Int[np.ndarray, "H W"], colors: Sequence[tuple[int, int, int]]
) -> bytes:
    """Return an image beneath the colours of its classes."""
    painted = np.array(colors, np.float32)[classes]
    mixed = (1 - OPACITY) * image.astype(np.float32) + OPACITY * painted
    return _encoded(Image.fromarray(np.rint(mixed).astype(np.uint8)), "JPEG", quality=90)


def confidence_png(confidence: Float32[np.ndarray, "H W"]) -> bytes:
    """Return the largest class probability as a grey PNG: 255 is certain."""
    values: UInt8[np.ndarray, "H W"] = np.rint(255 * confidence).astype(np.uint8)
    return _encoded(Image.fromarray(values), "PNG")


def score_tiff(score: Float32[np.ndarray, "H W"]) -> bytes:
    """Return a pixel score as a TIFF of 32-bit floats, so that images can be compared."""
    return _encoded(Image.fromarray(score.astype(np.float32)), "TIFF", compression="tiff_deflate")


def _encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
