"""Queries as COCO keypoints, for tools that read them: an annotation a query, one point each.

A category a class, in the run's order from 1, then ``void``, ``skip`` and the one of queries that
wait. The point is the pixel's centre, the box the pixel itself. Nothing comes back: COCO has no
place for who answered, and its tools number annotations anew.

Source: cocodataset.org, *Data format*, sections 1 and 3.
"""

from __future__ import annotations

import json
from pathlib import Path

from madbal_ray.labels.exchange import by_image, words_for
from madbal_ray.labels.request_format import RequestBook, RequestFormat
from madbal_ray.state.storage import Folder

VISIBLE = 2
"""Flag of a keypoint: labelled and visible."""


def write(book: RequestBook, out: Path) -> None:
    """Write the queries, settled ones with what their answers come to."""
    words = words_for(book.class_names)
    names = (*book.class_names, words.void, words.skip, words.undefined)
    category = {name: index for index, name in enumerate(names, 1)}
    images, annotations = [], []
    for image_number, (uri, queries) in enumerate(by_image(book.queries), 1):
        height, width = book.image_sizes[queries[0].image_id]
        images.append({"id": image_number, "file_name": uri, "width": width, "height": height})
        annotations += [
            {
                "id": len(annotations) + index,
                "image_id": image_number,
                "category_id": category[words.word(book.states[query.query_id].settled)],
                "keypoints": [query.image_x + 0.5, query.image_y + 0.5, VISIBLE],
                "num_keypoints": 1,
                "bbox": [query.image_x, query.image_y, 1, 1],
                "area": 1,
                "iscrowd": 0,
                "query_id": query.query_id,
            }
            for index, query in enumerate(queries, 1)
        ]
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": index, "name": name, "keypoints": ["pixel"], "skeleton": []}
            for name, index in category.items()
        ],
    }
    text = json.dumps(document, ensure_ascii=False, indent=1)
    Folder(out.absolute().parent).write(out.name, text.encode())


COCO = RequestFormat(name="coco", write=write)
