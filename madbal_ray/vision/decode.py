"""The one door for foreign pictures: formats, limits, checksums, and reasons for a refusal.

Nothing else in this package hands bytes of a user's image or mask to a decoder. What is opened is
listed in `FORMATS`; whatever a decoder raises becomes a `BadImageError` with a reason that holds no
address of this process, so that two workers note the same one.
"""

from __future__ import annotations

import io
import re
from contextlib import suppress

import cv2
import numpy as np
from jaxtyping import Int16, UInt8
from PIL import Image, ImageOps

from madbal_ray.arrays import ColorLookup, Mask, RGBImage
from madbal_ray.errors import BadImageError
from madbal_ray.vision.mask_values import (
    MaskContents,
    classes_of_colors,
    classes_of_values,
    mask_colors,
)
from madbal_ray.vision.png import SIGNATURE, PngHeader, check_png_stream, read_png_header

Image.MAX_IMAGE_PIXELS = None  # our own limit is checked below, before any pixel is decoded

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats of Pillow that are opened (PPM: PBM, PGM too); others may start programs or pickles."""

JPEG_PIXELS_A_BYTE = 1024
"""A block of 64 pixels takes a bit at least, so 512 is what a whole file can reach."""

EIGHT_TO_SIXTEEN = 257
"""A 16-bit value holds 8 bits of content when it is a multiple of this."""

ORIENTATION = 0x0112
BITS_PER_SAMPLE = 258
BETWEEN = rb"(?:\s|#[^\n]*\n)+"  # nothing in it can be read in two ways, or blanks would cost 2**n
PPM_DEPTH = re.compile(rb"P[2356]%b\d+%b\d+%b(\d+)" % (BETWEEN, BETWEEN, BETWEEN))
REASON_LENGTH = 200
JPEG = b"\xff\xd8\xff"


def decode_image(data: bytes, *, max_pixels: int) -> RGBImage:
    """Decode one image to RGB, upright.

    Grey, palette, opaque alpha, 16-bit files with 8 bits of content and EXIF orientation
    are converted, which loses nothing. Memory: at most 16 bytes a declared pixel.

    Raises:
        BadImageError: unreadable, truncated, damaged, empty, too large, of another format, CMYK,
            transparent, several frames, or more than 8 bits of content; `reason` says which.
    """
    try:
        header = read_png_header(data) if data.startswith(SIGNATURE) else None
        image = _open(data, max_pixels)
        upright = _upright(_eight_bit_image(image, data, header), image)
        return np.array(_to_rgb(upright), dtype=np.uint8)  # a copy: writable, as torch wants it
    except BadImageError:
        raise
    except Exception as error:  # a decoder raises anything at all on foreign bytes
        raise BadImageError(f"cannot be decoded: {_plain(error)}") from None


def is_turned(data: bytes) -> bool:
    """Tell whether an image's EXIF orientation turns or mirrors it; `decode_image` does so."""
    try:
        return Image.open(io.BytesIO(data)).getexif().get(ORIENTATION, 1) != 1
    except Exception:  # as above: what cannot be read is another's to tell
        return False


def decode_mask(
    data: bytes,
    lookup: Int16[np.ndarray, "65536"] | ColorLookup,
    *,
    max_pixels: int,
    is_known: bool = False,
) -> Mask:
    """Decode one mask, a PNG, to class ids, `IGNORE_INDEX` where void.

    Args:
        lookup: mask value -> class id, `IGNORE_INDEX`, or a negative number where the value
            is unknown; or the same of its colours; see `madbal_ray.data.dataset`.
        is_known: these bytes passed before, so their checksums are not looked at again.

    Raises:
        BadImageError: no PNG, unreadable, damaged, several channels that differ where values
            are looked up, or values or colours that the class map does not know.
    """
    try:
        image = _open_mask(data, max_pixels, is_known=is_known)
        if isinstance(lookup, ColorLookup):
            return classes_of_colors(mask_colors(np.asarray(_to_rgb(image))), lookup)
        return classes_of_values(_mask_values(data, image), lookup)
    except BadImageError:
        raise
    except Exception as error:  # as above
        raise BadImageError(f"cannot be decoded: {_plain(error)}") from None


def look_into_mask(data: bytes, *, max_pixels: int) -> MaskContents:
    """Return what a mask holds, before anybody has said what that means.

    Raises:
        BadImageError: as `decode_mask`, but for the class map.
    """
    try:
        image = _open_mask(data, max_pixels, is_known=False)
        values = colors = None
        try:
            values = _mask_values(data, image)
        except BadImageError:  # several channels: colours alone
            colors = np.asarray(_to_rgb(image))
        if colors is None and "16" not in image.mode and image.mode != "I":
            with suppress(BadImageError):  # a palette with a transparent entry: values alone
                colors = np.asarray(_to_rgb(image))
        return MaskContents.of(image.mode, values, colors)
    except BadImageError:
        raise
    except Exception as error:  # as above
        raise BadImageError(f"cannot be decoded: {_plain(error)}") from None


def _open_mask(data: bytes, max_pixels: int, *, is_known: bool) -> Image.Image:
    """Open a mask and look at its checksums, before any pixel."""
    if not data:
        raise BadImageError("the file is empty")
    if data.startswith(JPEG):
        raise BadImageError(
            "a mask must be a PNG, this is a JPEG: JPEG blends neighbouring values, so classes "
            "along every edge are damaged, and saving it as PNG does not bring them back; export "
            "the masks as PNG from the tool that they were drawn in"
        )
    if not data.startswith(SIGNATURE):
        raise BadImageError("a mask must be a PNG: it loses nothing and carries checksums")
    image = _open(data, max_pixels)
    if not is_known:
        header = read_png_header(data)
        check_png_stream(data, header)
        if header.bit_depth == 16 and header.color_type != 0:  # Pillow cuts these to 8 bits
            _eight_bits(_decode_deep(data, image))
        if (turned := image.getexif().get(ORIENTATION, 1)) != 1:
            raise BadImageError(
                f"it has an EXIF orientation of {turned}, which not every program honours in a "
                "mask: save it upright, as its image is shown, without the tag"
            )
    return image


def _mask_values(data: bytes, image: Image.Image) -> np.ndarray:
    """Return the stored values of a mask."""
    if image.mode in ("RGB", "RGBA", "LA"):
        channels = np.moveaxis(np.asarray(_to_rgb(image)), -1, 0)
        if (channels[0] == channels).all():  # grey that was saved as three channels
            return channels[0]
    if image.mode not in ("L", "P", "1", "I", "I;16", "I;16B", "I;16L"):
        raise BadImageError(
            f"a mask needs one value a pixel, got mode {image.mode} with colours; where colours "
            "stand for classes, write `masks: colors` and every class's color into classes.yaml"
        )
    values, header = np.asarray(image), read_png_header(data)
    if header.color_type == 0 and header.bit_depth in (2, 4):  # Pillow stretches these to 0..255
        return values // (255 // (2**header.bit_depth - 1))
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


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
    """Read a file's header; check format, frames and declared size, before any pixel."""
    if not data:
        raise BadImageError("the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:
        raise BadImageError(
            f"not an image that is opened ({', '.join(FORMATS)}): {_plain(error)}"
        ) from None
    if image.width * image.height > max_pixels:
        raise BadImageError(
            f"{image.height} x {image.width} pixels, more than data.max_pixels = {max_pixels}"
        )
    if image.format in ("JPEG", "MPO"):
        if image.width * image.height > JPEG_PIXELS_A_BYTE * len(data):
            raise BadImageError(
                f"truncated: {len(data)} bytes cannot hold {image.height} x {image.width} pixels"
            )
    elif getattr(image, "n_frames", 1) > 1:
        raise BadImageError(f"{getattr(image, 'n_frames', 1)} frames in one file, expected 1")
    return image


def _eight_bit_image(image: Image.Image, data: bytes, header: PngHeader | None) -> Image.Image:
    """Return a picture of 8 bits a channel that has no transparent pixels of one colour."""
    if header is not None and header.bit_depth == 16:
        deep = _decode_deep(data, image)
        if header.transparent is not None:
            _check_opaque(deep[..., : len(header.transparent)], header.transparent)
        return Image.fromarray(_eight_bits(deep))
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        return Image.fromarray(_eight_bits(np.asarray(image).astype(np.int64)))
    if _has_deep_colors(image, data):  # Pillow would cut them to 8 bits
        return Image.fromarray(_eight_bits(_decode_deep(data, image)))
    if header is not None and header.transparent is not None:
        scale = 255 // (2**header.bit_depth - 1)
        pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
        _check_opaque(
            pixels if pixels.ndim == 3 else pixels[..., None],
            tuple(value * scale for value in header.transparent),
        )
    return image


def _has_deep_colors(image: Image.Image, data: bytes) -> bool:
    """Tell whether a TIFF or PPM holds more than 8 bits a channel."""
    if image.format == "TIFF":
        is_deep = bool(np.max(getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, 1)) > 8)
        if is_deep and image.getexif().get(ORIENTATION, 1) != 1:  # OpenCV turns some of them
            raise BadImageError("a 16-bit TIFF with an orientation: save it upright, without it")
        return is_deep
    depth = PPM_DEPTH.match(data) if image.format == "PPM" else None
    return depth is not None and len(depth[1]) < 9 and int(depth[1]) > 255


def _decode_deep(data: bytes, image: Image.Image) -> np.ndarray:
    """Return the 16-bit values [H, W, channels] of an image, red first."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16:
        raise BadImageError(f"cannot be decoded: damaged or unusual 16-bit {image.format}")
    if decoded.shape[:2] != (image.height, image.width):
        raise BadImageError(
            f"cannot be decoded: declares {image.height} x {image.width} pixels, holds "
            f"{decoded.shape[0]} x {decoded.shape[1]}"
        )
    if decoded.ndim == 2:
        return decoded[..., None]
    return decoded[..., [2, 1, 0, 3][: decoded.shape[2]]]


def _eight_bits(values: np.ndarray) -> np.ndarray:
    if values.min() < 0 or (values % EIGHT_TO_SIXTEEN).any():
        raise BadImageError("16 bits of content a channel; convert it to 8 bits first")
    values = (values // EIGHT_TO_SIXTEEN).astype(np.uint8)
    return values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values


def _check_opaque(pixels: np.ndarray, transparent: tuple[int, ...]) -> None:
    if (pixels == np.array(transparent)).all(axis=-1).any():
        raise BadImageError("has transparent pixels; flatten it first")


def _upright(picture: Image.Image, opened: Image.Image) -> Image.Image:
    """Turn a picture as the file that it came from says."""
    if picture is not opened:
        picture.getexif()[ORIENTATION] = opened.getexif().get(ORIENTATION, 1)
    return ImageOps.exif_transpose(picture)


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


def _plain(error: Exception) -> str:
    """Return an error's text without addresses of this process, in one line."""
    text = re.sub(r"\s*<[^>]*0x[0-9a-f]+>", "", str(error)) or type(error).__name__
    return " ".join(text.split())[:REASON_LENGTH]
