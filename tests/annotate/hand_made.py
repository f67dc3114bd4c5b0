"""A store of hand-made queries on pictures of known pixels, and its desk."""

import io
import uuid
from itertools import cycle, islice

import numpy as np
from PIL import Image

from madbal_ray.annotate.desk import Desk
from madbal_ray.annotate.pictures import Pictures
from madbal_ray.labels.answer_rows import StoredQuery
from madbal_ray.labels.answer_store import AnswerStore

CLASSES = ("sky", "<script>alert(1)</script>", "road")
COLORS = [(70, 130, 180), (0, 0, 0), (128, 64, 128)]
HEIGHT, WIDTH = 300, 400


def picture(index):
    """Return pixels that differ everywhere: red tells the row, green the column, blue the image."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([y % 256, x % 256, np.full_like(y, index)], axis=-1).astype(np.uint8)


def region(query):
    """Return a square of 10 x 10 pixels around the pixel, on a working grid like the images'."""
    found = np.zeros((HEIGHT, WIDTH), bool)
    y, x = query.image_y, query.image_x
    found[max(0, y - 5) : y + 5, max(0, x - 5) : x + 5] = True
    return found


def picture_bytes(uri):
    file = io.BytesIO()
    Image.fromarray(picture(int(uri.split("-")[1]))).save(file, "PNG")
    return file.getvalue()


def made_queries(images, each, *, round=0):
    return [
        StoredQuery(
            query_id=f"q{round}i{image}n{rank}",
            round=round,
            purpose="training",
            image_id=f"image-{image}",
            image_uri=f"image-{image}",
            y=rank,
            x=2 * rank,
            image_y=(7 * rank + 5) % HEIGHT,
            image_x=(31 * rank + 3) % WIDTH,
            unit="pixel",
            superpixel_id=None,
            rank=rank,
        )
        for image in range(images)
        for rank in range(each)
    ]


def made_store(path, *, images=3, each=20, class_names=CLASSES, run_id="r" * 24):
    store = AnswerStore.create(str(path), run_id=run_id, class_names=class_names)
    store.post(made_queries(images, each))
    return store


def made_desk(
    store,
    *,
    annotators=("ada", "bob"),
    overlap=0.0,
    correction=None,
    kind=Desk,
    read=picture_bytes,
):
    return kind(
        store,
        Pictures(read, max_pixels=10**6),
        annotators=annotators,
        colors=list(islice(cycle(COLORS), len(store.class_names))),
        image_sizes={query.image_id: (HEIGHT, WIDTH) for query in store.queries()},
        title="<b>made</b>",
        overlap=overlap,
        regions=region,
        correction=correction,
    )


def said(query_id, status="labelled", class_name="sky", **more):
    """Return an answer as the page sends it."""
    return {
        "uuid": str(uuid.uuid4()),
        "query_id": query_id,
        "status": status,
        "class_name": class_name if status == "labelled" else None,
        "milliseconds": 1500,
        **more,
    }
