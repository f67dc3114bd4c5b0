"""Class masks and a class file from COCO annotations: instances, stuff and panoptic segments.

Source: cocodataset.org, *Data format*, sections 1 and 4. Segments are drawn with pycocotools.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import yaml
from PIL import Image

from madbal_ray.data.class_file import CLASS_FILE, VOID_VALUE
from madbal_ray.data.dataset import spread_colors
from madbal_ray.data.members import read_document, read_image_bytes
from madbal_ray.errors import BadImageError, ConfigError, DataError
from madbal_ray.state.storage import Folder
from madbal_ray.vision.decode import decode_image

MASKS = "masks"
MOST_CLASSES = 255
MOST_PIXELS = 178_956_970
MOST_BYTES = 2**30
SHOWN = 80
Segment = tuple[int, np.ndarray]
"""Value of a class, or `VOID_VALUE`, and where it lies: bool [H, W]."""


@dataclass
class CocoMasks:
    """What was written.

    Attributes:
        class_names: in order of mask value.
        written: masks.
        refused: file name of an image -> why it has no mask.
    """

    class_names: tuple[str, ...]
    written: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return what a person reads."""
        lines = [f"{len(self.class_names)} classes: {', '.join(self.class_names)}"]
        lines.append(f"{self.written} masks")
        for name, reason in sorted(self.refused.items()):
            lines.append(f"no mask for {name}: {reason}")
        return lines


def write_coco_masks(
    annotations: Path, root: Folder, *, rest: str | None = None, panoptic: Path | None = None
) -> CocoMasks:
    """Write ``masks/`` and ``classes.yaml`` below a folder, for data set `folder`.

    Categories without any annotation are left out, the others keep the order of their ids. Where
    instances lie on each other the smaller one is in front; crowds are void.

    Args:
        annotations: of instances, stuff or a panoptic segmentation.
        root: the mask of an image named a/b.jpg there becomes masks/a/b.png.
        rest: class of pixels that no annotation covers; None: they are void.
        panoptic: folder of the PNG files; None: the annotations' name without suffix.

    Raises:
        ConfigError: pycocotools is missing, there are masks already, or too many classes.
        DataError: the file is no such annotations.
    """
    if root.exists(CLASS_FILE) or next(iter((root / MASKS).walk()), None) is not None:
        raise ConfigError(
            f"{root} has {CLASS_FILE} or {MASKS}/ already: move them away, or give another folder"
        )
    book = _Book.of(annotations)
    names = [book.categories[one] for one in book.used] + ([rest] if rest is not None else [])
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{annotations}: {twice!r} would be two classes: give --rest another name")
    if len(names) > MOST_CLASSES:
        raise ConfigError(f"{annotations}: {len(names)} classes; masks hold {MOST_CLASSES} at most")
    result = CocoMasks(tuple(names))
    value_of = {category: value for value, category in enumerate(book.used)}
    colors = spread_colors(len(names))
    uncovered = VOID_VALUE if rest is None else len(book.used)
    folder = panoptic if panoptic is not None else annotations.with_suffix("")
    owners: dict[str, str] = {}
    for image in book.images:
        name = str(image["file_name"])
        try:
            target = _mask_name(name)
            if target.startswith("images/") and not root.exists(
                f"images/{PureWindowsPath(name).as_posix()}"
            ):  # a path from the root, not from images/
                target = target.removeprefix("images/")
            if owners.setdefault(target, name) != name:
                raise ValueError(f"{target} is the mask of {owners[target]} already: rename one")
            size = _size(image)
            of_image = book.annotations.get(image["id"], [])
            mask = np.full(size, uncovered, np.uint8)
            segments = (
                _panoptic(of_image, folder, size, value_of)
                if book.is_panoptic
                else _instances(of_image, size, value_of)
            )
            for value, place in segments:
                mask[place] = value
        except (ValueError, TypeError, KeyError, OSError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            result.refused[name] = reason[:SHOWN]
            continue
        root.write(f"{MASKS}/{target}", _png(mask, colors))
        result.written += 1
    if not result.written:
        return result
    classes = [
        {"name": name, "value": value, "color": list(color)}
        for value, (name, color) in enumerate(zip(names, colors, strict=True))
    ]
    text = yaml.safe_dump({"classes": classes, "void": VOID_VALUE}, sort_keys=False)
    root.write(CLASS_FILE, text.encode())  # last: what has it is whole
    return result


@dataclass(frozen=True)
class _Book:
    """An annotation file.

    Attributes:
        categories: id -> name.
        used: ids with an annotation, in order.
        annotations: image id -> its annotations.
    """

    images: Sequence[Mapping[str, Any]]
    categories: Mapping[int, str]
    used: Sequence[int]
    annotations: Mapping[Any, Sequence[Mapping[str, Any]]]
    is_panoptic: bool

    @staticmethod
    def of(path: Path) -> _Book:
        """Read a file.

        Raises:
            DataError: it cannot be read, or is something else.
        """
        try:
            content = read_document(Folder(path.parent), path.name)
            images, listed = content["images"], content["annotations"]
            categories = {int(one["id"]): str(one["name"]) for one in content["categories"]}
            of_image: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
            for one in listed:
                of_image[one["image_id"]].append(one)
            for one in images:
                _ = one["id"], one["file_name"]
        except DataError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError):
            raise DataError(
                f"{path} is no COCO annotation file: it needs the lists images (id, file_name), "
                "annotations (image_id) and categories (id, name)"
            ) from None
        is_panoptic = any("segments_info" in one for one in listed)
        segments = (
            [segment for one in listed for segment in one.get("segments_info", ())]
            if is_panoptic
            else listed
        )
        used = sorted({one.get("category_id") for one in segments} & categories.keys())
        if not used:
            raise DataError(f"{path}: no annotation is of one of its {len(categories)} categories")
        return _Book(images, categories, used, of_image, is_panoptic)


def _size(image: Mapping[str, Any]) -> tuple[int, int]:
    height, width = int(image["height"]), int(image["width"])
    if not (height > 0 and width > 0 and height * width <= MOST_PIXELS):
        raise ValueError(f"its size is {height} x {width}")
    return height, width


def _mask_name(image: str) -> str:
    path = PureWindowsPath(image)  # which takes both separators
    is_outside = bool(path.anchor) or ".." in path.parts
    if not path.parts or is_outside or "\0" in image:
        raise ValueError("its file name leads out of the folder")
    return path.with_suffix(".png").as_posix()


def _instances(
    annotations: Sequence[Mapping[str, Any]], size: tuple[int, int], value_of: Mapping[int, int]
) -> Iterator[Segment]:
    """Yield an image's segments, the larger ones first."""
    drawn = [_drawn(one, size, value_of) for one in annotations]
    return iter(sorted(drawn, key=lambda segment: -int(segment[1].sum())))


def _drawn(
    annotation: Mapping[str, Any], size: tuple[int, int], value_of: Mapping[int, int]
) -> Segment:
    which = f"annotation {annotation.get('id')}"
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list):
        if not segmentation or not all(_is_polygon(one) for one in segmentation):
            raise ValueError(f"{which}: a polygon is three or more pairs of finite numbers")
    elif isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        if list(segmentation.get("size", ())) != list(size):
            raise ValueError(f"{which}: its mask is of size {segmentation.get('size')}")
        if isinstance(counts, list) and sum(counts) != size[0] * size[1]:
            raise ValueError(f"{which}: its runs are {sum(counts)} pixels long")
        if not isinstance(counts, (list, str)):
            raise ValueError(f"{which}: it has no runs")
    else:
        raise ValueError(f"{which}: it has no segmentation")
    if annotation.get("category_id") not in value_of:
        raise ValueError(f"{which}: category {annotation.get('category_id')} is not declared")
    coco = _mask_tools()
    if isinstance(segmentation, list):
        encoded = coco.merge(coco.frPyObjects(segmentation, *size))
    elif isinstance(segmentation["counts"], list):
        encoded = coco.frPyObjects(segmentation, *size)
    else:  # compressed runs
        encoded = segmentation
    value = VOID_VALUE if annotation.get("iscrowd") else value_of[annotation["category_id"]]
    return value, coco.decode(encoded).astype(bool)


def _is_polygon(points: Any) -> bool:
    return (
        isinstance(points, list)
        and len(points) >= 6
        and len(points) % 2 == 0
        and all(isinstance(p, (int, float)) for p in points)
        and bool(np.isfinite(points).all())
        and bool((np.abs(points) < MOST_PIXELS).all())
    )


def _mask_tools() -> Any:
    if find_spec("pycocotools") is None:
        raise ConfigError(
            "COCO's segments are drawn with pycocotools, which is not installed: pip install "
            "'madbal_ray[coco]'"
        )
    from pycocotools import mask

    return mask


def _panoptic(
    annotations: Sequence[Mapping[str, Any]],
    folder: Path,
    size: tuple[int, int],
    value_of: Mapping[int, int],
) -> Iterator[Segment]:
    """Yield the segments of an image's PNG file, whose colours are ids (R + 256 G + 65536 B)."""
    for annotation in annotations:
        name = _mask_name(str(annotation["file_name"]))
        try:
            data = read_image_bytes(Folder(folder), name, max_bytes=MOST_BYTES)
            picture = decode_image(data, max_pixels=MOST_PIXELS).astype(np.uint32)
        except BadImageError as error:
            raise ValueError(f"{name}: {error.reason}") from None
        if picture.shape[:2] != size:
            raise ValueError(f"{name} is {picture.shape[0]} x {picture.shape[1]}")
        ids = picture[..., 0] + 256 * picture[..., 1] + 65_536 * picture[..., 2]
        for segment in annotation["segments_info"]:
            if segment.get("category_id") not in value_of:
                raise ValueError(f"category {segment.get('category_id')} is not declared")
            crowd = segment.get("iscrowd")
            value = VOID_VALUE if crowd else value_of[segment["category_id"]]
            yield value, ids == int(segment["id"])


def _png(mask: np.ndarray, colors: Sequence[tuple[int, int, int]]) -> bytes:
    image = Image.fromarray(mask, "L")
    # All 256 entries: with fewer Pillow writes fewer bits a pixel, and void would be lost.
    filled = [*colors, *[(0, 0, 0)] * (256 - len(colors))]
    image.putpalette([channel for color in filled for channel in color])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
