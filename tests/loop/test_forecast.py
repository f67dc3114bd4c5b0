"""The forecast of a dry run: every stage, in proportion to the work."""

import pytest

from madbal_ray.config.file import load_config
from madbal_ray.errors import PoolError
from madbal_ray.loop.forecast import forecast
from tests.conftest import tiny_config


def stages(config):
    found = forecast(load_config(config), device="cpu")
    assert any("together" in line for line in found.lines())
    return {one.stage: one for one in found.stages}


def test_every_stage_has_a_figure_and_follows_the_work():
    small = stages(tiny_config())
    assert list(small) == [
        "images",
        "superpixels",
        "superpixel_features",
        "labels",
        "train phase I",
        "train phase II",
        "evaluate",
        "score",
    ]
    assert all(one.seconds > 0 for one in small.values())
    more = stages(tiny_config(train__phase1={"epochs": 40, "batch_size": 2}, num_rounds=8))
    assert more["train phase I"].seconds > 20 * small["train phase I"].seconds
    assert more["score"].num_bytes == pytest.approx(7 * small["score"].num_bytes)
    assert more["superpixels"].num_bytes == pytest.approx(small["superpixels"].num_bytes)


def test_a_strategy_without_network_scores_and_trains_less():
    found = stages(tiny_config(strategy={"name": "random"}))
    assert "score" not in found
    assert "train phase II" not in found


def test_bad_images_are_passed_over(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "classes.txt").write_text("a\nb\n")
    for index in range(3):
        (tmp_path / "images" / f"{index}.png").write_bytes(b"no image")
    data = {"name": "folder", "root": str(tmp_path)}
    config = tiny_config(data=data, grids={"input": [48, 64], "working": [48, 64]})
    with pytest.raises(PoolError, match="could be decoded"):
        forecast(load_config(config), device="cpu")
