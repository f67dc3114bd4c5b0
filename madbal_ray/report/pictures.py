"""Pictures of what a network saw and asked: class maps as PNG, photographs as JPEG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, UInt8
from PIL import Image, ImageDraw

from madbal_ray.arrays import IGNORE_INDEX, Mask, RGBImage

Color = tuple[int, int, int]
"""Red, green, blue, 0..255."""

LONGEST_SIDE = 480
DOT = 3
PATCH = 40


@dataclass(frozen=True)
class QueryPicture:
    """One image as the network that asked last saw it, all on the working grid.

    Attributes:
        score: pixel score, higher = ask first.
        score_name: of `score`.
        truth: None without a mask.
        y, x: pixels that this network asked.
    """

    image_id: str
    image: RGBImage
    prediction: Mask
    score: Float32[np.ndarray, "H W"]
    score_name: str
    truth: Mask | None
    y: np.ndarray
    x: np.ndarray


@dataclass(frozen=True)
class ClusterGallery:
    """Some superpixels of a cluster, filled to squares as K-means' features saw them."""

    cluster_id: int
    patches: Float[np.ndarray, "N size size 3"]


@dataclass(frozen=True)
class RunInsight:
    """What one run's network saw.

    Attributes:
        round_index: of the network; its queries are those of the next round.
        pictures: the same images for every run of one pool.
        detection: signal, average_precision, lift (over chance): how well each signal
            finds wrongly predicted pixels of pool images, asked and void pixels left out;
            empty without masks.
        error_rate: share of wrong pixels, the average precision of chance.
        head_accuracy: output, pixel_accuracy.
        num_images: that were measured.
    """

    round_index: int
    pictures: list[QueryPicture] = field(default_factory=list)
    detection: pd.DataFrame = field(default_factory=pd.DataFrame)
    error_rate: float | None = None
    head_accuracy: pd.DataFrame = field(default_factory=pd.DataFrame)
    num_images: int = 0


def class_palette(colors: Sequence[Color]) -> UInt8[np.ndarray, "rows 3"]:
    """Return one RGB colour per class, and void's in the last row.

    Void is the grey that is farthest from every class, ties to the lightest. There are more
    greys than classes can be, so it is never a class's own colour.
    """
    classes = np.array(colors, np.int64)
    greys = np.arange(255, -1, -1)[:, None].repeat(3, axis=1)
    distance = ((greys[:, None] - classes[None]) ** 2).sum(axis=2).min(axis=1)
    return np.concatenate([classes, greys[[distance.argmax()]]]).astype(np.uint8)


def query_image(picture: QueryPicture) -> str:
    """Draw the image with a dot on every pixel that was asked."""
    canvas, factor = _enlarged(picture.image)
    draw = ImageDraw.Draw(canvas)
    for y, x in zip(picture.y.tolist(), picture.x.tolist(), strict=True):
        cy, cx = (y + 0.5) * factor, (x + 0.5) * factor
        box = (cx - DOT, cy - DOT, cx + DOT, cy + DOT)
        draw.ellipse(box, fill=(255, 230, 0), outline=(0, 0, 0))
    return _uri(canvas, "JPEG")


def class_map(classes: Mask, colors: Sequence[Color]) -> str:
    """Draw a class map in the data set's colours and `class_palette`'s void.

    Args:
        classes: class ids, `IGNORE_INDEX` where void.
        colors: of the classes, by class id.
    """
    rows = np.where(classes == IGNORE_INDEX, len(colors), classes)
    return _uri(_enlarged(class_palette(colors)[rows], smooth=False)[0], "PNG")


def score_map(score: Float32[np.ndarray, "H W"]) -> str:
    """Draw a pixel score, dark = low, bright = ask; scaled to the picture's own range."""
    low, high = float(score.min()), float(score.max())
    scaled = (score - low) / (high - low) if high > low else np.zeros_like(score)
    colors = (255 * mpl.colormaps["magma"](scaled)[..., :3]).astype(np.uint8)
    return _uri(_enlarged(colors)[0], "JPEG")


def gallery_row(gallery: ClusterGallery) -> str:
    """Draw a cluster's patches in one row."""
    patches = [
        Image.fromarray(patch.astype(np.uint8)).resize((PATCH, PATCH), Image.Resampling.BICUBIC)
        for patch in gallery.patches
    ]
    canvas = Image.new("RGB", (max(1, len(patches)) * (PATCH + 2), PATCH), (255, 255, 255))
    for index, patch in enumerate(patches):
        canvas.paste(patch, (index * (PATCH + 2), 0))
    return _uri(canvas, "JPEG")


def _enlarged(image: np.ndarray, *, smooth: bool = True) -> tuple[Image.Image, float]:
    """Bring an image to a longest side of `LONGEST_SIDE`."""
    factor = LONGEST_SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return Image.fromarray(np.ascontiguousarray(image)).resize(size, how), factor


def _uri(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, optimize=True, quality=85)
    return data_uri(buffer.getvalue(), kind.lower())


def data_uri(data: bytes, kind: str) -> str:
    """Return an image as text that a page can hold."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
