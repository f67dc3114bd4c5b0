"""Trackers: the real libraries, numbers that arrive, runs that carry on, servers that go."""

import os
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner

import madbal_ray
from madbal_ray.cli import main
from madbal_ray.config.file import load_config
from madbal_ray.engine.stages import StopRequested
from madbal_ray.errors import ConfigError, ResourceError
from madbal_ray.state.run_dir import RunDir
from madbal_ray.tracking.trackers import Trackers, check_tracking, flattened
from tests.conftest import tiny_config

BLOCK = 32768


@pytest.fixture
def mlflow(monkeypatch):
    """The library, on its own file store, which needs no server."""
    library = pytest.importorskip("mlflow", reason="extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return library


@pytest.fixture
def wandb(monkeypatch):
    """The library, offline."""
    library = pytest.importorskip("wandb", reason="extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    return library


def start(folder: Path, **tracking):
    """Return the trackers of a run in a folder, and what they said."""
    said: list[str] = []
    config = load_config(tiny_config(tracking={"tensorboard": False} | tracking))
    return Trackers(config, RunDir(folder), said.append), said


def mlflow_runs(mlflow, uri):
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("madbal_ray")
    return client, client.search_runs([experiment.experiment_id])


def test_a_resumed_run_carries_on_its_mlflow_run(mlflow, tmp_path):
    uri = f"file://{tmp_path / 'store'}"
    config = tiny_config(tracking={"mlflow": uri, "tensorboard": False})
    with pytest.raises(StopRequested):
        madbal_ray.run(config, run_dir=tmp_path / "run", engine="local", stop_after=("score", 1))
    _, (run,) = mlflow_runs(mlflow, uri)
    assert run.info.status == "KILLED"
    finished = madbal_ray.run(config, run_dir=tmp_path / "run", engine="local")
    client, (run,) = mlflow_runs(mlflow, uri)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    assert run.data.params["budget.pixels_per_image"] == "5"
    assert run.data.params["train.phase1.optimizer"] == "sgd"
    assert not [name for name in run.data.params if name.startswith(("resources", "tracking"))]
    measured = finished.metrics()
    measured = measured[measured["split"] == "val"].set_index("round")["miou"]
    history = client.get_metric_history(run.info.run_id, "val/miou")
    assert [(point.step, point.value) for point in history] == list(measured.items())
    losses = client.get_metric_history(run.info.run_id, "round_001/phase2/loss")
    assert [point.step for point in losses] == [1]


def test_another_folder_is_another_mlflow_run(mlflow, tmp_path):
    uri = f"file://{tmp_path / 'store'}"
    for name in ("a", "b", "a"):
        trackers, _ = start(tmp_path / name, mlflow=uri)
        trackers.close(is_finished=True)
    _, runs = mlflow_runs(mlflow, uri)
    assert sorted(run.info.run_name for run in runs) == ["a", "b"]


def test_a_server_that_goes_is_told_once_and_gets_its_numbers_later(mlflow, tmp_path):
    store, away = tmp_path / "store", tmp_path / "away"
    trackers, said = start(tmp_path / "run", mlflow=f"file://{store}")
    row = {"split": "val", "miou": 0.5, "pixel_accuracy": None, "labels_per_image": 5.0}
    store.rename(away)
    store.write_text("no folder any more")
    trackers.on_metrics([row | {"round": 0}])
    trackers.on_metrics([row | {"round": 1}])
    assert len(said) == 1
    assert "MLflow does not take numbers; the run goes on" in said[0]
    store.unlink()
    away.rename(store)
    trackers.close(is_finished=True)
    assert len(said) == 1
    client, (run,) = mlflow_runs(mlflow, f"file://{store}")
    for name in ("val/miou", "val/labels_per_image"):
        steps = [point.step for point in client.get_metric_history(run.info.run_id, name)]
        assert steps == [0, 1], name


def test_a_server_that_stays_away_does_not_end_a_run(mlflow, tmp_path):
    store = tmp_path / "store"
    trackers, said = start(tmp_path / "run", mlflow=f"file://{store}")
    store.rename(tmp_path / "away")
    store.write_text("no folder any more")
    progress = {"round": 0, "phase": "phase1", "epoch": 1, "loss": 1.0, "learning_rate": 0.1}
    trackers.on_epoch(progress)
    trackers.close(is_finished=True)
    assert len(said) == 2
    assert "MLflow could not be closed, its last numbers may be missing there" in said[1]


def test_a_server_that_was_never_there_is_an_error_at_the_start(mlflow, tmp_path):
    config = tiny_config(tracking={"mlflow": "http://127.0.0.1:9"})
    with pytest.raises(ResourceError, match=r"tracking\.mlflow = http://127\.0\.0\.1:9 does not"):
        madbal_ray.run(config, run_dir=tmp_path / "run", engine="local")
    assert not (tmp_path / "pool").exists()


def test_a_resumed_run_carries_on_its_wandb_run(wandb, tmp_path):
    for step in (3, 1):  # an epoch may come again
        trackers, said = start(tmp_path / "run", wandb="madbal-test")
        progress = {"round": 0, "phase": "phase1", "loss": 0.5, "learning_rate": 0.1}
        trackers.on_epoch(progress | {"epoch": step})
        trackers.close(is_finished=step == 1)
        assert said == []
    kept = RunDir(tmp_path / "run").identity()
    written = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert {path.name for path in written} == {f"run-{kept}.wandb"}
    found = [record for path in written for record in wandb_records(path)]
    config = {
        one.key: one.value_json for record in found for one in record.run.config.update if one.key
    }
    assert config["budget.pixels_per_image"] == "5"
    history = [
        {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]
    losses = [row for row in history if "round_000/phase1/loss" in row]
    assert [row["round_000/phase1/step"] for row in losses] == ["3", "1"]
    assert losses[0]["round_000/phase1/loss"] == "0.5"
    ends = [record.exit.exit_code for record in found if record.HasField("exit")]
    assert ends == [1, 0]


def wandb_records(path):
    """Read what W&B keeps for a later `wandb sync`."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = path.read_bytes(), 7, b""  # LevelDB's log after a header of 7 bytes
    while position < len(data):
        if (left := BLOCK - position % BLOCK) < 7:
            position += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def test_wandb_never_asks_for_a_key(monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    pytest.importorskip("wandb", reason="extra wandb is not installed")
    config = load_config(tiny_config(tracking={"wandb": "p"})).tracking
    with pytest.raises(ConfigError, match="set WANDB_API_KEY, or WANDB_MODE=offline"):
        check_tracking(config)
    monkeypatch.setenv("WANDB_API_KEY", "anything")
    check_tracking(config)


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_named_before_anything_runs(name, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    path = tmp_path / "config.yaml"
    path.write_text(f"{{data: {{name: synthetic}}, tracking: {{{name}: 'http://127.0.0.1:9'}}}}")
    command = ["run", str(path), "--run-dir", str(tmp_path / "run"), "--engine", "local"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert f"pip install 'madbal_ray[{name}]', or set tracking.{name}=null" in result.output
    assert os.listdir(tmp_path) == ["config.yaml"]


def test_a_password_does_not_get_into_the_configuration():
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as found:
        load_config({"tracking": {"mlflow": "http://someone:hush@127.0.0.1"}})
    assert "hush" not in str(found.value)


def test_settings_are_flattened():
    assert dict(flattened({"a": 1, "b": {"c": [2], "d": {"e": None}}})) == {
        "a": 1,
        "b.c": [2],
        "b.d.e": None,
    }
