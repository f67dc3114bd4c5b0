"""Mutated pictures and masks: each must be read as it was, or be refused by reason."""

import io
import random
import zlib

import cv2
import numpy as np
from PIL import Image

from madbal_ray.data.dataset import mask_lookup
from madbal_ray.errors import BadImageError
from madbal_ray.vision.decode import decode_image, decode_mask
from tests.fuzz.mutations import mutate

MAX_PIXELS = 1_000_000
LOOKUP = mask_lookup({value: value for value in range(256)})
WITH_CHECKSUMS = ("PNG", "mask")


def seeds():
    """Return (kind, bytes) of small good files of every format and depth."""
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (19, 23, 3), np.uint8)
    smooth = np.add.outer(np.arange(19) * 5, np.arange(23) * 4).astype(np.uint8)
    found = []

    def add(kind, picture, format_, **options):
        sink = io.BytesIO()
        picture.save(sink, format_, **options)
        found.append((kind, sink.getvalue()))

    rgb, grey = Image.fromarray(colors), Image.fromarray(smooth)
    exif = Image.Exif()
    exif[0x0112] = 6
    for picture in (rgb, grey, rgb.convert("P"), grey.convert("1"), grey.convert("LA")):
        add("PNG", picture, "PNG", exif=exif)
        add("PNG", picture, "PNG", compress_level=0)
    for picture in (rgb, grey):
        add("JPEG", picture, "JPEG", exif=exif)
        add("JPEG", picture, "JPEG", progressive=True, quality=30)
        add("WEBP", picture.convert("RGB"), "WEBP", lossless=picture is rgb)
        add("BMP", picture, "BMP")
        add("PPM", picture, "PPM")
        for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits"):
            add("TIFF", picture, "TIFF", compression=compression)
    for deep in (colors.astype(np.uint16) * 257, smooth.astype(np.uint16) * 257):
        found.append(("PNG", cv2.imencode(".png", deep)[1].tobytes()))
        found.append(("TIFF", cv2.imencode(".tiff", deep)[1].tobytes()))
    labels = Image.fromarray(rng.integers(0, 9, (19, 23), np.uint8))
    for level in (0, 6):
        add("mask", labels, "PNG", compress_level=level)
    add("mask", labels.convert("P"), "PNG")
    return found


def decode(kind, data):
    if kind == "mask":
        return decode_mask(data, LOOKUP, max_pixels=MAX_PIXELS)
    return decode_image(data, max_pixels=MAX_PIXELS)


def is_excused(original, data):
    """Tell whether checksums cannot show it: other chunks, all of them with right ones."""
    return _chunks(original) != _chunks(data) and all(right for _, right in _chunks(data))


def _chunks(data):
    """Return the chunks of a PNG up to its end, and whether each has a right checksum."""
    found, position = [], 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 8 + length
        if end + 4 > len(data):
            break
        body = data[position + 4 : end]
        found.append((body, zlib.crc32(body) == int.from_bytes(data[end : end + 4], "big")))
        position = end + 4
        if body[:4] == b"IEND":
            break
    return found


def cases(seed, count):
    """Yield (name, kind, original, mutated) of a seed."""
    sources = seeds()
    for index in range(count):
        chance = random.Random(f"image {seed} {index}")
        kind, original = sources[index % len(sources)]
        yield f"image-{seed}-{index}", kind, original, mutate(original, chance)


def check(kind, original, data):
    """Return ``refused``, ``same``, ``other`` (no checksum speaks against it) or ``wrong``."""
    try:
        found = decode(kind, data)
    except BadImageError:
        return "refused"
    expected = decode(kind, original)
    if found.shape == expected.shape and np.array_equal(found, expected):
        return "same"
    is_wrong = kind in WITH_CHECKSUMS and not is_excused(original, data)
    return "wrong" if is_wrong else "other"
