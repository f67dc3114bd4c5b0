"""The time left of a run without a finished round: forecasts and events in, seconds out."""

import json
import os
import time
from dataclasses import replace

import pytest

from madbal_ray import api
from madbal_ray.config.file import load_config
from madbal_ray.loop import time_left as module
from madbal_ray.loop.forecast import Forecast, StageForecast
from madbal_ray.loop.time_left import corrected, time_left
from madbal_ray.state.run_dir import RunDir
from tests.conftest import tiny_config

PLANNED = {"pool": {"images": 10.0, "superpixels": 30.0}, "round": 100.0}


def started(stage, at, round_index=None):
    return {"event": "stage_started", "stage": stage, "round": round_index, "time": at}


def finished(stage, seconds, round_index=None):
    return {"event": "stage_finished", "stage": stage, "round": round_index, "seconds": seconds}


@pytest.mark.parametrize(
    ("events", "now", "left"),
    [
        ([], 0.0, 10 + 30 + 300),
        ([started("images", 50.0)], 54.0, 6 + 30 + 300),
        ([started("images", 50.0)], 99.0, 0 + 30 + 300),  # late, and never below nothing
        # images took twice as long as they should: so will the rest
        ([started("images", 0.0), finished("images", 20.0)], 20.0, 2 * (30 + 300)),
        # a hundred times: four times at most
        ([started("images", 0.0), finished("images", 1000.0)], 20.0, 4 * (30 + 300)),
        # what the forecast does not know does not count
        ([finished("index", 500.0), started("images", 50.0)], 54.0, 6 + 30 + 300),
        ([started("train", 200.0, 0)], 240.0, 60 + 200),
        ([started("select", 200.0, 0), started("train", 210.0, 0)], 240.0, 60 + 200),
        ([started("train", 200.0, 0)], 900.0, 10 + 200),
    ],
)
def test_the_forecast_less_what_is_done(events, now, left):
    assert corrected(PLANNED, events, 3, now) == pytest.approx(left)


def test_work_too_short_to_have_a_pace_changes_nothing():
    planned = {"pool": {"images": 0.2, "superpixels": 30.0}, "round": 100.0}
    assert corrected(planned, [finished("images", 5.0)], 1, 0.0) == pytest.approx(130)


@pytest.fixture
def running(tmp_path, monkeypatch):
    """Return the folder of a run that another process holds, and the forecasts that were made."""
    folder, made = RunDir(tmp_path / "run"), []
    folder.store_config(load_config(tiny_config(num_rounds=3)))
    stages = [StageForecast("images", 10.0), StageForecast("train phase I", 60.0, rounds=3)]

    def forecast(config, *, device):
        made.append(device)
        return Forecast(stages, 8, device, 0)

    monkeypatch.setattr(module, "forecast", forecast)
    holder = {"pid": os.getpid(), "host": "here", "since": time.time()}
    monkeypatch.setattr(RunDir, "holder", lambda self: holder)
    return folder, made


def test_the_status_of_a_young_run_has_the_time_left(running):
    folder, made = running
    found = api.status(folder.folder.uri)
    assert (found.seconds_left, found.is_forecast) == (pytest.approx(70.0), True)
    assert "left     about 70 s, as a probe on this machine says" in found.lines()
    again = api.status(folder.folder.uri)
    assert again.seconds_left == pytest.approx(70.0)
    assert made == ["cpu"]  # once
    stored = json.loads(folder.folder.read("_forecast.json"))
    assert stored == {"pool": {"images": 10.0}, "round": 20.0}


def test_a_run_that_nobody_works_on_is_not_probed(running, monkeypatch):
    folder, made = running
    monkeypatch.setattr(RunDir, "holder", lambda self: None)
    found = api.status(folder.folder.uri)
    assert (found.seconds_left, found.is_forecast, made) == (None, False, [])
    assert replace(found, is_forecast=True).lines() == found.lines()


def test_nobody_can_tell_when_people_answer(running, monkeypatch):
    folder, made = running
    read = api.run_status.read_status
    people = ("people   nobody was asked yet",)
    monkeypatch.setattr(
        api.run_status, "read_status", lambda run_dir: replace(read(run_dir), people=people)
    )
    assert (api.status(folder.folder.uri).seconds_left, made) == (None, [])


def test_data_that_cannot_be_probed_leave_the_time_open(tmp_path, monkeypatch):
    folder = RunDir(tmp_path / "run")
    config = tiny_config(data={"name": "camvid", "root": str(tmp_path / "nowhere")})
    folder.store_config(load_config(config))
    assert time_left(folder, device="cpu") is None
