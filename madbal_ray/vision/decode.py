"""Images and masks from bytes: converted where that loses nothing, else refused by reason."""

from __future__ import annotations

import io

import cv2
import numpy as np
from jaxtyping import Int16, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from madbal_ray.arrays import Mask, RGBImage
from madbal_ray.errors import BadImageError

Image.MAX_IMAGE_PIXELS = None  # our own limit is checked below, before any pixel is decoded

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_BIT_DEPTH_OFFSET = 24
EIGHT_TO_SIXTEEN = 257
"""A 16-bit value holds 8 bits of content when it is a multiple of this."""


def decode_image(data: bytes, *, max_pixels: int) -> RGBImage:
    """Decode one image to RGB, upright.

    Grey, palette, opaque alpha, 16-bit files with 8 bits of content and EXIF orientation
    are converted, which loses nothing.

    Raises:
        BadImageError: unreadable, truncated, empty, too large, CMYK, transparent, several
            frames, or more than 8 bits of content; `reason` says which.
    """
    image = _open(data, max_pixels)
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise BadImageError(f"{getattr(image, 'n_frames', 1)} frames in one file, expected 1")
    try:
        if data.startswith(PNG_SIGNATURE) and data[PNG_BIT_DEPTH_OFFSET] == 16:
            image = Image.fromarray(_eight_bits(_decode_deep_png(data)))
        elif image.mode in ("I;16", "I;16B", "I;16L", "I"):
            image = Image.fromarray(_eight_bits(np.asarray(image).astype(np.int64)))
        upright = ImageOps.exif_transpose(image)
        return np.array(_to_rgb(upright), dtype=np.uint8)  # a copy: writable, as torch wants it
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, BadImageError):
            raise
        raise BadImageError(f"cannot be decoded: {error}") from None


def decode_mask(data: bytes, lookup: Int16[np.ndarray, "65536"], *, max_pixels: int) -> Mask:
    """Decode one mask to class ids, `IGNORE_INDEX` where void.

    Args:
        lookup: mask value -> class id, `IGNORE_INDEX`, or a negative number where the value
            is unknown; see `madbal_ray.data.mask_lookup`.

    Raises:
        BadImageError: unreadable, more than one channel, or values that the class map does
            not know.
    """
    image = _open(data, max_pixels)
    if image.mode not in ("L", "P", "1", "I", "I;16", "I;16B", "I;16L"):
        raise BadImageError(f"a mask needs one value a pixel, got mode {image.mode}")
    try:
        values = np.asarray(image).astype(np.int64)
    except (OSError, SyntaxError, ValueError) as error:
        raise BadImageError(f"cannot be decoded: {error}") from None
    if values.min() < 0 or values.max() >= len(lookup):
        raise BadImageError(f"mask values from {values.min()} to {values.max()} are out of range")
    classes = lookup[values]
    if classes.min() < 0:
        unknown = np.unique(values[classes < 0])
        shown = ", ".join(map(str, unknown[:8])) + (", ..." if len(unknown) > 8 else "")
        raise BadImageError(f"mask values outside the class map: {shown}")
    return classes.astype(np.uint8)


def resize_image(
    image: RGBImage, height: int, width: int
) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Resize with an antialiased bilinear filter; pixel centres at (i + 1/2) / n."""
    if image.shape[:2] == (height, width):
        return image
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(resized)


def resize_mask(mask: Mask, height: int, width: int) -> UInt8[np.ndarray, "{height} {width}"]:
    """Take, for each pixel of the smaller grid, the mask pixel that holds its centre."""
    if mask.shape == (height, width):
        return mask
    rows = (2 * np.arange(height) + 1) * mask.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask.shape[1] // (2 * width)
    return mask[rows[:, None], columns[None, :]]


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise BadImageError("the file is empty")
    try:
        image = Image.open(io.BytesIO(data))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        text = str(error).split("<_io")[0].strip()
        raise BadImageError(f"not an image that can be read: {text}") from None
    if image.width * image.height > max_pixels:
        raise BadImageError(
            f"{image.height} x {image.width} pixels, more than data.max_pixels = {max_pixels}"
        )
    return image


def _decode_deep_png(data: bytes) -> np.ndarray:
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise BadImageError("cannot be decoded: damaged 16-bit PNG")
    if decoded.ndim == 2:
        return decoded
    order = [2, 1, 0, 3][: decoded.shape[2]]
    return decoded[..., order]


def _eight_bits(values: np.ndarray) -> np.ndarray:
    if (values % EIGHT_TO_SIXTEEN).any() or values.min() < 0:
        raise BadImageError("16 bits of content a channel; convert it to 8 bits first")
    return (values // EIGHT_TO_SIXTEEN).astype(np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA", "PA"):
        if image.getchannel("A").getextrema()[0] != 255:
            raise BadImageError("has transparent pixels; flatten it first")
        image = image.convert("RGB")
    if image.mode in ("L", "1", "P"):
        return image.convert("RGB")
    if image.mode != "RGB":
        raise BadImageError(f"colour mode {image.mode} has no lossless RGB form")
    return image
