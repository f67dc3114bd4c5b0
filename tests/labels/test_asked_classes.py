"""What was asked, by true class: literal answers in, literal counts out."""

import numpy as np
import pyarrow as pa

from madbal_ray.labels.asked_classes import asked_classes
from madbal_ray.labels.class_map import pack_class_map

SCHEMA = pa.schema(
    [
        ("round", pa.int32()),
        ("unit", pa.string()),
        ("class_id", pa.int32()),
        ("status", pa.string()),
        ("class_map", pa.binary()),
    ]
)


def answer(round_index, status, class_id=None, *, unit="pixel", classes=None):
    packed = None if classes is None else pack_class_map(np.array(classes, np.uint8))
    row = (round_index, unit, class_id, status, packed)
    return dict(zip(SCHEMA.names, row, strict=True))


def counted(*answers):
    found = asked_classes(pa.Table.from_pylist(list(answers), schema=SCHEMA))
    return [tuple(row) for row in found[["round", "class_id", "count"]].to_numpy().tolist()]


def test_answers_are_counted_by_round_and_class_and_void_is_a_class():
    assert counted(
        answer(1, "labelled", 2),
        answer(0, "labelled", 2),
        answer(1, "labelled", 2, unit="superpixel"),
        answer(1, "labelled", 0),
        answer(0, "void"),
    ) == [(0, -1, 1), (0, 2, 1), (1, 0, 1), (1, 2, 2)]


def test_answers_that_say_nothing_are_not_void():
    odd = [answer(0, status) for status in ("waiting", "skipped", "unsure")]
    assert counted(*odd) == []
    assert counted(answer(0, "void"), *odd) == [(0, -1, 1)]


def test_a_whole_image_counts_by_its_pixels():
    whole = [[0, 0, 2], [255, 2, 2]]
    assert counted(
        answer(0, "labelled", 1),
        answer(1, "labelled", unit="image", classes=whole),
        answer(1, "labelled", unit="image", classes=[[1]]),
    ) == [(0, 1, 1), (1, -1, 1), (1, 0, 2), (1, 1, 1), (1, 2, 3)]
