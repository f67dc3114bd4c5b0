"""A stage of a run: skipped when done, told about, pointed to, and where to stop."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from madbal_ray.config.file import load_config
from madbal_ray.engine.contract import LightShardJob
from madbal_ray.engine.local import LocalEngine
from madbal_ray.engine.stages import StageRunner, StopRequested
from madbal_ray.errors import ConfigError
from madbal_ray.state import tables
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.tracking.trackers import Trackers
from tests.conftest import tiny_config


class View:
    """Notes what it is told."""

    def __init__(self):
        self.told = []

    def start_stage(self, title, total):
        self.told.append(("start", title, total))

    def advance(self, images):
        self.told.append(("advance", images))

    def on_training(self, progress):
        self.told.append(("epoch", progress["epoch"]))

    def end_stage(self, seconds):
        self.told.append(("end",))

    def say(self, text):
        self.told.append(("say", text))


@dataclass
class Committing:
    """A whole-pool job that commits an empty stage; notes its runs."""

    output: StageDir
    runs: int = 0

    def run(self):
        self.runs += 1
        self.output.commit([], {})


@dataclass(kw_only=True)
class Shards(LightShardJob):
    """Two images in every shard."""

    table_names = ("superpixel_clusters",)

    def run(self, shard_id):
        rows = [{"image_id": f"{shard_id}-{i}"} for i in range(2)]
        return {"superpixel_clusters": tables.from_rows("superpixel_clusters", rows)}


@dataclass
class Training:
    """Commits all its stages."""

    outputs: list
    runs: int = 0
    name = "training"
    num_workers = min_workers = 1

    def run(self, context):
        self.runs += 1
        for output in self.outputs:
            output.commit([], {})


def runner_of(tmp_path, stop_after=None):
    config = load_config(tiny_config(tracking={"tensorboard": False}))
    run_dir = RunDir(tmp_path / "run")
    view = View()
    trackers = Trackers(config, run_dir, view.say)
    return StageRunner(run_dir, LocalEngine("cpu"), view, trackers, stop_after)


def planned(runner, name):
    return StageDir.plan(runner.run_dir.folder / "stages", name, {}, {})


def events(runner):
    hosts = ("time", "seconds", "peak_memory")
    return [
        {name: value for name, value in event.items() if name not in hosts}
        for event in runner.run_dir.events()
    ]


def test_a_stage_is_run_told_noted_and_pointed_to(tmp_path):
    runner = runner_of(tmp_path)
    job = Committing(planned(runner.of_round(3), "allocate"))
    runner.of_round(3).call(job)
    assert job.runs == 1
    assert runner.progress.told == [("start", "round 3 allocate", None), ("end",)]
    assert events(runner) == [
        {"event": "stage_started", "round": 3, "stage": "allocate", "total": None},
        {"event": "stage_finished", "round": 3, "stage": "allocate", "images": 0},
    ]
    assert runner.run_dir.find("allocate", 3) == job.output
    assert runner.run_dir.find("allocate", 2) is None
    assert runner.round_index is None


def test_a_finished_stage_is_only_pointed_to(tmp_path):
    runner = runner_of(tmp_path)
    job = Committing(planned(runner, "centroids"))
    job.run()
    runner.call(job)
    assert job.runs == 1
    assert runner.progress.told == []
    assert runner.run_dir.find("centroids") == job.output


def test_no_run_points_to_an_interim_stage_and_one_may_stop_after_it(tmp_path):
    runner = runner_of(tmp_path, ("kmeans_fit", None))
    job = Committing(planned(runner, "kmeans_fit"))
    with pytest.raises(StopRequested):
        runner.call(job)
    assert job.output.is_done
    assert runner.run_dir.find("kmeans_fit") is None


def test_a_run_that_uses_another_folder_of_a_stage_is_refused_before_the_work(tmp_path):
    runner = runner_of(tmp_path)
    runner.call(Committing(planned(runner, "allocate")))
    other = StageDir.plan(runner.run_dir.folder / "stages", "allocate", {"seed": 1}, {})
    job = Committing(other)
    with pytest.raises(ConfigError, match="images, masks or weights have changed"):
        runner.call(job)
    assert job.runs == 0


def test_shards_advance_the_view_and_add_up_their_images(tmp_path):
    runner, heard = runner_of(tmp_path), []
    job = Shards(output=planned(runner, "superpixel_clusters"))
    runner.map(job, [0, 1, 2], total=6, on_row=lambda row: heard.append(row["shard_id"]))
    assert runner.progress.told == [
        ("start", "superpixel_clusters", 6),
        ("advance", 2),
        ("advance", 2),
        ("advance", 2),
        ("end",),
    ]
    assert events(runner)[1]["images"] == 6
    assert heard == [0, 1, 2]
    runner.map(job, [0, 1, 2], total=6)
    assert len(events(runner)) == 2


def test_training_runs_unless_all_its_stages_are_done(tmp_path):
    runner = runner_of(tmp_path).of_round(1)
    outputs = [planned(runner, name) for name in ("phase1", "metrics", "phase2")]
    job = Training(outputs)
    outputs[0].commit([], {})
    runner.train(job, outputs)
    assert job.runs == 1
    assert [event["stage"] for event in events(runner)] == ["train", "train"]
    assert all(runner.run_dir.find(one.stage, 1) == one for one in outputs)
    runner.train(job, outputs)
    assert job.runs == 1


@pytest.mark.parametrize("is_done", [False, True])
def test_a_run_stops_after_the_stage_of_the_pool_that_was_asked_for(tmp_path, is_done):
    runner = runner_of(tmp_path, ("centroids", None))
    other, job = (Committing(planned(runner, name)) for name in ("superpixels", "centroids"))
    runner.call(other)
    if is_done:
        job.run()
    with pytest.raises(StopRequested, match=r"^stopped after centroids, as asked$"):
        runner.call(job)
    assert job.runs == 1
    assert runner.run_dir.find("centroids") == job.output


def test_a_run_stops_after_the_stage_of_the_round_that_was_asked_for(tmp_path):
    runner = runner_of(tmp_path, ("allocate", 2))
    for round_index in (0, 1, 3):
        runner.of_round(round_index).call(Committing(planned(runner, "allocate")))
        runner.of_round(round_index).stop_where_asked("train")
    runner.call(Committing(planned(runner, "allocate")))
    with pytest.raises(StopRequested, match=r"^stopped after round 2 allocate, as asked$"):
        runner.of_round(2).call(Committing(planned(runner, "allocate")))
    runner.of_round(2).stop_where_asked("select")


def test_without_a_place_to_stop_nothing_stops(tmp_path):
    runner = runner_of(tmp_path)
    runner.stop_where_asked("index")
    runner.of_round(0).stop_where_asked("train")


def test_epochs_are_told_always_and_noted_now_and_then(tmp_path, monkeypatch):
    clock = iter([100.0, 104.0, 105.0, 109.0])
    stub = SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr("madbal_ray.engine.stages.time", stub)
    runner = runner_of(tmp_path)
    for epoch in (1, 2, 3, 4):
        progress = {"round": 0, "phase": "phase1", "loss": 0.5, "learning_rate": 0.1}
        runner.on_training(progress | {"epoch": epoch})
    assert runner.progress.told == [("epoch", 1), ("epoch", 2), ("epoch", 3), ("epoch", 4)]
    assert [event["epoch"] for event in events(runner)] == [1, 3]
