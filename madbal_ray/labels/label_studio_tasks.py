"""Queries as tasks of Label Studio: crops to classify, or whole images with points."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from PIL import Image, ImageDraw

from madbal_ray.errors import BadImageError, DataError
from madbal_ray.labels.answer_rows import StoredQuery
from madbal_ray.labels.exchange import by_image, words_for
from madbal_ray.labels.request_format import RequestBook
from madbal_ray.state.storage import Folder
from madbal_ray.vision.decode import decode_image

REACH = 128
"""Pixels of the crop to each side of the query's."""

RING = 9
"""Radius of the mark in pixels; it leaves the pixel itself free."""

HOTKEYS = "1234567890qwertyuiopasdfghjklzxcbnm"
"""For the classes in their order; ``v`` is void. Classes beyond have none."""


def write_crops(book: RequestBook, out: Path) -> None:
    """Write a task a query."""
    words = words_for(book.class_names)
    tasks = []
    for uri, queries in by_image(book.queries):
        image = _decode(book, queries[0])
        for query in queries:
            data = {
                "image": _crop(image, query.image_x, query.image_y),
                "query_id": query.query_id,
                "image_id": query.image_id,
                "image_uri": uri,
                "x": query.image_x + 0.5,
                "y": query.image_y + 0.5,
            }
            tasks.append({"data": data, "annotations": []})
    choices = [
        f"<Choice value={quoteattr(name)}{key} background={quoteattr(_hex(color))}/>"
        for name, key, color in zip(
            book.class_names, _keys(len(book.class_names)), book.colors, strict=True
        )
    ]
    choices.append(f'<Choice value={quoteattr(words.void)} hotkey="v"/>')
    body = [
        '<Image name="image" value="$image" zoom="true"/>',
        '<Choices name="class" toName="image" choice="single-radio" required="true">',
        *(f"  {line}" for line in choices),
        "</Choices>",
    ]
    _save(out, tasks, body)


def write_keypoints(book: RequestBook, out: Path) -> None:
    """Write a task an image; its points are predictions, which an annotator copies and labels."""
    words = words_for(book.class_names)
    tasks = []
    for uri, queries in by_image(book.queries):
        height, width = book.image_sizes[queries[0].image_id]
        result = [
            {
                "id": query.query_id,
                "meta": {"text": [query.query_id]},
                "from_name": "class",
                "to_name": "image",
                "type": "keypointlabels",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {
                    "x": 100 * (query.image_x + 0.5) / width,
                    "y": 100 * (query.image_y + 0.5) / height,
                    "width": 0.5,
                    "keypointlabels": [words.undefined],
                },
            }
            for query in queries
        ]
        data = {
            "image": f"/data/local-files/?d={quote(uri)}",
            "image_id": queries[0].image_id,
            "image_uri": uri,
            "query_ids": [query.query_id for query in queries],
        }
        prediction = {"model_version": "madbal", "result": result}
        tasks.append({"data": data, "annotations": [], "predictions": [prediction]})
    keys = ["", *_keys(len(book.class_names)), ' hotkey="v"', ""]
    grey = (128, 128, 128)
    labels = [
        f"  <Label value={quoteattr(word)}{key} background={quoteattr(_hex(color))}/>"
        for word, key, color in zip(
            words.choices, keys, [grey, *book.colors, grey, grey], strict=True
        )
    ]
    body = [
        '<Image name="image" value="$image" zoom="true"/>',
        '<KeyPointLabels name="class" toName="image" strokeWidth="1">',
        *labels,
        "</KeyPointLabels>",
    ]
    _save(out, tasks, body)


def _save(out: Path, tasks: list[dict], body: list[str]) -> None:
    folder = Folder(out.absolute().parent)
    config = "\n".join(["<View>", *(f"  {line}" for line in body), "</View>", ""])
    folder.write(f"{out.stem}.config.xml", config.encode())
    folder.write(out.name, json.dumps(tasks, ensure_ascii=False, indent=1).encode())


def _keys(count: int) -> list[str]:
    keys = [f' hotkey="{key}"' for key in HOTKEYS]
    return (keys + [""] * count)[:count]


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _decode(book: RequestBook, query: StoredQuery) -> Image.Image:
    height, width = book.image_sizes[query.image_id]
    data = book.image_bytes(query.image_uri)
    try:
        return Image.fromarray(decode_image(data, max_pixels=height * width))
    except BadImageError as error:
        raise DataError(f"image {query.image_id}: {error}; no crop can be made of it") from None


def _crop(image: Image.Image, x: int, y: int) -> str:
    """Return a PNG around a pixel as a data URI, cut at the image's border."""
    left, top = max(0, x - REACH), max(0, y - REACH)
    crop = image.crop(
        (left, top, min(image.width, x + REACH + 1), min(image.height, y + REACH + 1))
    )
    draw = ImageDraw.Draw(crop)
    for radius, color in ((RING, "black"), (RING - 1, "white")):
        draw.circle((x - left, y - top), radius, outline=color)
    file = io.BytesIO()
    crop.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
