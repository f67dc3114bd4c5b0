"""Mistakes of a simulated annotator."""

import numpy as np
import pytest

import madbal_ray
from madbal_ray.arrays import IGNORE_INDEX
from madbal_ray.config.asking import NoiseConfig
from madbal_ray.errors import ConfigError
from madbal_ray.labels.simulated import AnnotatorNoise, answer_region, make_mistakes, on_boundary
from madbal_ray.labels.simulated_oracle import annotator_noise
from tests.conftest import tiny_config


def answers(noise, seed=0, count=20_000, classes=4, boundary=0.5):
    rng = np.random.default_rng(1)
    class_id = rng.integers(0, classes, count)
    is_void = rng.random(count) < 0.1
    is_boundary = rng.random(count) < boundary
    found = make_mistakes(
        class_id=class_id,
        is_void=is_void,
        is_boundary=is_boundary,
        noise=noise,
        generator=np.random.default_rng(seed),
    )
    return class_id, is_void, is_boundary, found


def test_shares_are_met_and_void_is_always_seen():
    noise = AnnotatorNoise.uniform(4, 0.1, 0.4)
    class_id, is_void, is_boundary, found = answers(noise)
    wrong = found != class_id
    assert not wrong[is_void].any()
    assert wrong[~is_void & ~is_boundary].mean() == pytest.approx(0.1, abs=0.01)
    assert wrong[~is_void & is_boundary].mean() == pytest.approx(0.4, abs=0.015)
    mistaken = np.bincount(found[wrong & (class_id == 2)], minlength=4)
    assert mistaken[2] == 0
    assert mistaken[[0, 1, 3]].min() > 0.8 * mistaken.max()


def test_a_confusion_matrix_says_what_is_mistaken_for_what():
    confusion = np.zeros((4, 4))
    confusion[0] = [5, 3, 1, 0]  # the diagonal is not used
    confusion[1, 0] = 1
    class_id, is_void, _, found = answers(AnnotatorNoise(1.0, 1.0, confusion))
    of_zero = found[(class_id == 0) & ~is_void]
    assert set(of_zero) == {1, 2}
    assert (of_zero == 1).mean() == pytest.approx(0.75, abs=0.02)
    assert set(found[(class_id == 1) & ~is_void]) == {0}
    assert set(found[(class_id == 3) & ~is_void]) == {3}  # no weight, no mistakes


def test_more_noise_errs_on_more_of_the_same_pixels():
    few = answers(AnnotatorNoise.uniform(4, 0.1, 0.1))
    many = answers(AnnotatorNoise.uniform(4, 0.3, 0.3))
    assert np.array_equal(few[3], answers(AnnotatorNoise.uniform(4, 0.1, 0.1))[3])
    wrong_few, wrong_many = few[3] != few[0], many[3] != many[0]
    assert not (wrong_few & ~wrong_many).any()


def test_boundaries_are_where_another_class_is_near_and_void_is_not_one():
    mask = np.zeros((9, 9), np.uint8)
    mask[:, 6:] = 1
    mask[0] = IGNORE_INDEX
    y, x = np.full(9, 5), np.arange(9)
    assert on_boundary(mask=mask, y=y, x=x).tolist() == [False] * 4 + [True] * 4 + [False]


def test_a_region_is_its_most_frequent_class_and_void_does_not_vote():
    mask = np.array([[1, 1, 2, 2], [255, 255, 255, 0]], np.uint8)
    inside = np.ones((2, 4), bool)
    assert answer_region(mask=mask, inside=inside) == 1  # a tie: the lower id
    inside[0] = False
    assert answer_region(mask=mask, inside=inside) == 0
    inside[1, 3] = False
    assert answer_region(mask=mask, inside=inside) == IGNORE_INDEX


def test_a_matrix_of_the_wrong_size_is_refused():
    config = NoiseConfig(share=0.1, confusion=((1.0, 2.0), (3.0, 4.0)))
    with pytest.raises(ConfigError, match=r"has 2 rows of \[2\] entries; the data set has 5"):
        annotator_noise(config, 5)


def test_a_noisy_run_is_seeded_and_asks_the_same_at_first(tiny_run, tmp_path):
    config = tiny_config(oracle={"noise": {"share": 0.5}}, num_rounds=1)
    run = madbal_ray.run(config, run_dir=tmp_path / "a" / "run", engine="local")
    again = madbal_ray.run(config, run_dir=tmp_path / "b" / "run", engine="local")
    assert run.table("labels").equals(again.table("labels"))
    assert run.table("queries", 0).equals(tiny_run.table("queries", 0))
    true = tiny_run.table("labels", 0)["class_id"].to_pandas()
    noisy = run.table("labels", 0)["class_id"].to_pandas()
    differ = (true != noisy) & true.notna()
    assert 0.2 < differ.mean() < 0.8
