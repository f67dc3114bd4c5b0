"""What a PNG says of itself, once every one of its checksums holds."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from madbal_ray.errors import BadImageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour type -> samples a pixel."""

INFLATE_AT_MOST = 1032
"""Bytes that one byte of a zlib stream can stand for."""

PASSES = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
"""First row, first column, step of rows and of columns of Adam7's passes."""

Span = tuple[int, int]


@dataclass(frozen=True)
class PngHeader:
    """The header of a PNG.

    Attributes:
        bit_depth: bits a sample.
        color_type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
        transparent: the one grey or RGB value (samples as stored) that stands for transparency.
        data: where the compressed pixels lie in the file: (start, end) of each part.
    """

    height: int
    width: int
    bit_depth: int
    color_type: int
    is_interlaced: bool
    transparent: tuple[int, ...] | None
    data: tuple[Span, ...]

    @property
    def num_bytes(self) -> int:
        """Return the bytes of the pixels before compression, a filter byte a row included."""
        passes = PASSES if self.is_interlaced else ((0, 0, 1, 1),)
        total = 0
        for top, left, down, right in passes:
            rows = -((top - self.height) // down)
            columns = -((left - self.width) // right)
            if rows > 0 and columns > 0:
                bits = columns * self.bit_depth * CHANNELS[self.color_type]
                total += rows * (1 + (bits + 7) // 8)
        return total


def read_png_header(data: bytes) -> PngHeader:
    """Check every chunk of a PNG against its CRC, and return the header.

    What follows the last chunk is no part of the picture and is not looked at.

    Raises:
        BadImageError: a chunk does not match its checksum, is cut off or missing.
    """
    view = memoryview(data)
    position, kind = len(SIGNATURE), b""
    header: tuple[int, int, int, int, int, int, int] | None = None
    transparency, parts = b"", []
    while kind != b"IEND":
        if position + 8 > len(data):
            raise BadImageError(f"truncated: the PNG ends after {len(data)} bytes, before its end")
        length, kind = struct.unpack_from(">I4s", data, position)
        start, end = position + 8, position + 8 + length
        if end + 4 > len(data):
            raise BadImageError(
                f"truncated: the chunk at byte {position} has {length} bytes, {len(data) - start} "
                "are left"
            )
        if zlib.crc32(view[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise BadImageError(f"damaged: the chunk at byte {position} fails its checksum")
        if header is None:
            if kind != b"IHDR" or length != 13:
                raise BadImageError("damaged: a PNG that does not begin with its header")
            header = struct.unpack_from(">IIBBBBB", data, start)
        elif kind == b"IDAT":
            parts.append((start, end))
        elif kind == b"tRNS":
            transparency = bytes(view[start:end])
        position = end + 4
    assert header is not None
    width, height, bit_depth, color_type, _, _, interlace = header
    if color_type not in CHANNELS or not parts or not width or not height:
        raise BadImageError("damaged: a PNG without pixels, or of an unknown colour type")
    transparent = None
    if transparency and color_type in (0, 2):
        samples = CHANNELS[color_type]
        if len(transparency) != 2 * samples:
            raise BadImageError("damaged: a PNG whose transparency has the wrong length")
        transparent = struct.unpack(f">{samples}H", transparency)
    found = PngHeader(
        height, width, bit_depth, color_type, interlace == 1, transparent, tuple(parts)
    )
    compressed = sum(end - start for start, end in parts)
    if found.num_bytes > INFLATE_AT_MOST * (compressed + 1):
        raise BadImageError(
            f"truncated: {compressed} compressed bytes cannot hold {height} x {width} pixels"
        )
    return found


def check_png_stream(data: bytes, header: PngHeader) -> None:
    """Check the checksum that spans all parts of the pixels, and their length.

    Parts that are each whole may still be too few, too many or out of order.

    Raises:
        BadImageError: the stream is damaged, or holds another number of bytes.
    """
    expected = header.num_bytes
    inflate = zlib.decompressobj()
    total = 0
    try:
        for start, end in header.data:
            total += len(inflate.decompress(data[start:end], expected + 1 - total))
            if total > expected or inflate.unconsumed_tail:
                raise BadImageError("damaged: more pixels than the PNG declares")
        total += len(inflate.flush())
    except zlib.error as error:
        raise BadImageError(f"damaged: the pixels fail their checksum ({error})") from None
    if total != expected or not inflate.eof:
        raise BadImageError(f"truncated: {total} bytes of pixels, {expected} are declared")
