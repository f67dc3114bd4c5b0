"""Queries as a FiftyOne data set: ``samples.json`` of a sample an image, a `Keypoint` a query.

Points are relative to the image, 0..1. The file name of a sample is relative to the data root::

    fo.Dataset.from_dir(dataset_dir="ask", dataset_type=fo.types.FiftyOneDataset, rel_dir=ROOT)

The class goes into the label of the keypoint, and the data set comes back by its export in the
same type. Without a ``metadata.json`` FiftyOne reads the layout that it wrote before 0.8, which
names no version of its database.

Source: `LegacyFiftyOneDatasetImporter` and `FiftyOneDatasetExporter` of fiftyone 1.22.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from madbal_ray.data.members import file_of
from madbal_ray.errors import DataError
from madbal_ray.labels.answer_rows import StoredQuery
from madbal_ray.labels.exchange import (
    Words,
    by_image,
    number,
    read_json,
    shown,
    words_for,
)
from madbal_ray.labels.request_format import Refusal, Reply, RequestBook, RequestFormat
from madbal_ray.labels.settle import Vote
from madbal_ray.state.storage import Folder

FIELD = "queries"
MEMBER = "samples.json"


def write(book: RequestBook, out: Path) -> None:
    """Write the folder of a data set.

    Raises:
        DataError: images lie inside archives, which FiftyOne does not open.
    """
    words = words_for(book.class_names)
    points: dict[str, list[dict]] = {}
    for query, vote in book.votes():
        size = book.image_sizes[query.image_id]
        points.setdefault(query.image_uri, []).append(_keypoint(query, vote, words, size))
    samples = []
    for uri, queries in by_image(book.queries):
        if file_of(uri) != uri:
            raise DataError(f"{uri} lies inside an archive, which FiftyOne cannot open; export csv")
        keypoints = {"_cls": "Keypoints", "keypoints": points[uri]}
        samples.append(
            {"filepath": uri, "tags": [], "image_id": queries[0].image_id, FIELD: keypoints}
        )
    text = json.dumps({"samples": samples}, ensure_ascii=False, indent=1)
    Folder(out.absolute()).write(MEMBER, text.encode())


def _keypoint(
    query: StoredQuery, vote: Vote | None, words: Words, size: tuple[int, int]
) -> dict[str, Any]:
    height, width = size
    return {
        "_cls": "Keypoint",
        "label": words.word(vote),
        "points": [[(query.image_x + 0.5) / width, (query.image_y + 0.5) / height]],
        "query_id": query.query_id,
        "annotator": None if vote is None else vote.annotator,
    }


def read(path: Path, book: RequestBook) -> Iterator[Reply | Refusal]:
    """Yield what every keypoint of the field `queries` says.

    Args:
        path: the folder of the data set, or its ``samples.json``.
    """
    file = path / MEMBER if path.is_dir() else path
    document = read_json(file)
    samples = document.get("samples") if isinstance(document, dict) else None
    if not isinstance(samples, list):
        raise DataError(
            f"{file}: no list of samples; export the data set as fo.types.FiftyOneDataset"
        )
    words = words_for(book.class_names)
    for index, sample in enumerate(samples, 1):
        yield from _sample(f"sample {index}", sample, words, book.image_sizes)


def _sample(
    where: str, sample: Any, words: Words, sizes: Mapping[str, tuple[int, int]]
) -> Iterator[Reply | Refusal]:
    field = sample.get(FIELD) if isinstance(sample, dict) else None
    keypoints = field.get("keypoints") if isinstance(field, dict) else None
    if not isinstance(keypoints, list):
        yield Refusal(where, f"{FIELD} {shown(field)}", "keypoints, as they were exported")
        return
    image_id = sample.get("image_id")
    if not isinstance(image_id, str):
        yield Refusal(where, f"image_id {shown(image_id)}", "image_id as it was exported")
        return
    for index, keypoint in enumerate(keypoints, 1):
        yield _reply(f"{where}, keypoint {index}", keypoint, image_id, words, sizes)


def _reply(
    where: str,
    keypoint: Any,
    image_id: str,
    words: Words,
    sizes: Mapping[str, tuple[int, int]],
) -> Reply | Refusal:
    if not isinstance(keypoint, dict):
        return Refusal(where, shown(keypoint), "a keypoint")
    texts = {key: keypoint.get(key) for key in ("query_id", "label", "annotator")}
    for key, text in texts.items():
        if not isinstance(text, str) and (text is not None or key == "query_id"):
            return Refusal(where, f"{key} {shown(text)}", "text")
    place = _place(keypoint.get("points"))
    if place is None:
        return Refusal(where, f"points {shown(keypoint.get('points'))}", "one point, [[x, y]]")
    height, width = sizes.get(image_id, (0, 0))
    status, class_name = words.meaning(texts["label"] or "")
    return Reply(
        where=where,
        query_id=keypoint["query_id"],
        image_id=image_id,
        x=place[0] * width,
        y=place[1] * height,
        status=status,
        class_name=class_name,
        annotator=texts["annotator"],
    )


def _place(points: Any) -> tuple[float, float] | None:
    if not isinstance(points, list) or len(points) != 1:
        return None
    (point,) = points
    if not isinstance(point, list) or len(point) != 2:
        return None
    x, y = number(point[0]), number(point[1])
    return None if x is None or y is None else (x, y)


FIFTYONE = RequestFormat(name="fiftyone", names_annotators=True, write=write, read=read)
