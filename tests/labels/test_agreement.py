"""Agreement, checked by hand, against scikit-learn and against a published example."""

import random

import pytest
from sklearn.metrics import cohen_kappa_score

from madbal_ray.labels.agreement import (
    VOID,
    cohens_kappa,
    every_kappa,
    krippendorffs_alpha,
    opinions,
)
from madbal_ray.labels.settle import Vote


def test_who_said_nothing_has_no_opinion():
    votes = [
        Vote("a", "labelled", "sky"),
        Vote("b", "void"),
        Vote("c", "skipped"),
        Vote("d", "unsure"),
        Vote("e", "undone"),
    ]
    assert opinions(votes) == {"a": "sky", "b": VOID}


def test_kappa_is_that_of_scikit_learn():
    drawn = random.Random(1)
    pixels = [
        {"a": drawn.choice("xyz"), "b": drawn.choice("xxyz")}
        | ({"c": "x"} if index % 3 == 0 else {})
        for index in range(60)
    ]
    expected = cohen_kappa_score([p["a"] for p in pixels], [p["b"] for p in pixels])
    count, kappa = cohens_kappa([*pixels, {"a": "x"}, {"c": "y"}], "a", "b")
    assert (count, kappa) == (60, pytest.approx(expected))
    assert {pair: found[0] for pair, found in every_kappa(pixels).items()} == {
        ("a", "b"): 60,
        ("a", "c"): 20,
        ("b", "c"): 20,
    }


def test_kappa_without_a_difference_to_explain():
    assert cohens_kappa([{"a": "x", "b": "x"}] * 3, "a", "b") == (3, None)
    assert cohens_kappa([{"a": "x"}], "a", "b") == (0, None)


def test_alpha_of_krippendorffs_example():
    """Section C of the paper: four observers, twelve units, gaps; nominal α = 0.743."""
    observers = {
        "A": "1 2 3 3 2 1 4 1 2 . . .",
        "B": "1 2 3 3 2 2 4 1 2 5 . 3",
        "C": ". 3 3 3 2 3 4 2 2 5 1 .",
        "D": "1 2 3 3 2 4 4 1 2 5 1 .",
    }
    units = [
        {name: row.split()[unit] for name, row in observers.items() if row.split()[unit] != "."}
        for unit in range(12)
    ]
    assert krippendorffs_alpha(units) == pytest.approx(0.743, abs=5e-4)
    assert krippendorffs_alpha([{"a": "x"}]) is None
    assert krippendorffs_alpha([{"a": "x", "b": "x"}]) is None
