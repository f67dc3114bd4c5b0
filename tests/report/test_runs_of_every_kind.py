"""Reports of real runs of every kind, and of one that measured nothing."""

import pytest

from madbal_ray import api
from madbal_ray.errors import RunDirError
from tests.conftest import tiny_config


@pytest.mark.parametrize(
    "changes",
    [
        {"budget": {"initial_pixels_per_image": "all"}, "num_rounds": 1},
        {"strategy": {"name": "core_set"}, "budget": {"images_per_round": 2}},
        {"strategy": {"name": "class_balanced_superpixel"}},
    ],
    ids=["full supervision", "images", "superpixels"],
)
def test_every_kind_of_run_has_a_report(tmp_path, changes, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/bin/madbal", "run", "a b.yaml"])
    config = tiny_config(**changes)
    config["budget"] = {"pixels_per_image": 5, "initial_pixels_per_image": 5} | config["budget"]
    api.run(config, run_dir=tmp_path / "run", engine="local")
    warnings: list[str] = []
    _, written = api.report([tmp_path / "run"], warn=warnings.append)
    assert written[0].stat().st_size > 1000
    assert "<code>madbal run &#39;a b.yaml&#39;</code>" in written[0].read_text()
    assert warnings == []


def test_nothing_measured_is_said(tmp_path):
    config = tiny_config(num_rounds=1, evaluation={"splits": []})
    api.run(config, run_dir=tmp_path / "run", engine="local")
    with pytest.raises(RunDirError, match="nothing was measured"):
        api.report([tmp_path / "run"])
