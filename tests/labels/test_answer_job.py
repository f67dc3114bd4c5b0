"""Queries of a shard answered: places, regions, costs and refusals, on images of six pixels."""

import numpy as np
import pytest

from madbal_ray.config.file import load_config
from madbal_ray.config.schema import Config
from madbal_ray.engine.local import LocalEngine
from madbal_ray.engine.shards import complete_stage
from madbal_ray.errors import AnswersPending, LabelError
from madbal_ray.labels.answer_job import AnswerQueries
from madbal_ray.labels.class_map import pack_class_map, unpack_class_map
from madbal_ray.labels.oracle import Answers, Oracle, Pending
from madbal_ray.labels.requests import RequestPixels
from madbal_ray.labels.simulated_oracle import SimulatedOracle
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from tests.conftest import tiny_config
from tests.hand_made import FromArrays, pool_image, write_labels, write_pool, write_stage

WIDE = {"original": (4, 9), "work": (2, 3)}
"""Working pixel (y, x) lies in the original pixel (2 y + 1, 3 x + 1)."""
MASK = np.repeat(np.repeat([[0, 1, 2], [2, 255, 1]], 2, axis=0), 3, axis=1).astype(np.uint8)
TWO = np.array([[0, 0, 1], [0, 1, 1]])
"""A label map of two superpixels."""


class Given(Oracle):
    """Gives the answers it was made with, by image_id; notes the questions."""

    def __init__(self, **answers):
        super().__init__(Config(), 3)
        self.answers, self.asked = answers, []

    def answer(self, questions):
        self.asked.append(questions)
        return self.answers[questions.image.image_id]


def answers(classes, status=None, **more):
    status = status or ["labelled"] * len(classes)
    return Answers(class_id=np.array(classes, np.int64), status=status, **more)


def query(image_id, y, x, unit="pixel", **more):
    row = {"round": 3, "image_id": image_id, "y": y, "x": x, "unit": unit, "rank": 0}
    return row | more


def job_of(tmp_path, shards, oracle=None, *, earlier=(), names=("a",), per_shard=9, mask=MASK):
    images = [pool_image(name, **WIDE) for name in names]
    pool = write_pool(
        tmp_path,
        {i // per_shard: images[i : i + per_shard] for i in range(0, len(images), per_shard)},
        label_maps=dict.fromkeys(names, TWO),
        reader=FromArrays(masks=dict.fromkeys(names, mask)),
    )
    queries = write_stage(tmp_path, "select", shards, table="queries")
    return AnswerQueries(
        output=StageDir.plan(Folder(tmp_path), "labels", {"new": True}, {}),
        pool=pool,
        queries=queries,
        earlier_labels=earlier,
        oracle=oracle or SimulatedOracle(load_config(tiny_config()), 3),
        oracle_name="somebody",
        round_index=3,
    )


def test_pixels_are_answered_off_the_original_mask_and_void_has_no_class(tmp_path):
    mask = MASK.copy()
    mask[1::2, 1::3] = [[1, 2, 0], [0, 255, 2]]  # the pixels that hold the working pixels' centres
    rows = [query("a", 0, 0), query("a", 1, 1, superpixel_id=1), query("a", 1, 2)]
    job = job_of(tmp_path, {0: rows}, mask=mask)
    found = job.run(0)["labels"].to_pylist()
    usual = {
        "round": 3,
        "image_id": "a",
        "unit": "pixel",
        "superpixel_id": None,
        "num_pixels": 1,
        "class_map": None,
        "oracle": "somebody",
        "annotator": None,
        "seconds": None,
        "revision": 0,
    }
    assert found == [
        usual | {"y": 0, "x": 0, "image_y": 1, "image_x": 1, "class_id": 1, "status": "labelled"},
        usual
        | {"y": 1, "x": 1, "image_y": 3, "image_x": 4, "class_id": None, "status": "void"}
        | {"superpixel_id": 1},
        usual | {"y": 1, "x": 2, "image_y": 3, "image_x": 7, "class_id": 2, "status": "labelled"},
    ]
    assert job.count({"labels": job.run(0)["labels"]}) == {
        "images": 1,
        "pixels": 3,
        "regions": 3,
        "clicks": 3,
        "void": 1,
    }


def test_who_answered_and_how_long_it_took_are_stored(tmp_path):
    said = answers([2], ["skipped"], annotator="ada", seconds=[1.5])
    (row,) = job_of(tmp_path, {0: [query("a", 0, 0)]}, Given(a=said)).run(0)["labels"].to_pylist()
    assert (row["annotator"], row["seconds"], row["status"]) == ("ada", 1.5, "skipped")
    assert row["class_id"] is None


def test_a_superpixel_is_asked_without_the_pixels_asked_before(tmp_path):
    earlier = write_labels(tmp_path, {0: [{"image_id": "a", "y": 1, "x": 2, "class_id": 1}]})
    oracle = Given(a=answers([0, 1]))
    rows = [query("a", 0, 2, "superpixel", superpixel_id=1)]
    rows += [query("a", 0, 0, "superpixel", superpixel_id=0)]
    job = job_of(tmp_path, {0: rows}, oracle, earlier=(earlier,))
    found = job.run(0)["labels"].to_pylist()
    assert [region.tolist() for region in oracle.asked[0].regions] == [
        [[False, False, True], [False, True, False]],
        [[True, True, False], [True, False, False]],
    ]
    assert [row["num_pixels"] for row in found] == [2, 3]
    assert [row["class_id"] for row in found] == [0, 1]


def test_a_superpixel_gets_the_class_of_most_of_its_unasked_pixels(tmp_path):
    # superpixel 1 holds classes 2 (0, 2), void (1, 1) and 1 (1, 2); one of the two is asked
    for asked, expected in (((1, 2), 2), ((0, 2), 1)):
        folder = tmp_path / f"{expected}"
        earlier = write_labels(folder, {0: [{"image_id": "a", "y": asked[0], "x": asked[1]}]})
        row = query("a", 1, 1, "superpixel", superpixel_id=1)
        job = job_of(folder, {0: [row]}, earlier=(earlier,))
        assert job.run(0)["labels"]["class_id"].to_pylist() == [expected]


def test_a_whole_image_is_answered_by_a_map_of_its_unasked_pixels(tmp_path):
    earlier = write_labels(tmp_path, {0: [{"image_id": "a", "y": 0, "x": 1, "class_id": 1}]})
    job = job_of(tmp_path, {0: [query("a", 0, 0, "image")]}, earlier=(earlier,))
    labels = job.run(0)["labels"]
    (row,) = labels.to_pylist()
    stored = unpack_class_map(row.pop("class_map"), 2, 3)
    assert stored.tolist() == [[0, 255, 2], [2, 255, 1]]
    assert row == {
        "round": 3,
        "image_id": "a",
        "y": 0,
        "x": 0,
        "unit": "image",
        "superpixel_id": None,
        "num_pixels": 5,
        "image_y": 1,
        "image_x": 1,
        "class_id": None,
        "status": "labelled",
        "oracle": "somebody",
        "annotator": None,
        "seconds": None,
        "revision": 0,
    }
    assert job.count({"labels": labels})["clicks"] == 5


def test_a_class_map_comes_back_as_it_was_stored():
    classes = np.array([[0, 255], [7, 1], [2, 3]], np.uint8)
    assert np.array_equal(unpack_class_map(pack_class_map(classes.T), 2, 3), classes.T)


def test_a_pixel_asked_before_is_refused(tmp_path):
    earlier = write_labels(tmp_path, {0: [{"image_id": "a", "y": 0, "x": 1}]})
    for name, y in (("again", 0), ("new", 1)):
        job = job_of(tmp_path / name, {0: [query("a", y, 1)]}, earlier=(earlier,))
        if name == "new":
            assert job.run(0)["labels"].num_rows == 1
        else:
            with pytest.raises(LabelError, match="asked twice, the first is a y=0 x=1"):
                job.run(0)


def test_every_round_before_is_looked_at(tmp_path):
    rounds = tuple(
        write_labels(tmp_path, {0: [{"image_id": "a", "y": 0, "x": x}]}, round_index=x)
        for x in (0, 1)
    )
    for x in (0, 1):
        job = job_of(tmp_path / str(x), {0: [query("a", 0, x)]}, earlier=rounds)
        with pytest.raises(LabelError, match=f"y=0 x={x}"):
            job.run(0)


def test_waiting_answers_are_added_up_over_the_images_of_a_shard(tmp_path):
    oracle = Given(a=Pending(2, "ada is awaited"), b=answers([1]), c=Pending(3, "bob"))
    rows = [query(name, 0, 0) for name in "abc"]
    with pytest.raises(AnswersPending, match=r"^ada is awaited$") as error:
        job_of(tmp_path, {0: rows}, oracle, names="abc").run(0)
    assert error.value.count == 5
    assert error.value.exit_code == 3


def test_waiting_answers_are_added_up_over_shards(tmp_path):
    oracle = Given(a=Pending(2, "ada is awaited"), b=answers([1]), c=Pending(3, "bob"))
    shards = {0: [query("a", 0, 0)], 1: [query("b", 0, 0)], 2: [query("c", 0, 0)]}
    job = job_of(tmp_path, shards, oracle, names="abc", per_shard=1)
    with pytest.raises(AnswersPending, match=r"^ada is awaited$") as error:
        complete_stage(LocalEngine("cpu"), job, [0, 1, 2], on_row=lambda row: None)
    assert error.value.count == 5
    assert [row["shard_id"] for row in job.output.read_manifest()] == [1]


WHOLE = np.zeros((2, 3), np.uint8)


@pytest.mark.parametrize(
    ("unit", "given", "complaint"),
    [
        ("pixel", answers([0, 1]), "the oracle gave 2 classes and 2 statuses for 1 queries"),
        ("pixel", answers([0], ["void", "void"]), "gave 1 classes and 2 statuses for 1"),
        ("pixel", answers([3]), "the oracle gave class 3; expected 0 to 2"),
        ("pixel", answers([-1]), "the oracle gave class -1; expected 0 to 2"),
        ("image", answers([0]), "a whole image is answered by a class map of 2 x 3"),
        ("image", answers([0], class_map=WHOLE.T.copy()), "by a class map of 2 x 3"),
        ("image", answers([0], class_map=WHOLE + np.uint8(3)), "gave class 3; expected 0 to 2"),
    ],
)
def test_answers_that_do_not_fit_are_refused_by_round_and_image(tmp_path, unit, given, complaint):
    job = job_of(tmp_path, {0: [query("a", 0, 0, unit)]}, Given(a=given))
    with pytest.raises(LabelError, match=f"^round 3, a: .*{complaint}"):
        job.run(0)


def test_of_several_classes_the_one_that_there_is_not_is_named(tmp_path):
    rows = [query("a", 0, 0), query("a", 1, 1)]
    job = job_of(tmp_path, {0: rows}, Given(a=answers([1, -1])))
    with pytest.raises(LabelError, match="gave class -1; expected 0 to 2"):
        job.run(0)


def test_a_status_that_does_not_exist_is_refused(tmp_path):
    odd = answers([0])
    object.__setattr__(odd, "status", ["perhaps"])  # the tests' type checker would refuse it
    job = job_of(tmp_path, {0: [query("a", 0, 0)]}, Given(a=odd))
    with pytest.raises(LabelError, match=r"^round 3, a: the oracle gave status 'perhaps'"):
        job.run(0)


@pytest.mark.parametrize(
    "given",
    [
        answers([9], ["void"]),  # a class is read only where the status is labelled
        answers([2]),
        answers([0]),
    ],
)
def test_answers_that_fit_are_taken(tmp_path, given):
    job = job_of(tmp_path, {0: [query("a", 0, 0)]}, Given(a=given))
    assert job.run(0)["labels"].num_rows == 1


def test_a_whole_image_may_be_void_in_places(tmp_path):
    classes = np.array([[255, 2, 0], [1, 255, 255]], np.uint8)
    job = job_of(
        tmp_path, {0: [query("a", 0, 0, "image")]}, Given(a=answers([9], class_map=classes))
    )
    (row,) = job.run(0)["labels"].to_pylist()
    assert np.array_equal(unpack_class_map(row["class_map"], 2, 3), classes)


def test_requests_name_the_original_pixels(tmp_path):
    rows = [query("a", 1, 2, rank=1, score=0.5, superpixel_id=1, cluster_id=4), query("a", 0, 0)]
    answering = job_of(tmp_path, {0: rows})
    job = RequestPixels(
        output=StageDir.plan(Folder(tmp_path), "requests", {}, {}),
        pool=answering.pool,
        queries=answering.queries,
        run_id="a1",
    )
    table = job.run(0)["pixel_requests"]
    assert {row["rank"]: row for row in table.to_pylist()}[1] == {
        # of sha256(["a1",3,"a",1,2,"pixel"]): it must never change, since files out there hold it
        "query_id": "q74e0e79ace1d92868c0b",
        "y": 1,
        "x": 2,
        "image_id": "a",
        "image_uri": "a.png",
        "image_height": 4,
        "image_width": 9,
        "image_y": 3,
        "image_x": 7,
        "unit": "pixel",
        "rank": 1,
        "score": 0.5,
        "superpixel_id": 1,
        "cluster_id": 4,
    }
    assert job.count({"pixel_requests": table}) == {"images": 1, "asked": 2}
