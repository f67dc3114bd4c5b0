"""Answers to queries of earlier rounds: revisions, what is paid for, and what counts."""

import pytest

from madbal_ray.labels.answer_rows import NewAnswer, StoredQuery
from madbal_ray.labels.answer_store import AnswerStore
from madbal_ray.labels.late_answers import late_rows
from madbal_ray.labels.ledger import Cost, Ledger, cost_of, latest_revisions, of_round
from madbal_ray.state import tables

NAMES = ("round", "image_id", "y", "x", "unit")


def label(x, status, *, class_id=None, revision=0, seconds=None, round=0, num_pixels=1):
    return {
        "round": round, "image_id": "a", "y": 0, "x": x, "unit": "pixel", "superpixel_id": 7,
        "num_pixels": num_pixels, "image_y": 1, "image_x": 2 * x, "class_id": class_id,
        "status": status, "oracle": "people", "annotator": None, "seconds": seconds,
        "revision": revision,
    }  # fmt: skip


def answer(x, status, revision, *, class_id=None, seconds=None):
    return {
        "round": 0, "image_id": "a", "y": 0, "x": x, "unit": "pixel", "query_id": f"q{x}",
        "class_id": class_id, "status": status, "annotator": "ada", "seconds": seconds,
        "revision": revision,
    }  # fmt: skip


EARLIER = tables.from_rows(
    "labels",
    [label(0, "waiting"), label(1, "labelled", class_id=2, revision=1, seconds=2.0)],
)


def late(*rows, earlier=(EARLIER,)):
    return late_rows(list(earlier), tables.from_rows("answers", list(rows)), oracle_name="people")


def test_a_first_answer_pays_for_its_pixel_and_a_change_of_mind_for_a_click_alone():
    found = late(
        answer(0, "labelled", 1, class_id=1, seconds=3.0),
        answer(1, "labelled", 2, class_id=0, seconds=2.5),
    )
    first, second = sorted(found.to_pylist(), key=lambda row: row["x"])
    assert (first["num_pixels"], first["seconds"], first["class_id"]) == (1, 3.0, 1)
    assert (second["num_pixels"], second["seconds"], second["class_id"]) == (0, 0.5, 0)
    assert (first["round"], first["image_x"], first["superpixel_id"]) == (0, 0, 7)
    assert cost_of(found) == Cost(pixels=1, regions=2, clicks=2, void=0)


def test_what_was_paid_for_before_it_was_taken_back_is_not_paid_for_again():
    undone = tables.from_rows("labels", late(answer(1, "waiting", 2, seconds=2.0)).to_pylist())
    found = late(answer(1, "void", 3, seconds=4.0), earlier=(EARLIER, undone))
    assert [row["num_pixels"] for row in found.to_pylist()] == [0]
    assert [row["seconds"] for row in found.to_pylist()] == [2.0]


def test_the_latest_word_counts():
    found = late(answer(1, "void", 2))
    both = latest_revisions(tables.concat("labels", [EARLIER, found])).to_pylist()
    assert [(row["x"], row["status"]) for row in both] == [(0, "waiting"), (1, "void")]


def test_the_ledger_knows_what_waits_and_what_came_late():
    ledger = Ledger(num_images=1, num_pixels=100)
    ledger = ledger.add_round(num_queries=2, answers=cost_of(EARLIER), waiting=1)
    assert ledger.spent == Cost(1, 1, 1, 0)
    found = tables.concat("labels", [late(answer(0, "void", 1)), of_round(EARLIER, 1)])
    own = tables.from_rows("labels", [label(5, "labelled", class_id=0, round=1)])
    answers = cost_of(tables.concat("labels", [found, own]))
    ledger = ledger.add_round(num_queries=1, answers=answers, late=1)
    assert ledger.spent == Cost(pixels=3, regions=3, clicks=3, void=1)
    with pytest.raises(ValueError, match="1 queries were asked and 2 answered"):
        ledger.add_round(num_queries=1, answers=answers)


def test_a_store_knows_the_seconds_of_all_who_spoke(tmp_path):
    with AnswerStore.create(str(tmp_path / "a"), run_id="r", class_names=("x", "y")) as store:
        store.post(
            [
                StoredQuery(
                    query_id="q", round=0, purpose="training", image_id="a", image_uri="a", y=0,
                    x=0, image_y=0, image_x=0, unit="pixel", superpixel_id=None, rank=0,
                )
            ]
        )  # fmt: skip
        for name, milliseconds in (("ada", 1000), ("bob", None), ("ada", 500)):
            store.append(
                [
                    NewAnswer(
                        query_id="q", annotator=name, status="void", milliseconds=milliseconds,
                        source="test",
                    )
                ]
            )  # fmt: skip
        assert (store.states()["q"].seconds, store.states()["q"].revision) == (1.5, 3)
