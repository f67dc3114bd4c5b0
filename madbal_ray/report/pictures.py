"""Pictures of what a network saw and asked: class maps as PNG, photographs as JPEG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from madbal_ray.arrays import IGNORE_INDEX, Mask, RGBImage

Color = tuple[int, int, int]
"""Red, green, blue, 0..255."""

WRONG = (225, 0, 40)
PATCH = 40


@dataclass(frozen=True)
class NetworkView:
    """What the network of one round made of an image, on the working grid.

    Attributes:
        score: pixel score, higher = ask first.
    """

    round_index: int
    prediction: Mask
    score: Float32[np.ndarray, "H W"]


@dataclass(frozen=True)
class ImageStory:
    """One image through the rounds.

    Attributes:
        reason: why it is shown.
        photo: at its own size.
        truth: on the working grid; None without a mask.
        score_name: of the scores of `views`.
        views: by round.
        queries: a row per query: those of table `queries`; class_id and status of the answer (NaN:
            none yet); predicted (class before it was asked) and term_<signal> (what its network
            said); num_superpixels, budget and share of its cluster; mean_score and dominant_class
            of its superpixel. NaN where a strategy has no such thing.
        outlines: superpixel -> closed lines x0, y0, x1, y1…, the working grid being 0..width and
            0..height.
    """

    image_id: str
    reason: str
    photo: RGBImage
    truth: Mask | None
    score_name: str
    views: list[NetworkView]
    queries: pd.DataFrame
    outlines: dict[int, list[list[float]]]


@dataclass(frozen=True)
class ClusterGallery:
    """Some superpixels of a cluster, filled to squares as K-means' features saw them."""

    cluster_id: int
    patches: Float[np.ndarray, "N size size 3"]


@dataclass(frozen=True)
class RunInsight:
    """What one run's network saw.

    Attributes:
        round_index: of the network that was measured; its queries are those of the last round.
        stories: the same images for every run of one pool.
        detection: signal, average_precision, lift (over chance): how well each signal
            finds wrongly predicted pixels of pool images, asked and void pixels left out;
            empty without masks.
        error_rate: share of wrong pixels, the average precision of chance.
        head_accuracy: output, pixel_accuracy.
        num_images: that were measured.
        superpixels: x, y, image_id, superpixel_id, cluster_id, asked_in_round (NaN: never), error
            (0..1, NaN: not known), a row per superpixel of a sample; empty: this run has no map.
    """

    round_index: int
    stories: list[ImageStory] = field(default_factory=list)
    detection: pd.DataFrame = field(default_factory=pd.DataFrame)
    error_rate: float | None = None
    head_accuracy: pd.DataFrame = field(default_factory=pd.DataFrame)
    num_images: int = 0
    superpixels: pd.DataFrame = field(default_factory=pd.DataFrame)


def class_palette(colors: Sequence[Color]) -> UInt8[np.ndarray, "rows 3"]:
    """Return one RGB colour per class, and void's in the last row.

    Void is the grey that is farthest from every class, ties to the lightest. There are more
    greys than classes can be, so it is never a class's own colour.
    """
    classes = np.array(colors, np.int64)
    greys = np.arange(255, -1, -1)[:, None].repeat(3, axis=1)
    distance = ((greys[:, None] - classes[None]) ** 2).sum(axis=2).min(axis=1)
    return np.concatenate([classes, greys[[distance.argmax()]]]).astype(np.uint8)


def photograph(image: RGBImage, longest_side: int) -> str:
    """Draw an image, made smaller where a side is longer."""
    return _uri(_bounded(Image.fromarray(np.ascontiguousarray(image)), longest_side), "JPEG")


def class_map(classes: Mask, colors: Sequence[Color], longest_side: int) -> str:
    """Draw a class map in the data set's colours and `class_palette`'s void.

    Args:
        classes: class ids, `IGNORE_INDEX` where void.
        colors: of the classes, by class id.
    """
    rows = np.where(classes == IGNORE_INDEX, len(colors), classes)
    return _indexed(rows.astype(np.uint8), class_palette(colors), longest_side)


def error_map(prediction: Mask, truth: Mask, longest_side: int) -> str:
    """Draw where a prediction is wrong: right clear, wrong red, void grey."""
    rows = np.where(truth == IGNORE_INDEX, 2, prediction != truth)
    colors = np.array([(255, 255, 255), WRONG, (128, 128, 128)], np.uint8)
    return _indexed(rows.astype(np.uint8), colors, longest_side, transparency=0)


def score_map(score: Float32[np.ndarray, "H W"], longest_side: int) -> str:
    """Draw a pixel score, dark = low, bright = ask; scaled to the picture's own range."""
    low, high = float(score.min()), float(score.max())
    scaled = (score - low) / (high - low) if high > low else np.zeros_like(score)
    colors = (255 * mpl.colormaps["magma"](scaled)[..., :3]).astype(np.uint8)
    return _uri(_bounded(Image.fromarray(colors), longest_side), "JPEG")


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


def _bounded(image: Image.Image, longest_side: int, *, smooth: bool = True) -> Image.Image:
    """Make an image smaller until no side is longer than `longest_side`."""
    factor = min(1.0, longest_side / max(image.size))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    if size == image.size:
        return image
    return image.resize(size, Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST)


def _indexed(
    rows: UInt8[np.ndarray, "H W"],
    colors: UInt8[np.ndarray, "rows 3"],
    longest_side: int,
    **options: Any,
) -> str:
    """Draw a picture of few colours, by their rows; a few kilobytes."""
    image = Image.fromarray(rows)
    image.putpalette(colors.tobytes())
    return _uri(_bounded(image, longest_side, smooth=False), "PNG", **options)


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, optimize=True, quality=80, **options)
    return data_uri(buffer.getvalue(), kind.lower())


def data_uri(data: bytes, kind: str) -> str:
    """Return an image as text that a page can hold."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
