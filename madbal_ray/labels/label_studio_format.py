"""Queries as tasks of Label Studio, raw JSON: crops to classify, or whole images with points.

``label-studio`` writes a task a query, a crop inside it; ``label-studio-keypoints`` a task an
image, which Label Studio serves from its local storage, points in percent. Beside ``ask.json``
lies ``ask.config.xml``, the labeling interface. Answers come back as the export *JSON*; both forms
are read by either name. A cancelled annotation is a skip, `lead_time` the seconds, `completed_by`
the annotator.

Longer than others: one tool, whose two forms share tasks, words and reading.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from PIL import Image, ImageDraw

from madbal_ray.errors import BadImageError, DataError
from madbal_ray.labels.answer_rows import StoredQuery
from madbal_ray.labels.exchange import Words, by_image, number, read_json, shown, words_for
from madbal_ray.labels.request_format import Refusal, Reply, RequestBook, RequestFormat
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
            word = words.word(book.states[query.query_id].settled)
            tasks.append({"data": data, "annotations": _settled(word, words)})
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


def _settled(word: str, words: Words) -> list[dict]:
    if word == words.undefined:
        return []
    skipped = word == words.skip
    said = {"from_name": "class", "to_name": "image", "type": "choices"}
    result = [] if skipped else [{**said, "value": {"choices": [word]}}]
    return [{"result": result, "was_cancelled": skipped}]


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
                    "keypointlabels": [words.word(book.states[query.query_id].settled)],
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


def read(path: Path, book: RequestBook) -> Iterator[Reply | Refusal]:
    """Yield what every annotation says; drafts and predictions are nobody's answer."""
    tasks = read_json(path)
    if not isinstance(tasks, list):
        raise DataError(f"{path}: no list of tasks; export the project as JSON (raw, not JSON-MIN)")
    words = words_for(book.class_names)
    for index, task in enumerate(tasks, 1):
        yield from _task(f"task {index}", task, words, book.image_sizes)


def _task(
    where: str, task: Any, words: Words, sizes: Mapping[str, tuple[int, int]]
) -> Iterator[Reply | Refusal]:
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(data, dict):
        yield Refusal(where, f"no data ({shown(task)})", "a task of Label Studio's raw JSON")
        return
    image_id, query_id, query_ids = (data.get(key) for key in ("image_id", "query_id", "query_ids"))
    asked = [query_id] if query_ids is None else query_ids
    if not isinstance(asked, list) or not all(isinstance(name, str) for name in asked):
        yield Refusal(where, f"query_id {shown(query_id)}", "data.query_id as it was exported")
        return
    if not isinstance(image_id, str):
        yield Refusal(where, f"image_id {shown(image_id)}", "data.image_id as it was exported")
        return
    annotations = task.get("annotations")
    if not isinstance(annotations, list):
        yield Refusal(
            where, f"annotations {shown(annotations)}", "a list: export JSON, not JSON-MIN"
        )
        return
    if not annotations:
        yield from (Reply(where=where, query_id=str(name), status="") for name in asked)
    for number_of, annotation in enumerate(annotations, 1):
        place = where if len(annotations) == 1 else f"{where}, annotation {number_of}"
        if query_ids is None:
            yield _choice(place, annotation, data, words)
        else:
            yield from _points(place, annotation, data, words, sizes)


def _spoken(where: str, annotation: Any) -> dict[str, Any] | Refusal:
    """Return who gave an annotation, how long it took, whether it is a skip, and its results."""
    if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
        return Refusal(where, f"annotation {shown(annotation)}", "one with a list of results")
    by, seconds = annotation.get("completed_by"), annotation.get("lead_time")
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    if by is not None and (isinstance(by, bool) or not isinstance(by, int | str)):
        return Refusal(where, f"completed_by {shown(by)}", "a user")
    if seconds is not None and number(seconds) is None:
        return Refusal(where, f"lead_time {shown(seconds)}", "seconds")
    cancelled = annotation.get("was_cancelled", False)
    if cancelled not in (None, True, False):
        return Refusal(where, f"was_cancelled {shown(cancelled)}", "true or false")
    return {
        "annotator": f"user {by}" if isinstance(by, int) else by,
        "seconds": None if seconds is None else number(seconds),
        "cancelled": bool(cancelled),
        "results": annotation["result"],
    }


def _choice(where: str, annotation: Any, data: dict, words: Words) -> Reply | Refusal:
    spoken = _spoken(where, annotation)
    if isinstance(spoken, Refusal):
        return spoken
    x, y = number(data.get("x")), number(data.get("y"))
    if x is None or y is None:
        return Refusal(where, f"x {shown(data.get('x'))}, y {shown(data.get('y'))}", "two numbers")
    status, class_name = "skipped", ""
    if not spoken["cancelled"]:
        picked = [_labels(result, "choices") for result in spoken["results"]]
        if len(picked) > 1 or any(len(names) != 1 for names in picked):
            return Refusal(where, f"choices {shown(spoken['results'])}", "one choice")
        status, class_name = words.meaning(picked[0][0] if picked else "")
    return Reply(
        where=where,
        query_id=data["query_id"],
        image_id=data["image_id"],
        x=x,
        y=y,
        status=status,
        class_name=class_name,
        annotator=spoken["annotator"],
        seconds=spoken["seconds"],
    )


def _points(
    where: str,
    annotation: Any,
    data: dict,
    words: Words,
    sizes: Mapping[str, tuple[int, int]],
) -> Iterator[Reply | Refusal]:
    spoken = _spoken(where, annotation)
    if isinstance(spoken, Refusal):
        yield spoken
        return
    named = {"image_id": data["image_id"], "annotator": spoken["annotator"]}
    asked = data["query_ids"]
    share = None if spoken["seconds"] is None else spoken["seconds"] / max(1, len(asked))
    if spoken["cancelled"]:
        for query_id in asked:
            yield Reply(where=where, query_id=query_id, status="skipped", seconds=share, **named)
        return
    size = sizes.get(data["image_id"])
    for index, result in enumerate(spoken["results"], 1):
        point = f"{where}, point {index}"
        labels = _labels(result, "keypointlabels")
        if len(labels) != 1:
            yield Refusal(point, f"result {shown(result)}", "a keypoint with one label")
            continue
        value = result["value"]
        x, y = number(value.get("x")), number(value.get("y"))
        if x is None or y is None:
            yield Refusal(point, f"x {shown(value.get('x'))}, y {shown(value.get('y'))}", "percent")
            continue
        found = (result.get("original_height"), result.get("original_width"))
        if size is not None and found != size:
            got = f"a point on an image of {shown(found[1])} x {shown(found[0])}"
            yield Refusal(point, got, f"{size[1]} x {size[0]}")
            continue
        query_id = _query_id(result)
        if query_id is None:
            yield Refusal(point, "a point without a query_id", "one that was exported")
            continue
        status, class_name = words.meaning(labels[0])
        height, width = size or (0, 0)
        yield Reply(
            where=point,
            query_id=query_id,
            x=x * width / 100,
            y=y * height / 100,
            status=status,
            class_name=class_name,
            seconds=share,
            **named,
        )


def _labels(result: Any, kind: str) -> list[str]:
    """Return the words of a result; none where it is something else."""
    value = result.get("value") if isinstance(result, dict) else None
    names = value.get(kind) if isinstance(value, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return []
    return names


def _query_id(result: dict) -> str | None:
    """Return the query of a point: Label Studio gives a copied prediction another id, not text."""
    meta = result.get("meta")
    text = meta.get("text") if isinstance(meta, dict) else None
    if isinstance(text, list):
        text = text[0] if len(text) == 1 else None
    found = result.get("id") if text is None else text
    return found if isinstance(found, str) else None


LABEL_STUDIO = RequestFormat(name="label-studio", write=write_crops, read=read)
LABEL_STUDIO_KEYPOINTS = RequestFormat(
    name="label-studio-keypoints", write=write_keypoints, read=read
)
