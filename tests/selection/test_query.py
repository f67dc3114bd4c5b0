"""Queries of an image against a unit-by-unit reference, and their promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from madbal_ray import rng as keyed_rng
from madbal_ray.errors import NumericalError, ShapeError
from madbal_ray.selection.initial import draw_initial_pixels
from madbal_ray.selection.query import query_image
from tests import references


def random_image(seed, *, superpixels, clusters, top, budget, levels=3):
    """Superpixels with distinct pixels; few score levels, so ties are common."""
    rng = np.random.default_rng(seed)
    num_pixels = rng.integers(0, top + 2, superpixels)
    rows = []
    pixels = iter(rng.permutation(10_000))
    for index in range(superpixels):
        kept = sorted(divmod(int(next(pixels)), 100) for _ in range(num_pixels[index]))
        values = sorted(rng.integers(0, levels, len(kept)).astype(float), reverse=True)
        rows.append(
            {
                "id": index,
                "cluster": int(rng.integers(0, clusters)),
                "score": float(rng.integers(0, levels)),
                "pixels": [(y, x, u) for (y, x), u in zip(kept, values, strict=True)][:top],
            }
        )
    return {
        "rows": rows,
        "budget": references.largest_remainder(rng.integers(1, 5, clusters).tolist(), budget),
        "cluster_score": rng.integers(0, 3, clusters).astype(float),
        "top": top,
    }


def call(image, order=None):
    rows = image["rows"] if order is None else [image["rows"][i] for i in order]
    top = image["top"]

    def padded(index, missing):
        return np.array(
            [[p[index] for p in r["pixels"]] + [missing] * (top - len(r["pixels"])) for r in rows]
        ).reshape(len(rows), top)

    return query_image(
        superpixel_id=np.array([r["id"] for r in rows], np.int64),
        cluster_id=np.array([r["cluster"] for r in rows], np.int64),
        score=np.array([r["score"] for r in rows]),
        top_y=padded(0, -1),
        top_x=padded(1, -1),
        top_score=padded(2, -np.inf),
        cluster_budget=np.array(image["budget"]),
        cluster_score=image["cluster_score"],
    )


images = st.builds(
    random_image,
    st.integers(0, 2**32 - 1),
    superpixels=st.integers(0, 25),
    clusters=st.integers(1, 5),
    top=st.integers(1, 3),
    budget=st.integers(0, 60),
)


@given(images)
def test_equals_the_unit_by_unit_reference(image):
    result = call(image)
    expected = references.query_image(image["rows"], image["budget"], image["cluster_score"])
    found = list(
        zip(
            result.y.tolist(),
            result.x.tolist(),
            result.superpixel_id.tolist(),
            result.cluster_id.tolist(),
            strict=True,
        )
    )
    assert found == expected


@given(images)
def test_budget_is_exact_and_no_pixel_comes_twice(image):
    result = call(image)
    available = sum(len(row["pixels"]) for row in image["rows"])
    assert len(result) == min(sum(image["budget"]), available)
    pixels = set(zip(result.y.tolist(), result.x.tolist(), strict=True))
    assert len(pixels) == len(result)


@given(images)
def test_laps_come_in_order(image):
    """No superpixel gives its n-th pixel before every one that can gave its (n-1)-th."""
    result = call(image)
    taken = np.bincount(result.superpixel_id, minlength=len(image["rows"]))
    deepest = taken.max(initial=0)
    for row in image["rows"]:
        assert taken[row["id"]] >= min(deepest - 1, len(row["pixels"]))


@given(images, st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(image, random):
    order = list(range(len(image["rows"])))
    random.shuffle(order)
    straight, shuffled = call(image), call(image, order)
    for name in ("y", "x", "superpixel_id", "cluster_id", "score"):
        assert np.array_equal(getattr(straight, name), getattr(shuffled, name))


def test_first_lap_honours_cluster_budgets():
    image = random_image(0, superpixels=0, clusters=2, top=1, budget=0)
    image["rows"] = [
        {"id": i, "cluster": i % 2, "score": float(i), "pixels": [(i, i, 1.0)]} for i in range(10)
    ]
    image["budget"] = [3, 1]
    result = call(image)
    assert sorted(result.superpixel_id.tolist()) == [4, 6, 8, 9]
    assert result.superpixel_id.tolist() == [9, 8, 6, 4]  # by falling u(s)


@pytest.mark.parametrize("budget", [[3, -1], [2.5, 1]])
def test_budgets_are_whole_numbers(budget):
    image = random_image(1, superpixels=5, clusters=2, top=1, budget=3)
    image["budget"] = budget
    with pytest.raises(ShapeError, match="expected whole numbers, 0 or more"):
        call(image)


def test_nan_and_mismatched_lengths_are_errors():
    image = random_image(1, superpixels=5, clusters=2, top=1, budget=3)
    image["rows"][0]["score"] = float("nan")
    with pytest.raises(NumericalError):
        call(image)
    with pytest.raises(ShapeError, match="lengths"):
        query_image(
            superpixel_id=[0, 1],
            cluster_id=[0],
            score=[0.0],
            top_y=[[0]],
            top_x=[[0]],
            top_score=[[0.0]],
            cluster_budget=[1],
            cluster_score=[1.0],
        )


def test_initial_pool_is_uniform_keyed_and_within_what_is_allowed():
    allowed = np.zeros((8, 9), bool)
    allowed[2:5, 3:7] = True

    def draw(image_id, count=6):
        stream = keyed_rng.stream(0, "initial_pool", 0, image_id)
        return draw_initial_pixels(is_allowed=allowed, count=count, generator=stream)

    y, x = draw("a")
    assert allowed[y, x].all()
    assert len(set(zip(y.tolist(), x.tolist(), strict=True))) == 6
    assert np.array_equal(np.stack(draw("a")), np.stack((y, x)))
    assert not np.array_equal(np.stack(draw("b")), np.stack((y, x)))
    assert len(draw("a", count=99)[0]) == 12
    counts = np.zeros((8, 9))
    for index in range(2000):
        y, x = draw(str(index), count=3)
        counts[y, x] += 1
    assert counts[allowed].min() > 0.7 * 500
    assert counts[allowed].max() < 1.3 * 500
