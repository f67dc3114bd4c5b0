"""The ledger and the label store agree, or say where they do not."""

import numpy as np
import pytest

from madbal_ray.errors import LabelError
from madbal_ray.labels.ledger import (
    Cost,
    Ledger,
    check_answers,
    check_disjoint,
    cost_of,
    latest_revisions,
    minutes_of_people,
)
from madbal_ray.labels.simulated import answer_pixels
from madbal_ray.state import tables


def pixels(name, rows, unit="pixel"):
    columns = ("image_id", "y", "x")
    return tables.from_rows(
        name, [{**dict(zip(columns, row, strict=True)), "unit": unit} for row in rows]
    )


ASKED = [("a", 0, 1), ("a", 1, 0), ("b", 0, 1)]


def test_answers_in_any_order_are_accepted():
    check_answers(pixels("queries", ASKED), pixels("labels", ASKED[::-1]))
    check_answers(pixels("queries", []), pixels("labels", []))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (ASKED[:2], r"1 pixels are in only one of queries \(3\) and labels \(2\).*b y=0 x=1"),
        ([*ASKED, ("c", 5, 5)], "c y=5 x=5"),
        ([], "the first is a y=0 x=1"),
        ([ASKED[0], *ASKED], "labels hold a pixel twice: a y=0 x=1"),
    ],
)
def test_anything_else_is_named(answers, message):
    with pytest.raises(LabelError, match=message):
        check_answers(pixels("queries", ASKED), pixels("labels", answers))


def test_asking_again_is_named():
    check_disjoint(pixels("labels", ASKED[:1]), pixels("labels", ASKED[1:]))
    check_disjoint(pixels("labels", []), pixels("labels", ASKED))
    with pytest.raises(LabelError, match="1 pixels would be asked twice, the first is b y=0 x=1"):
        check_disjoint(pixels("labels", ASKED[2:]), pixels("labels", ASKED))


def test_totals_count_void_clicks_and_refuse_a_difference():
    ledger = Ledger(num_images=4, num_pixels=4000)
    ledger = ledger.add_round(num_queries=40, answers=Cost(40, 40, 40, 3))
    ledger = ledger.add_round(num_queries=5, answers=Cost(200, 5, 5, 0))
    assert ledger.spent == Cost(pixels=240, regions=45, clicks=45, void=3)
    assert (ledger.pixels_per_image, ledger.clicks_per_image, ledger.percent) == (60, 11.25, 6.0)
    with pytest.raises(LabelError, match="40 queries were asked and 39 answered"):
        ledger.add_round(num_queries=40, answers=Cost(39, 39, 39, 0))
    with pytest.raises(LabelError, match="the pool has 4000"):
        ledger.add_round(num_queries=1, answers=Cost(3999, 1, 3999, 0))


def test_cost_counts_every_unit_on_every_axis():
    rows = [
        {"unit": "pixel", "num_pixels": 1, "status": "labelled"},
        {"unit": "pixel", "num_pixels": 1, "status": "void"},
        {"unit": "superpixel", "num_pixels": 130, "status": "labelled"},
        {"unit": "superpixel", "num_pixels": 90, "status": "void"},
        {"unit": "image", "num_pixels": 1000, "status": "labelled"},
    ]
    cost = cost_of(tables.from_rows("labels", rows))
    assert cost == Cost(pixels=1222, regions=5, clicks=1004, void=2)


def test_the_highest_revision_of_a_pixel_wins():
    rows = [
        {"image_id": "a", "y": 0, "x": 0, "class_id": 1, "revision": 0},
        {"image_id": "a", "y": 0, "x": 1, "class_id": 2, "revision": 0},
        {"image_id": "a", "y": 0, "x": 0, "class_id": 3, "revision": 2},
        {"image_id": "a", "y": 0, "x": 0, "class_id": 4, "revision": 1},
    ]
    kept = latest_revisions(tables.from_rows("labels", rows))
    assert sorted(zip(kept["x"].to_pylist(), kept["class_id"].to_pylist(), strict=True)) == [
        (0, 3),
        (1, 2),
    ]
    first = tables.from_rows("labels", rows[:2])
    assert latest_revisions(first).equals(first)


def test_the_simulated_oracle_reads_the_mask_and_marks_void():
    mask = np.array([[0, 255], [2, 1]], np.uint8)
    class_id, is_void = answer_pixels(mask=mask, y=np.array([1, 0, 1]), x=np.array([0, 1, 1]))
    assert class_id[~is_void].tolist() == [2, 1]
    assert is_void.tolist() == [False, True, False]


def test_minutes_count_a_query_once_with_all_that_was_said_to_it():
    rows = [
        ("a", 0, 1, 1, 30.0),
        ("a", 0, 1, 3, 90.0),  # said again in a later round: the 30 s are in it
        ("a", 0, 2, 1, 60.0),
        ("b", 0, 1, 0, None),
    ]
    columns = ("image_id", "y", "x", "revision", "seconds")
    labels = tables.from_rows(
        "labels", [{**dict(zip(columns, row, strict=True)), "unit": "pixel"} for row in rows]
    )
    assert minutes_of_people(labels) == 2.5
    assert minutes_of_people(labels.slice(3)) is None
