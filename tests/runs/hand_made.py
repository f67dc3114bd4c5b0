"""Six queries on an image with an awkward name, and files of answers that are damaged."""

import io

import numpy as np
from PIL import Image

from madbal_ray.labels.answer_rows import StoredQuery
from madbal_ray.labels.answer_store import AnswerStore
from madbal_ray.labels.import_answers import import_replies
from madbal_ray.labels.request_format import RequestBook
from madbal_ray.seams import REQUEST_FORMATS

HEIGHT, WIDTH = 12, 7
CLASSES = ("sky", "=cmd|'/c calc'!A0", "'road")


def six_queries(path):
    """Return a store of six queries; the image has a name that a spreadsheet would run."""
    store = AnswerStore.create(str(path), run_id="r", class_names=CLASSES)
    usual = {"purpose": "training", "unit": "pixel", "superpixel_id": None, "round": 0}
    usual |= {"image_id": "=1+1.png", "image_uri": "=1+1.png", "x": 1, "image_x": 3}
    store.post(
        StoredQuery(query_id=f"q{index}", y=index, image_y=2 * index, rank=index, **usual)
        for index in range(6)
    )
    return store


def book(store, *, picture=b"", sizes=None):
    """Return the store's queries as a format sees them; every image is `picture`."""
    return RequestBook(
        queries=store.queries(),
        states=store.states(),
        class_names=CLASSES,
        colors=[(0, 0, 0), (1, 2, 3), (255, 255, 255)],
        image_bytes=lambda uri: picture,
        image_sizes=sizes or {},
    )


def picture():
    """Return a PNG."""
    file = io.BytesIO()
    pixels = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pictured(store):
    """Return the store's queries as a format sees them, on `picture`."""
    return book(store, picture=picture(), sizes={"=1+1.png": (HEIGHT, WIDTH)})


def take(store, path, name, annotator="ada"):
    """Import a file of a format."""
    replies = REQUEST_FORMATS[name].read(path, pictured(store))
    return import_replies(store, replies, annotator=annotator, source=name)


def written(store, path, name):
    """Export all queries; return the file that holds them."""
    REQUEST_FORMATS[name].write(pictured(store), path)
    return file_of(path, name)


def file_of(path, name):
    """Return the file that holds the queries: FiftyOne's data set is a folder."""
    return path / "samples.json" if name == "fiftyone" else path


ODD = (b'"', b"\n", b"\r", b"\0", b",", b"'", b"=", b"\xf0\x9f\x98\x80", b"9" * 400, b"e9")


def mutated(data, generator):
    """Return bytes with one to three changes: flips, cuts, doubled and moved pieces, odd bytes."""
    for _ in range(generator.randint(1, 3)):
        start = generator.randrange(len(data) + 1)
        piece = data[start : start + generator.randint(1, 40)]
        before, after = data[:start], data[start:]
        kind = generator.randrange(6)
        if kind == 0:
            data = before + bytes([generator.randrange(256)]) + after[1:]
        elif kind == 1:
            data = before + after[len(piece) :]
        elif kind == 2:
            data = before + piece + after
        elif kind == 3:
            data = before + generator.choice(ODD) + after
        elif kind == 4:
            lines = data.split(b"\n")
            one, other = (generator.randrange(len(lines)) for _ in range(2))
            lines[one], lines[other] = lines[other], lines[one]
            data = b"\n".join(lines)
        else:
            data = before
    return data
