"""Two-stage selection and selection by rarity: literal rows in, literal queries out."""

import numpy as np
import pyarrow as pa
import pytest

from madbal_ray.labels.asked_pixels import AskedPixels
from madbal_ray.selection.chosen_job import QueryChosen
from madbal_ray.selection.diverse_job import QueryDiverse, herd
from madbal_ray.strategies.superpixels import ByRarity
from tests.hand_made import write_stage
from tests.selection.test_jobs_by_hand import planned, scored


def test_herding_takes_what_balances_what_it_took():
    # standardised: -1.5, -0.5, 0.5, 1.5 (over 1.118): first the lowest row, all being alike
    assert herd(np.array([[0.0], [1.0], [2.0], [3.0]]), 4).tolist() == [0, 3, 1, 2]
    assert herd(np.array([[5.0, 1.0], [5.0, 2.0]]), 9).tolist() == [0, 1]  # a constant column
    assert herd(np.zeros((0, 3)), 2).tolist() == []


def test_herding_goes_on_from_what_was_taken():
    features = np.array([[0.0], [1.0], [2.0], [3.0]])
    assert herd(features, 4, [0]).tolist() == [3, 1, 2]
    assert herd(features, 4, [0, 0]).tolist() == [3, 2, 1]  # twice asked weighs twice
    assert herd(features, 1, [3]).tolist() == [0]
    assert herd(features, 2, [0, 1, 2, 3]).tolist() == []


def test_of_rows_that_are_alike_the_lower_one_comes_first():
    """83 rows: a BLAS sums the last three in another order than the others."""
    for seed in range(100):
        features = np.random.default_rng(seed).normal(size=(83, 24))
        features[80:] = features[5:8]
        order = herd(features, 83).tolist()
        assert all(order.index(row) < order.index(row + 75) for row in (5, 6, 7))


def test_the_mean_of_the_herded_is_closer_to_the_mean_than_that_of_random_rows():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(400, 6))
    away = np.linalg.norm(features[herd(features, 50)].mean(axis=0) - features.mean(axis=0))
    random = [
        np.linalg.norm(
            features[generator.permutation(400)[:50]].mean(axis=0) - features.mean(axis=0)
        )
        for _ in range(20)
    ]
    assert away < min(random) / 3


ROWS = [
    scored("a", 0, 1, 0.5, 0, [(0, 0, 0.5), (0, 1, 0.4)]),
    scored("a", 1, 0, 0.9, 1, [(2, 2, 0.9), (-1, -1, -np.inf)]),
    scored("a", 2, 0, 0.0, -1, [(-1, -1, -np.inf), (-1, -1, -np.inf)], pixels=0),
    scored("a", 3, 1, 0.7, 2, [(4, 4, 0.8), (4, 5, 0.7)]),
]  # fmt: skip


def asked(round_index, *superpixels):
    return [
        {
            "round": round_index, "image_id": "a", "y": s, "x": 9, "unit": "pixel",
            "superpixel_id": s, "num_pixels": 1, "image_y": s, "image_x": 9, "class_id": 0,
            "status": "labelled", "oracle": "simulated", "revision": 0,
        }
        for s in superpixels
    ]  # fmt: skip


def diverse(tmp_path, candidates, count, labels=()):
    looks = [
        {"image_id": "a", "superpixel_id": s, "feature": [value]}
        for s, value in enumerate((0.0, 1.0, 50.0, 3.0))
    ]
    job = QueryDiverse(
        output=planned(tmp_path, "select"),
        score=write_stage(tmp_path, "score", {0: ROWS}, table="superpixel_scores"),
        features=write_stage(tmp_path, "superpixel_features", {0: looks}),
        labels=labels,
        candidates=candidates,
        per_image=count,
        round_index=2,
    )
    queries = job.run(0)["queries"]
    assert set(queries["unit"].to_pylist()) == {"pixel"}
    assert queries["rank"].to_pylist() == list(range(queries.num_rows))
    columns = ("superpixel_id", "cluster_id", "y", "x")
    return list(zip(*(queries[name].to_pylist() for name in columns), strict=True))


@pytest.mark.parametrize(
    ("candidates", "count", "expected"),
    [
        (2, 2, [(3, 1, 4, 4), (0, 1, 0, 0)]),  # 0 and 3 are herded: superpixel 1 has to wait
        (3, 2, [(1, 0, 2, 2), (3, 1, 4, 4)]),
        # then those that were not herded, then second pixels
        (2, 9, [(3, 1, 4, 4), (0, 1, 0, 0), (1, 0, 2, 2), (3, 1, 4, 5), (0, 1, 0, 1)]),
    ],
)
def test_the_most_doubtful_of_those_that_were_herded(tmp_path, candidates, count, expected):
    assert diverse(tmp_path, candidates, count) == expected


def test_superpixels_that_were_asked_stand_for_looks_and_are_not_herded_again(tmp_path):
    def after(*superpixels):
        labels = [
            write_stage(tmp_path / str(index), "labels", {0: asked(index, one)}, table="labels")
            for index, one in enumerate(superpixels)
        ]
        found = diverse(tmp_path / "job", 1, 2, tuple(labels))
        return [superpixel for superpixel, *_ in found]

    assert after() == [0, 1]  # all are alike at first; then the most doubtful
    assert after(0) == [3, 1]  # the other end of the looks, not superpixel 0 once more
    assert after(2, 0) == [3, 1]  # superpixel 2 has no pixel left: it says nothing


def test_the_rarer_class_goes_first():
    rows = pa.table({"mean_score": [0.8, 0.5, 0.4, 0.5], "dominant_class": [0, 1, 2, 1]})
    factor = np.array([(1 + 12 * p) ** -2.0 for p in (0.8, 0.15, 0.05)])
    # 0.8 / 10.6^2 = 0.0071, 0.5 / 2.8^2 = 0.0638, 0.4 / 1.6^2 = 0.156
    chosen = ByRarity(factor)(rows, count=3, options={}, generator=np.random.default_rng(0))
    assert chosen == [2, 1, 3]


@pytest.mark.parametrize(
    ("unit", "count", "expected"),
    [
        ("pixel", 2, [(3, 4, 4), (1, 2, 2)]),
        ("pixel", 3, [(3, 4, 4), (1, 2, 2), (0, 0, 0)]),
        ("pixel", 4, [(3, 4, 4), (1, 2, 2), (0, 0, 0), (3, 4, 5)]),  # every superpixel gave one
        ("pixel", 9, [(3, 4, 4), (1, 2, 2), (0, 0, 0), (3, 4, 5), (0, 0, 1)]),
        ("superpixel", 9, [(3, 4, 4), (1, 2, 2), (0, 0, 0)]),
    ],
)
def test_second_pixels_follow_where_a_budget_is_larger_than_the_superpixels(
    tmp_path, unit, count, expected
):
    """By mean score times 1, 1 and 2: superpixels 3, 1 and 0."""
    job = QueryChosen(
        output=planned(tmp_path, "select"),
        score=write_stage(tmp_path, "score", {0: ROWS}, table="superpixel_scores"),
        choose=ByRarity(np.array([1.0, 1.0, 2.0])),
        rows="superpixels",
        unit=unit,
        options={},
        per_image=count,
        round_index=1,
        seed=0,
    )
    table = job.run(0)["queries"]
    found = [table[name].to_pylist() for name in ("superpixel_id", "y", "x")]
    assert list(zip(*found, strict=True)) == expected
    assert table["cluster_id"].to_pylist() == [{0: 1, 1: 0, 3: 1}[s] for s, _, _ in expected]
    scores = {(0, 0): 0.5, (0, 1): 0.4, (2, 2): 0.9, (4, 4): 0.8, (4, 5): 0.7}
    wanted = [scores[y, x] for _, y, x in expected]
    assert table["score"].to_pylist() == pytest.approx(wanted)


def test_an_answer_that_was_changed_weighs_once(tmp_path):
    late = write_stage(tmp_path / "b", "labels", {0: asked(2, 0)}, table="labels")
    first = write_stage(tmp_path / "a", "labels", {0: asked(1, 0)}, table="labels")
    assert AskedPixels((first, late), 0, {}).superpixels_of("a").tolist() == [0]
