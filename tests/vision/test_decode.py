"""Every kind of image a user may have: converted without loss, or refused by reason."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from madbal_ray.data.dataset import mask_lookup
from madbal_ray.errors import BadImageError
from madbal_ray.vision.decode import (
    decode_image,
    decode_mask,
    look_into_mask,
    resize_image,
    resize_mask,
)

LIMIT = 10_000


def encode(image, kind="PNG", **options):
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


@pytest.fixture(scope="module")
def colors():
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


def test_rgb_comes_back_as_it_was(colors):
    assert np.array_equal(decode_image(encode(Image.fromarray(colors)), max_pixels=LIMIT), colors)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA"])
def test_modes_that_hold_rgb_without_loss_are_converted(colors, mode):
    source = Image.fromarray(colors).convert("RGB" if mode == "RGBA" else "L").convert(mode)
    decoded = decode_image(encode(source), max_pixels=LIMIT)
    assert np.array_equal(decoded, np.asarray(source.convert("RGB")))


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_with_eight_bits_of_content_are_converted(colors, channels):
    values = colors if channels == 3 else colors[..., 0]
    data = cv2.imencode(".png", values[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    if channels == 1:
        data = cv2.imencode(".png", values.astype(np.uint16) * 257)[1].tobytes()
    expected = np.broadcast_to(values.reshape(12, 20, channels), (12, 20, 3))
    assert np.array_equal(decode_image(data, max_pixels=LIMIT), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(colors, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = Image.fromarray(colors)
    decoded = decode_image(encode(source, "PNG", exif=exif), max_pixels=LIMIT)
    assert decoded.shape[:2] == ((12, 20) if orientation < 5 else (20, 12))
    if orientation == 3:
        assert np.array_equal(decoded, colors[::-1, ::-1])


def bad_files(colors):
    plain = encode(Image.fromarray(colors), "JPEG")
    deep = cv2.imencode(".png", np.arange(240, dtype=np.uint16).reshape(12, 20))[1].tobytes()
    alpha = np.dstack([colors, np.full((12, 20), 7, np.uint8)])
    frames = io.BytesIO()
    Image.fromarray(colors).save(
        frames, "TIFF", save_all=True, append_images=[Image.fromarray(colors)]
    )
    return {
        "empty": (b"", "the file is empty"),
        "text": (b"hello, I am no image", "not an image"),
        "truncated": (plain[: len(plain) // 2], "(?i)truncated"),
        "cmyk": (encode(Image.fromarray(colors).convert("CMYK"), "JPEG"), "CMYK"),
        "deep": (deep, "16 bits of content"),
        "transparent": (encode(Image.fromarray(alpha, "RGBA")), "transparent"),
        "frames": (frames.getvalue(), "2 frames"),
        "gigantic": (encode(Image.new("L", (200, 200))), "40000|200 x 200 pixels, more than"),
    }


@pytest.mark.parametrize(
    "name",
    ["empty", "text", "truncated", "cmyk", "deep", "transparent", "frames", "gigantic"],
)
def test_bad_files_are_refused_by_reason(colors, name):
    data, reason = bad_files(colors)[name]
    with pytest.raises(BadImageError, match=reason):
        decode_image(data, max_pixels=LIMIT)


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    header = encode(Image.new("1", (30_000, 30_000)))
    with pytest.raises(BadImageError, match=r"more than data\.max_pixels"):
        decode_image(header, max_pixels=LIMIT)


def test_masks_are_mapped_and_unknown_values_named():
    lookup = mask_lookup({0: 0, 7: 1, 255: 255})
    mask = np.array([[0, 7], [255, 0]], np.uint8)
    decoded = decode_mask(encode(Image.fromarray(mask)), lookup, max_pixels=LIMIT)
    assert decoded.tolist() == [[0, 1], [255, 0]]
    palette = Image.fromarray(mask, "L").convert("L")
    palette.putpalette([0, 0, 0] * 256) if palette.mode == "P" else None
    with pytest.raises(BadImageError, match=r"outside the class map: 3, 9"):
        decode_mask(encode(Image.fromarray(np.array([[3, 9]], np.uint8))), lookup, max_pixels=LIMIT)
    with pytest.raises(BadImageError, match="one value a pixel"):
        decode_mask(encode(Image.new("RGB", (2, 2), (7, 0, 0))), lookup, max_pixels=LIMIT)


def test_mask_resize_takes_the_pixel_under_each_centre():
    mask = np.arange(6 * 9, dtype=np.uint8).reshape(6, 9)
    small = resize_mask(mask, 2, 3)
    assert small.tolist() == [[10, 13, 16], [37, 40, 43]]
    assert resize_mask(mask, 12, 9)[::2].tolist() == mask.tolist()


def test_image_resize_keeps_a_constant_and_its_centre_of_mass():
    flat = np.full((30, 40, 3), 77, np.uint8)
    assert (resize_image(flat, 7, 11) == 77).all()
    dot = np.zeros((40, 40, 3), np.uint8)
    dot[10:20, 20:30] = 200
    small = resize_image(dot, 20, 20)[..., 0].astype(float)
    rows, columns = np.indices(small.shape)
    assert (rows * small).sum() / small.sum() == pytest.approx(7.0, abs=0.05)
    assert (columns * small).sum() / small.sum() == pytest.approx(12.0, abs=0.05)


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [[1, 2, 3], [4, 5, 6]]),
        (2, [[3, 2, 1], [6, 5, 4]]),
        (3, [[6, 5, 4], [3, 2, 1]]),
        (4, [[4, 5, 6], [1, 2, 3]]),
        (5, [[1, 4], [2, 5], [3, 6]]),
        (6, [[4, 1], [5, 2], [6, 3]]),
        (7, [[6, 3], [5, 2], [4, 1]]),
        (8, [[3, 6], [2, 5], [1, 4]]),
    ],
)
def test_every_exif_orientation_is_turned_upright(orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    assert decode_image(encode(stored, exif=exif), max_pixels=LIMIT)[..., 0].tolist() == expected


def test_sixteen_bit_channels_keep_their_order_and_value():
    deep = np.array([[[3, 2, 1]]], np.uint16) * 257  # OpenCV writes blue, green, red
    data = cv2.imencode(".png", deep)[1].tobytes()
    assert decode_image(data, max_pixels=LIMIT).tolist() == [[[1, 2, 3]]]


def test_a_palette_mask_is_its_positions_not_its_colours():
    mask = Image.fromarray(np.array([[0, 1], [2, 255]], np.uint8))
    mask.putpalette([9, 9, 9, 1, 1, 1, 0, 0, 0] + [7, 7, 7] * 253)
    assert mask.mode == "P"
    lookup = mask_lookup({0: 2, 1: 0, 2: 1, 255: 255})
    assert decode_mask(encode(mask), lookup, max_pixels=LIMIT).tolist() == [[2, 0], [1, 255]]


def test_a_sixteen_bit_mask_holds_large_values():
    mask = np.array([[300, 65_535]], np.uint16)
    data = cv2.imencode(".png", mask)[1].tobytes()
    lookup = mask_lookup({300: 4, 65_535: 255})
    assert decode_mask(data, lookup, max_pixels=LIMIT).tolist() == [[4, 255]]


@pytest.mark.parametrize("channels", [3, 4])
def test_a_sixteen_bit_mask_of_several_channels_holds_eight_bits_each(channels):
    """Pillow reads each channel's upper byte: class 3 would be class 0."""

    def saved(*values):
        mask = np.array([values], np.uint16)[..., None].repeat(3, axis=2)
        alpha = np.full((1, len(values), 1), 65_535, np.uint16)
        deep = np.concatenate([mask, alpha], axis=2)[..., :channels]
        return cv2.imencode(".png", deep)[1].tobytes()

    lookup = mask_lookup({0: 0, 3: 1, 255: 255})
    data = saved(0, 3 * 257, 65_535)
    assert decode_mask(data, lookup, max_pixels=LIMIT).tolist() == [[0, 1, 255]]
    for odd in (saved(3, 0), saved(0, 3 * 257 + 1)):
        for read in (
            lambda odd=odd: decode_mask(odd, lookup, max_pixels=LIMIT),
            lambda odd=odd: look_into_mask(odd, max_pixels=LIMIT),
        ):
            with pytest.raises(BadImageError, match="16 bits of content"):
                read()


def test_a_deep_tiff_that_is_to_be_turned_is_refused():
    deep = np.arange(6, dtype=np.uint16).reshape(1, 2, 3) * 257
    data = cv2.imencode(".tif", deep, [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1].tobytes()
    assert decode_image(data, max_pixels=LIMIT).tolist() == [[[2, 1, 0], [5, 4, 3]]]
    exif = Image.Exif()
    exif[0x0112] = 3
    eight = encode(Image.fromarray((deep // 257).astype(np.uint8)), "TIFF", exif=exif)
    assert decode_image(eight, max_pixels=LIMIT).tolist() == [[[3, 4, 5], [0, 1, 2]]]
    with pytest.raises(BadImageError, match="a 16-bit TIFF with an orientation"):
        decode_image(with_orientation(data, 3), max_pixels=LIMIT)


def with_orientation(data, orientation):
    """Append to a little-endian TIFF a directory that has the tag besides."""
    start = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[start : start + 2], "little")
    entries = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    entries = [entry for entry in entries if entry[:2] != b"\x12\x01"]
    entries.append(b"\x12\x01\x03\x00\x01\x00\x00\x00" + orientation.to_bytes(4, "little"))
    entries.sort(key=lambda entry: int.from_bytes(entry[:2], "little"))
    directory = len(entries).to_bytes(2, "little") + b"".join(entries) + bytes(4)
    padded = data + bytes(len(data) % 2)
    return padded[:4] + len(padded).to_bytes(4, "little") + padded[8:] + directory


def test_an_image_of_exactly_the_limit_is_read():
    data = encode(Image.new("L", (100, 100)))
    assert decode_image(data, max_pixels=10_000).shape == (100, 100, 3)
    with pytest.raises(BadImageError, match=r"100 x 100 pixels, more than data\.max_pixels = 9999"):
        decode_image(data, max_pixels=9_999)
