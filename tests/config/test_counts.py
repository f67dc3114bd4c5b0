"""Counts that say `auto`: what they become, and that a run keeps them."""

import json

import pytest

from madbal_ray import api
from madbal_ray.config.counts import (
    check_counts,
    kept_counts,
    open_counts,
    with_counts,
    workers_for,
)
from madbal_ray.config.file import changed_keys, load_config
from madbal_ray.errors import ConfigError
from madbal_ray.loop import launch as launch_module
from madbal_ray.loop.launch import Launch, with_engine
from madbal_ray.state.run_dir import RunDir
from tests.conftest import frozen_config, tiny_config

KEYS = ["train.num_workers", "train.threads_per_worker", "score.threads_per_worker"]


def open_config(**changes):
    values = tiny_config(**changes)
    values["train"] = {
        **values.get("train", {}),
        "num_workers": "auto",
        "threads_per_worker": "auto",
    }
    values["score"] = {**values.get("score", {}), "threads_per_worker": "auto"}
    return load_config(values)


def test_auto_stays_auto_in_a_file_and_becomes_numbers():
    config = open_config()
    assert open_counts(config) == KEYS
    stored = json.loads(json.dumps(config.model_dump(mode="json")))
    assert stored["train"]["num_workers"] == stored["score"]["threads_per_worker"] == "auto"
    assert load_config(stored) == config
    counted = with_counts(config, dict(zip(KEYS, [2, 5, 3], strict=True)))
    train = counted.train
    assert (train.num_workers, train.threads_per_worker, counted.score.threads_per_worker) == (
        2, 5, 3,
    )  # fmt: skip
    assert open_counts(counted) == []
    assert with_counts(counted, {"train.num_workers": 1}) == counted  # nothing is open any more


def test_nought_is_no_number():
    with pytest.raises(ConfigError, match=r"train.num_workers: expected auto, or a number of 1"):
        load_config(tiny_config(train__num_workers=0))


@pytest.mark.parametrize(("most", "workers"), [(0, 1), (1, 1), (3, 3), (5, 4), (8, 6), (64, 12)])
def test_the_most_workers_that_all_batches_divide_by(most, workers):
    """What is not trained does not count: the frozen head has batches of 10, points of 512."""
    config = open_config(train__phase1__batch_size=12, train__phase2__batch_size=24)
    assert workers_for(config, most) == workers
    assert load_config(with_counts(config, {"train.num_workers": workers}))


def test_only_batches_that_are_trained_divide_by_the_workers():
    config = tiny_config(train__phase1__batch_size=16, train__phase2__batch_size=16)
    config["train"]["num_workers"] = 8
    assert load_config(config).train.num_workers == 8
    with pytest.raises(ConfigError, match=r"frozen_head.batch_size = 10 is not a multiple of .* 8"):
        load_config(config, ["train.init=frozen_head"])
    config["train"]["phase2"]["batch_size"] = 12
    with pytest.raises(ConfigError, match=r"phase2.batch_size = 12 is not a multiple"):
        load_config(config)
    assert load_config(config, ["strategy.name=random"])
    points = load_config(frozen_config(), ["train.num_workers=8"])
    assert points.train.num_workers == 8  # of 16 points each; batch_size is not read
    with pytest.raises(ConfigError, match=r"phase1.batch_points = 16 is not a multiple of .* 3"):
        load_config(points, ["train.num_workers=3"])


def test_what_does_not_go_with_the_number_is_said():
    config = open_config(train__min_workers=3)
    with pytest.raises(ConfigError, match=r"min_workers = 3 is more than train.num_workers = 2"):
        with_counts(config, {"train.num_workers": 2})


def test_a_run_takes_its_numbers_once(tmp_path, monkeypatch):
    class Engine:
        device, most_training_workers = "cuda", 7

        def close(self):
            pass

    config = open_config(train__phase1__batch_size=6, train__phase2__batch_size=6)
    folder, seen = RunDir(tmp_path / "run"), []

    def start(cores):
        monkeypatch.setattr(launch_module, "free_cores", lambda: cores)
        with_engine(
            config, folder, lambda c, r: Engine(), Launch(engine="local"),
            lambda counted, engine, view: seen.append(counted),
        )  # fmt: skip

    start(4)
    stored = folder.config()
    assert stored == seen[0]
    assert stored.train.threads_per_worker == stored.score.threads_per_worker == 4
    assert stored.train.num_workers == 6
    start(1)  # another machine, or a busy one: the run's numbers hold
    assert seen[1] == stored == folder.config()
    assert changed_keys(stored, config) == []
    assert changed_keys(stored, load_config(config, ["train.num_workers=1"])) == [
        f"train.num_workers: {stored.train.num_workers} -> 1"
    ]
    assert kept_counts(config, config) == config


def test_runs_that_share_machines_want_numbers():
    with pytest.raises(ConfigError, match=r"^train.num_workers, train.thre.* = auto, but a suite"):
        check_counts(open_config(), "a suite")
    check_counts(load_config(tiny_config()), "a suite")


def test_a_run_with_auto_is_recognised_as_finished(tmp_path, monkeypatch):
    config = open_config(num_rounds=1)
    monkeypatch.setattr(launch_module, "free_cores", lambda: 1)
    run = api.run(config, run_dir=tmp_path / "run", engine="local")
    assert run.config.train.num_workers == 1
    assert api.is_finished(config, run_dir=tmp_path / "run")
