"""What an annotator sees of an image: a crop around the pixel, and the whole in small."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from PIL import Image

from madbal_ray.arrays import RGBImage
from madbal_ray.labels.answer_rows import StoredQuery
from madbal_ray.vision.decode import decode_image

REACH = 96
"""Pixels that a crop holds on each side of the queried one; page/view.js has the same number."""

WHOLE_SIDE = 960
"""Pixels of the small image's long side, at most."""

KEPT_IMAGES = 4


class Pictures:
    """Crops of images; any number of threads.

    Args:
        read: image_uri -> encoded image, the one that the run asks about.
        max_pixels: of an image; larger ones are refused.
    """

    def __init__(self, read: Callable[[str], bytes], *, max_pixels: int) -> None:
        self._read = read
        self._max_pixels = max_pixels
        self._kept: OrderedDict[str, RGBImage] = OrderedDict()
        self._lock = threading.Lock()

    def crop(self, query: StoredQuery) -> bytes:
        """Return the PNG of rows y - `REACH` .. y + `REACH` and columns alike, cut at the border.

        Raises:
            OSError, DataError: the image cannot be read, or is another one.
        """
        image = self._image(query.image_uri)
        y, x = query.image_y, query.image_x
        part = image[max(0, y - REACH) : y + REACH + 1, max(0, x - REACH) : x + REACH + 1]
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(part)).save(file, "PNG", compress_level=1)
        return file.getvalue()

    def whole(self, query: StoredQuery) -> bytes:
        """Return a JPEG of the image, no side longer than `WHOLE_SIDE`.

        Raises:
            OSError, DataError: the image cannot be read, or is another one.
        """
        picture = Image.fromarray(self._image(query.image_uri))
        picture.thumbnail((WHOLE_SIDE, WHOLE_SIDE))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=85)
        return file.getvalue()

    def _image(self, uri: str) -> RGBImage:
        with self._lock:
            if uri not in self._kept:
                self._kept[uri] = decode_image(self._read(uri), max_pixels=self._max_pixels)
                while len(self._kept) > KEPT_IMAGES:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(uri)
            return self._kept[uri]
