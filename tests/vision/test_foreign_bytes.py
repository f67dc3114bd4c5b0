"""Foreign pictures: checksums, formats, depth, transparency, size: before anything is learned."""

import io
import resource
import struct
import subprocess
import sys
import time
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from madbal_ray.data.dataset import mask_lookup
from madbal_ray.errors import BadImageError
from madbal_ray.vision.decode import decode_image, decode_mask

LIMIT = 10**6
LOOKUP = mask_lookup({value: value for value in range(256)})
COLORS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


def encode(array, kind="PNG", **options):
    sink = io.BytesIO()
    Image.fromarray(array).save(sink, kind, **options)
    return sink.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(depth, color_type, rows, *, width, extra=b""):
    """A PNG of raw rows."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def refused(data, reason):
    with pytest.raises(BadImageError, match=reason):
        decode_image(data, max_pixels=LIMIT)


# ---- checksums ----


def test_every_flipped_bit_of_a_mask_is_noticed():
    values = np.random.default_rng(1).integers(0, 9, (6, 7), np.uint8)
    whole = encode(values, compress_level=0)  # stored: damage decodes to other labels
    for byte in range(8, len(whole)):
        damaged = bytearray(whole)
        damaged[byte] ^= 4
        with pytest.raises(BadImageError):
            decode_mask(bytes(damaged), LOOKUP, max_pixels=LIMIT)
    assert np.array_equal(decode_mask(whole, LOOKUP, max_pixels=LIMIT), values)


def test_a_flipped_bit_of_an_image_is_named_by_its_chunk():
    whole = encode(COLORS, compress_level=0)
    start = whole.index(b"IDAT") - 4
    damaged = bytearray(whole)
    damaged[start + 100] ^= 1
    refused(bytes(damaged), f"damaged: the chunk at byte {start} fails its checksum")


def test_a_mask_that_lost_a_whole_chunk_of_pixels_is_refused():
    stream = zlib.compress(b"".join(b"\0" + bytes([7] * 5) for _ in range(4)), level=0)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 8, 0, 0, 0, 0))
    end = chunk(b"IEND", b"")
    signature = b"\x89PNG\r\n\x1a\n"
    whole = signature + head + chunk(b"IDAT", stream[:16]) + chunk(b"IDAT", stream[16:]) + end
    assert (decode_mask(whole, LOOKUP, max_pixels=LIMIT) == 7).all()
    bad = bytearray(stream)
    bad[-1] ^= 1  # of the stream's own checksum; the chunk's is right
    with pytest.raises(BadImageError, match="fail their checksum"):
        decode_mask(signature + head + chunk(b"IDAT", bytes(bad)) + end, LOOKUP, max_pixels=LIMIT)


def test_interlaced_masks_are_read():
    stripes = np.tile(np.arange(9, dtype=np.uint8), (11, 1))
    data = cv2.imencode(".png", stripes)[1].tobytes()
    assert np.array_equal(decode_mask(data, LOOKUP, max_pixels=LIMIT), stripes)
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    rows = b"".join(
        b"\0" + stripes[y, left::right].tobytes()
        for top, left, down, right in (*passes, (1, 0, 2, 1))
        for y in range(top, 11, down)
    )
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 11, 8, 0, 0, 0, 1))
    body = header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    adam7 = b"\x89PNG\r\n\x1a\n" + body
    assert np.array_equal(decode_mask(adam7, LOOKUP, max_pixels=LIMIT), stripes)


# ---- what a mask is ----


@pytest.mark.parametrize(("depth", "row"), [(2, 0b00011011), (4, 0x3A), (1, 0b01100000)])
def test_grey_masks_of_few_bits_keep_their_values(depth, row):
    per_byte = 8 // depth
    expected = [row >> (8 - depth * (i + 1)) & (2**depth - 1) for i in range(per_byte)]
    data = png(depth, 0, [bytes([row])], width=per_byte)
    assert decode_mask(data, LOOKUP, max_pixels=LIMIT).tolist() == [expected]


def test_a_mask_that_loses_something_is_no_mask():
    data = encode(np.full((16, 16), 3, np.uint8), "JPEG")
    with pytest.raises(BadImageError, match="a mask must be a PNG"):
        decode_mask(data, LOOKUP, max_pixels=LIMIT)


# ---- conversions that lose something ----


def test_deep_colour_tiffs_are_not_cut_to_eight_bits():
    deep = np.arange(12 * 20 * 3, dtype=np.uint16).reshape(12, 20, 3) * 91
    refused(cv2.imencode(".tiff", deep)[1].tobytes(), "16 bits of content")
    shallow = COLORS.astype(np.uint16) * 257
    data = cv2.imencode(".tiff", shallow[..., ::-1])[1].tobytes()
    assert np.array_equal(decode_image(data, max_pixels=LIMIT), COLORS)


def test_deep_colour_ppms_are_not_cut_to_eight_bits():
    values = np.arange(2 * 3 * 3, dtype=">u2").reshape(2, 3, 3) * 1001
    refused(b"P6 # deep\n3 2 65535\n" + values.tobytes(), "16 bits of content")
    values = COLORS.astype(">u2") * 257
    data = b"P6 20 12\n65535\n" + values.tobytes()
    assert np.array_equal(decode_image(data, max_pixels=LIMIT), COLORS)


def test_blanks_in_a_header_cost_nothing():
    """Pillow takes `+10` for a number; a pattern that tries every split of blanks takes hours."""
    data = b"P6" + b" " * 5000 + b"+10 10 255\n" + bytes(300)
    started = time.process_time()
    decode_image(data, max_pixels=10**6)
    assert time.process_time() - started < 1.0


def test_the_one_transparent_colour_of_a_png_is_transparency():
    rgb = [bytes([1, 2, 3, 9, 9, 9])]
    refused(
        png(8, 2, rgb, width=2, extra=chunk(b"tRNS", struct.pack(">3H", 9, 9, 9))), "transparent"
    )
    unused = png(8, 2, rgb, width=2, extra=chunk(b"tRNS", struct.pack(">3H", 9, 9, 8)))
    assert decode_image(unused, max_pixels=LIMIT).tolist() == [[[1, 2, 3], [9, 9, 9]]]
    grey = png(8, 0, [bytes([1, 9])], width=2, extra=chunk(b"tRNS", struct.pack(">H", 9)))
    refused(grey, "transparent")
    deep = png(16, 2, [bytes([1, 1, 2, 2, 3, 3])], width=1, extra=chunk(b"tRNS", b"\1\1\2\2\3\3"))
    refused(deep, "transparent")


@pytest.mark.parametrize("orientation", [3, 6])
def test_sixteen_bit_pngs_are_turned_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    rows = [row.astype(">u2").tobytes() for row in np.array([[1, 2, 3], [4, 5, 6]]) * 257]
    data = png(16, 0, rows, width=3, extra=chunk(b"eXIf", body))
    expected = {3: [[6, 5, 4], [3, 2, 1]], 6: [[4, 1], [5, 2], [6, 3]]}[orientation]
    assert decode_image(data, max_pixels=LIMIT)[..., 0].tolist() == expected


# ---- formats ----

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
0 0 8 8 rectfill
showpage
%%EOF
"""


def test_a_program_is_not_started_for_an_image(tmp_path, monkeypatch):
    """Pillow would run `gs`, whichever is found first."""
    fake = tmp_path / "gs"
    fake.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
    fake.chmod(0o755)
    code = (
        "from madbal_ray.vision.decode import decode_image\n"
        "from madbal_ray.errors import BadImageError\n"
        f"data = {EPS!r}\n"
        "try: decode_image(data, max_pixels=10**6)\n"
        "except BadImageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "not an image that is opened (BMP, JPEG, PNG, PPM, TIFF, WEBP)" in done.stdout
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("kind", ["GIF", "ICO", "TGA", "PCX", "SGI", "JPEG2000", "PDF"])
def test_other_formats_are_refused_whatever_their_name(kind):
    refused(encode(COLORS, kind), "not an image that is opened")


@pytest.mark.parametrize("kind", ["BMP", "PPM", "TIFF"])
def test_documented_formats_are_read(kind):
    assert np.array_equal(decode_image(encode(COLORS, kind), max_pixels=LIMIT), COLORS)


def test_webp_without_loss_is_read():
    data = encode(COLORS, "WEBP", lossless=True)
    assert np.array_equal(decode_image(data, max_pixels=LIMIT), COLORS)


# ---- declared sizes ----


def bomb():
    """A JPEG of a kilobyte that declares 13000 x 13000 pixels."""
    data = bytearray(encode(np.zeros((16, 16, 3), np.uint8), "JPEG", progressive=True))
    at = data.index(b"\xff\xc2") + 5
    data[at : at + 4] = struct.pack(">HH", 13_000, 13_000)
    return bytes(data)


def test_a_jpeg_that_declares_more_than_its_bytes_can_hold_costs_nothing():
    data = bomb()
    assert len(data) < 1300
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadImageError, match="bytes cannot hold 13000 x 13000 pixels"):
        decode_image(data, max_pixels=178_956_970)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_png_that_declares_more_than_its_bytes_can_hold_costs_nothing():
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 13_000, 13_000, 8, 2, 0, 0, 0))
    body = header + chunk(b"IDAT", zlib.compress(b"\0" * 10_000)) + chunk(b"IEND", b"")
    with pytest.raises(BadImageError, match="cannot hold 13000 x 13000 pixels"):
        decode_image(b"\x89PNG\r\n\x1a\n" + body, max_pixels=178_956_970)


def test_a_flat_jpeg_is_no_bomb():
    flat = encode(np.full((2048, 2048), 7, np.uint8), "JPEG", progressive=True, optimize=True)
    assert decode_image(flat, max_pixels=5 * 10**6).shape == (2048, 2048, 3)


def test_reasons_hold_no_address_of_a_process():
    for data in (b"junk", b"\x89PNG\r\n\x1a\n", b"II*\0junkjunk", b"RIFF\0\0\0\0WEBPVP8 "):
        with pytest.raises(BadImageError) as caught:
            decode_image(data, max_pixels=LIMIT)
        assert "0x" not in caught.value.reason
