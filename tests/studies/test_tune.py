"""`madbal tune`: a small search on Ray, its folds, what it refuses, and a kill."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.metrics import average_precision_score

import madbal_ray
from madbal_ray import api
from madbal_ray.engine.stages import StopRequested
from madbal_ray.errors import ConfigError
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.state.storage import Folder
from madbal_ray.studies.cross_validation import CrossValidation
from madbal_ray.studies.search_space import load_space
from tests.conftest import tiny_config

KEY = "train.phase2.loss_weights.center"
SPACE = {KEY: {"loguniform": [0.1, 10]}, "train.phase2.learning_rate": {"choice": [0.01, 0.001]}}


def learning_config():
    """A run whose network gets some pixels right."""
    phase1 = {"epochs": 12, "batch_size": 2, "learning_rate": 0.03}
    return tiny_config(
        num_rounds=1,
        train__phase1=phase1,
        budget__initial_pixels_per_image=60,
        resources={"decode_threads": 1},
    )


@pytest.fixture(scope="module")
def labelled_run(tmp_path_factory):
    """Round 0 labelled, nothing trained."""
    folder = tmp_path_factory.mktemp("labelled") / "run"
    with pytest.raises(StopRequested):
        madbal_ray.run(learning_config(), run_dir=folder, engine="local", stop_after=("labels", 0))
    return madbal_ray.open_run(folder)


@pytest.fixture(scope="module")
def validation(labelled_run, tmp_path_factory):
    folder = Folder(tmp_path_factory.mktemp("folds"))
    return CrossValidation(labelled_run, folder, PublishedWeights("none", None), 2, "cpu")


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(SPACE))
    return path


class TestFolds:
    def test_no_label_of_a_held_out_image_is_trained_on(self, validation, labelled_run):
        whole = labelled_run.table("labels", 0)
        seen = []
        for fold in range(2):
            kept = validation._held_out(fold).labels().read_table("labels").to_pandas()
            left = set(whole["image_id"].to_pylist()) - set(kept["image_id"])
            assert len(left) == 3
            seen += sorted(left)
            assert len(kept) == 3 * 60
        assert sorted(seen) == sorted(set(whole["image_id"].to_pylist()))

    def test_a_result_is_computed_once_and_depends_on_its_settings(self, validation):
        first = validation.result({KEY: 1.0}, 0)
        folder = validation.folder / "fold-0"
        before = list(folder.walk())
        assert validation.result({KEY: 1.0}, 0) == first
        assert list(folder.walk()) == before
        validation.result({KEY: 5.0}, 0)
        phase1 = [path for path, _ in folder.walk() if path.endswith("phase1.safetensors")]
        assert len(phase1) == 1  # shared by both trials
        assert 0 < first.error_rate < 1
        assert first.num_pixels <= 180

    def test_miou_after_one_more_round(self, labelled_run, tmp_path):
        weights = PublishedWeights("none", None)
        validation = CrossValidation(
            labelled_run, Folder(tmp_path), weights, 2, "cpu", objective="miou"
        )
        first = validation.result({KEY: 1.0}, 0)
        assert first.miou is not None
        assert 0 < first.miou < 1
        assert first.objective == first.miou
        fold = tmp_path / "fold-0"
        held_out = {name for name, number in validation._fold_of.items() if number == 0}
        asked = pq.read_table(next(fold.glob("round-1/select/*/queries"))).to_pandas()
        assert len(held_out) == 3
        assert (asked.groupby("image_id").size() == 5).all()
        assert set(asked["image_id"]) == set(validation._fold_of) - held_out
        measured = pq.read_table(next(fold.glob("round-1/metrics/*/metrics"))).to_pandas()
        assert measured["num_images"].tolist() == [3]
        other = validation.result({KEY: 8.0}, 0)
        assert len(list(fold.glob("round-1/metrics/*"))) == 2
        assert other.miou is not None
        assert len(list(fold.glob("fold_images/*"))) == 2  # kept and left out, shared by the trials
        thirds = CrossValidation(
            labelled_run, Folder(tmp_path), weights, 3, "cpu", objective="miou"
        )
        assert thirds.result({KEY: 1.0}, 0).miou != first.miou  # another cut, other images
        sizes = [pq.read_table(path).num_rows for path in fold.glob("fold_images/*/images")]
        assert sorted(sizes) == [2, 3, 3, 4]

    def test_precision_of_chance_is_the_error_rate(self):
        rng = np.random.default_rng(0)
        wrong = rng.random(20_000) < 0.3
        assert average_precision_score(wrong, rng.random(20_000)) == pytest.approx(0.3, abs=0.02)


class TestRefusals:
    @pytest.mark.parametrize(
        ("found", "message"),
        [
            ({"train.phase1.epochs": {"choice": [1]}}, "only keys of train.phase2"),
            ({KEY: {"loguniform": [0, 1]}}, "low > 0"),
            ({KEY: {"uniform": [2, 1]}}, "low < high"),
            ({KEY: {"normal": [0, 1]}}, "expected one of uniform, loguniform, choice"),
            ({KEY: 3}, "expected one of"),
            ({KEY: "f" * 5000}, r"expected one of .*, got .f{199}$"),
            ({}, "expected keys with ranges"),
        ],
    )
    def test_spaces(self, tmp_path, found, message):
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(found))
        with pytest.raises(ConfigError, match=message):
            load_space(tmp_path / "s.yaml")

    def test_unknown_key_before_anything_runs(self, tmp_path):
        path = tmp_path / "s.yaml"
        path.write_text(yaml.safe_dump({"train.phase2.learningrate": {"choice": [1.0]}}))
        with pytest.raises(ConfigError, match="learningrate"):
            api.tune(tiny_config(), space=path, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("key", "values", "message"),
        [
            ("epochs", {"uniform": [3, 9]}, "train.phase2.epochs: .*given: 5.29"),
            ("optimizer", {"choice": ["sgd", "adamW"]}, "train.phase2.optimizer: .*given: adamW"),
            ("momentum", {"uniform": [0.5, 1.5]}, "train.phase2.momentum: .*given: 1.5"),
        ],
    )
    def test_every_value_that_may_be_drawn_is_looked_at(self, tmp_path, key, values, message):
        path = tmp_path / "s.yaml"
        path.write_text(yaml.safe_dump({f"train.phase2.{key}": values}))
        with pytest.raises(ConfigError, match=message):
            api.tune(tiny_config(), space=path, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_strategy_without_phase_2(self, tiny_run, tmp_path):
        run = madbal_ray.run(
            tiny_config(strategy={"name": "random"}, num_rounds=1),
            run_dir=tmp_path / "random",
            engine="local",
        )
        with pytest.raises(ConfigError, match="trains no phase II"):
            CrossValidation(run, Folder(tmp_path), PublishedWeights("none", None), 2, "cpu")

    def test_more_folds_than_images(self, tiny_run, tmp_path):
        with pytest.raises(ConfigError, match="too few"):
            CrossValidation(tiny_run, Folder(tmp_path), PublishedWeights("none", None), 4, "cpu")


def test_search_on_ray_writes_a_configuration_that_runs(ray_session, space, tmp_path):
    config = learning_config()
    options = {"space": space, "num_samples": 2, "folds": 2, "out": tmp_path / "out"}
    rows, written = api.tune(config, say=lambda line: None, **options)
    assert [path.name for path in written][:2] == ["best.yaml", "trials.csv"]
    assert len(pd.read_csv(tmp_path / "out" / "trials.csv")) == 2
    assert rows[0]["objective"] >= rows[1]["objective"]
    best = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())
    assert best["train"]["phase2"]["loss_weights"]["center"] == pytest.approx(rows[0][KEY])
    run = madbal_ray.run(tmp_path / "out" / "best.yaml", run_dir=tmp_path / "best", engine="local")
    assert run.num_rounds == 1


def test_optuna_proposes_and_miou_decides(ray_session, space, tmp_path):
    config = learning_config()
    options = {"space": space, "folds": 2, "out": tmp_path / "out", "say": lambda line: None}
    options |= {"algorithm": "optuna", "objective": "miou"}
    first, _ = api.tune(config, num_samples=2, **options)
    rows, written = api.tune(config, num_samples=3, **options)
    assert len(rows) == 3
    assert [row for row in rows if row in first] == first  # those that had ended are kept
    trials = list((tmp_path / "out" / "fold-0" / "trial").glob("*/result.json"))
    assert len(trials) == 3
    assert [row["miou"] for row in rows] == sorted((row["miou"] for row in rows), reverse=True)
    assert all(row["objective"] == row["miou"] for row in rows)
    assert all(0.1 <= row[KEY] <= 10 for row in rows)
    assert all(path.exists() for path in written)


def test_a_trial_that_diverges_stands_last(ray_session, tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump({"train.phase2.learning_rate": {"choice": [0.01, 1e30]}}))
    options = {"space": path, "num_samples": 4, "folds": 2, "out": tmp_path / "out"}
    rows, _ = api.tune(learning_config(), say=lambda line: None, **options)
    by_rate = {row["train.phase2.learning_rate"]: row for row in rows}
    assert set(by_rate) == {0.01, 1e30}
    assert rows[0]["train.phase2.learning_rate"] == 0.01
    assert "loss is" in by_rate[1e30]["error"]


@pytest.mark.kill
def test_search_survives_a_kill_and_a_restart(tmp_path):
    config, space = tmp_path / "tiny.json", tmp_path / "space.yaml"
    config.write_text(json.dumps(learning_config()))
    space.write_text(yaml.safe_dump(SPACE))
    command = [sys.executable, "-m", "madbal_ray", "tune", config, "--space", space]
    command += ["--num-samples", "4", "--folds", "2", "--out", tmp_path / "out"]
    process = subprocess.Popen(command, start_new_session=True, cwd=tmp_path)
    folds = tmp_path / "out" / "fold-0" / "trial"
    while process.poll() is None and len(list(folds.glob("*/result.json"))) < 2:
        time.sleep(0.05)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in folds.glob("*/result.json")}
    subprocess.run(command, check=True, cwd=tmp_path)
    assert len(pd.read_csv(tmp_path / "out" / "trials.csv")) == 4
    assert all(path.stat().st_mtime_ns == moment for path, moment in done.items())
    assert len(list(folds.glob("*/result.json"))) == 4
    best = tmp_path / "out" / "best.yaml"
    subprocess.run(
        [*command[:3], "run", best, "--engine", "local", "--run-dir", tmp_path / "best"],
        check=True,
        cwd=tmp_path,
    )
