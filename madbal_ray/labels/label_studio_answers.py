"""Answers out of Label Studio's raw JSON, whichever form the tasks had.

A cancelled annotation is a skip, `lead_time` the seconds, `completed_by` the annotator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from madbal_ray.errors import DataError
from madbal_ray.labels.exchange import Words, number, read_json, shown, words_for
from madbal_ray.labels.request_format import Refusal, Reply, RequestBook


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


@dataclass(frozen=True)
class _Annotation:
    """What one person said about a task.

    Attributes:
        seconds: that it took; None: not known.
        is_skip: the annotation was cancelled.
    """

    annotator: str | None
    seconds: float | None
    is_skip: bool
    results: list[Any]


def _annotation(where: str, annotation: Any) -> _Annotation | Refusal:
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
    return _Annotation(
        annotator=f"user {by}" if isinstance(by, int) else by,
        seconds=None if seconds is None else number(seconds),
        is_skip=bool(cancelled),
        results=annotation["result"],
    )


def _choice(where: str, annotation: Any, data: dict, words: Words) -> Reply | Refusal:
    said = _annotation(where, annotation)
    if isinstance(said, Refusal):
        return said
    x, y = number(data.get("x")), number(data.get("y"))
    if x is None or y is None:
        return Refusal(where, f"x {shown(data.get('x'))}, y {shown(data.get('y'))}", "two numbers")
    status, class_name = "skipped", ""
    if not said.is_skip:
        picked = [_labels(result, "choices") for result in said.results]
        if len(picked) > 1 or any(len(names) != 1 for names in picked):
            return Refusal(where, f"choices {shown(said.results)}", "one choice")
        status, class_name = words.meaning(picked[0][0] if picked else "")
    return Reply(
        where=where,
        query_id=data["query_id"],
        image_id=data["image_id"],
        x=x,
        y=y,
        status=status,
        class_name=class_name,
        annotator=said.annotator,
        seconds=said.seconds,
    )


def _points(
    where: str,
    annotation: Any,
    data: dict,
    words: Words,
    sizes: Mapping[str, tuple[int, int]],
) -> Iterator[Reply | Refusal]:
    said = _annotation(where, annotation)
    if isinstance(said, Refusal):
        yield said
        return
    named = {"image_id": data["image_id"], "annotator": said.annotator}
    asked = data["query_ids"]
    share = None if said.seconds is None else said.seconds / max(1, len(asked))
    if said.is_skip:
        for query_id in asked:
            yield Reply(where=where, query_id=query_id, status="skipped", seconds=share, **named)
        return
    size = sizes.get(data["image_id"])
    for index, result in enumerate(said.results, 1):
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
