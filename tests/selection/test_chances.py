"""Lots: kernel and shares against what follows from their definition."""

import numpy as np

from madbal_ray import rng
from madbal_ray.selection.chance_jobs import ShareEqually
from madbal_ray.selection.initial import draw_chances
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder

LABEL_MAP = np.array([[0, 0, 1, 1], [0, 0, 3, 1]], np.uint16)  # 4, 3, none, 1 pixels
ALLOWED = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], bool)  # 4, 2, none, 1


def draw(seed, *, allowed=ALLOWED, count=3, by_size=False):
    return draw_chances(
        label_map=LABEL_MAP,
        is_allowed=allowed,
        count=count,
        by_size=by_size,
        generator=rng.stream(seed, "test"),
    )


def test_every_superpixel_offers_its_own_allowed_pixels():
    for seed in range(20):
        drawn = draw(seed, count=7)
        assert drawn.superpixel.tolist() == [0, 1, 3]
        assert drawn.num_pixels.tolist() == [4, 2, 1]
        assert drawn.y.shape == (3, 4)  # 7 pixels need four laps
        pixels = [
            {(y, x) for y, x in zip(*rows, strict=True) if y >= 0}
            for rows in zip(drawn.y, drawn.x, strict=True)
        ]
        assert pixels == [{(0, 0), (0, 1), (1, 0), (1, 1)}, {(0, 2), (1, 3)}, {(1, 2)}]
        assert (drawn.y >= 0).sum() == 7
        assert ((drawn.y >= 0) == (np.arange(4) < drawn.num_pixels[:, None])).all()


def test_no_more_pixels_than_laps_need():
    assert draw(0, count=3).y.shape == (3, 1)
    assert draw(0, count=4).y.shape == (3, 2)


def test_an_image_in_which_all_was_asked_offers_nothing():
    drawn = draw(0, allowed=np.zeros((2, 4), bool))
    assert len(drawn.superpixel) == len(drawn.chance) == 0
    assert drawn.y.shape == (0, 1)


def test_who_wins_and_how_often():
    """By size, a superpixel has the highest lot as often as its share of the pixels."""
    trials = 1500
    for by_size, expected in ((True, [4 / 7, 2 / 7, 1 / 7]), (False, [1 / 3] * 3)):
        lots = np.array([draw(seed, by_size=by_size).chance for seed in range(trials)])
        assert ((lots > 0) & (lots <= 1)).all()
        wins = np.bincount(lots.argmax(axis=1), minlength=3) / trials
        assert np.abs(wins - expected).max() < 0.05  # four standard deviations


def test_the_first_pixel_is_any_of_the_superpixel():
    first = [draw(seed) for seed in range(1000)]
    places = np.bincount([2 * one.y[0, 0] + one.x[0, 0] for one in first], minlength=4)
    assert np.abs(places / 1000 - 0.25).max() < 0.055


def test_shares_are_equal_and_exact(tmp_path):
    job = ShareEqually(
        output=StageDir.plan(Folder(tmp_path), "shares", {}, {}),
        round_index=0,
        num_clusters=3,
        total=11,
    )
    table = job.compute().tables["cluster_budgets", 0]
    assert table["budget"].to_pylist() == [4, 4, 3]
    assert table["score"].to_pylist() == [0.0, 0.0, 0.0]
