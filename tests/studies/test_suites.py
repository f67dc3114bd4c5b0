"""Suites: what they refuse, what they share, how they go on."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import madbal_ray
from madbal_ray import api
from madbal_ray.errors import ConfigError
from madbal_ray.state.storage import Folder
from madbal_ray.studies.suite import SuiteRunner
from madbal_ray.studies.suite_config import REFERENCE, load_suite
from madbal_ray.studies.tasks import TaskResult
from tests.conftest import tiny_config, tiny_suite_file


def write(path: Path, **changes) -> Path:
    path.write_text(yaml.safe_dump(tiny_suite_file() | changes))
    return path


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "messages"),
        [
            (
                {"members": {"a": {"strategy": {"name": "madball"}}, "random": {}}},
                ["member a", "madball", "madbal, averaging"],
            ),
            (
                {"members": {"a": {"train": {"phase1": {"epochs": 9}}}, "random": {}}},
                ["random is not comparable with a: train.phase1.epochs: 9 -> 1"],
            ),
            (
                {"members": {"a": {"oracle": {"skip_void": True}}, "random": {}}},
                ["oracle.skip_void"],
            ),
            ({"members": {"a": {"num_rounds": 3}, "random": {}}}, ["member random has 2 rounds"]),
            (
                {"members": {"a": {"model": {"weights": "x.safetensors"}}, "random": {}}},
                ["model.weights: x.safetensors -> none"],
            ),
            (
                {"members": {"a": {"resources": {"device": "cuda"}}, "random": {}}},
                ["random is not comparable with a: resources: "],
            ),
            (
                {"members": {"a": {"pool": {"dir": "elsewhere"}}, "random": {}}},
                ["random is not comparable with a: pool.dir: "],
            ),
            ({"baseline": "nobody"}, ["baseline 'nobody' is no member: madbal, random"]),
            ({"seed": [1]}, ["seed", "Extra inputs"]),
            ({"seeds": []}, ["seeds"]),
            ({"seeds": [0, 1, 1]}, ["seeds: [0, 1, 1] holds one twice"]),
            (
                {"members": {"full_supervision": {}, "random": {}}, "reference": {}},
                ["full_supervision is what `reference` runs as"],
            ),
            ({"varies": ["data.root"]}, ["varies.0: String should match pattern '^(train|model)"]),
            (
                {
                    "members": {"a": {"train": {"phase1": {"epochs": 9}}}, "random": {}},
                    "varies": ["train.phase1.objective"],
                },
                ["random is not comparable with a: train.phase1.epochs: 9 -> 1"],
            ),
            ({"base": "nowhere.yaml"}, ["nowhere.yaml"]),
            ({"base": "9" * 5000}, ["99…: cannot be read (File name too long); give the path"]),
        ],
    )
    def test_before_anything_runs(self, tmp_path, changes, messages):
        path = write(tmp_path / "suite.yaml", **changes)
        with pytest.raises(ConfigError) as caught:
            api.run_suite(path, folder=tmp_path / "out", engine="local")
        for message in messages:
            assert message in str(caught.value)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("override", ["seed=5", "name=x", "strategy=margin"])
    def test_overrides_that_would_make_all_runs_the_same(self, tmp_path, override):
        with pytest.raises(ConfigError, match=f"--set {override}: members and seeds differ in"):
            load_suite(write(tmp_path / "suite.yaml"), (override,))

    def test_no_file(self, tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_suite(tmp_path / "none.yaml")

    def test_every_broken_member_is_named(self, tmp_path):
        members = {"a": {"strategy": {"name": "x"}}, "b": {"strategy": {"name": "y"}}}
        with pytest.raises(ConfigError) as caught:
            load_suite(write(tmp_path / "suite.yaml", members=members, baseline="a"))
        assert "member a" in str(caught.value)
        assert "member b" in str(caught.value)


def test_full_supervision_keeps_its_one_round_and_all_labels_under_overrides(tmp_path):
    path = write(tmp_path / "suite.yaml", reference={})
    overrides = ("num_rounds=4", "budget.initial_pixels_per_image=3", "train.phase1.epochs=7")
    suite = load_suite(path, overrides)
    found = {
        run.member: (
            run.config.num_rounds,
            run.config.budget.initial_pixels_per_image,
            run.config.train.phase1.epochs,
        )
        for run in suite.runs
    }
    assert found.pop(REFERENCE) == (1, "all", 7)
    assert set(found.values()) == {(4, 3, 7)}


def test_round_0_is_shared_by_all_strategies_of_a_seed(tiny_suite):
    runs = {
        path.parent.name: madbal_ray.open_run(path.parent)
        for path in tiny_suite.glob("*-seed-*/config.json")
    }
    assert len(runs) == 6
    for name in ("queries", "labels"):
        first, second = (runs[f"{one}-seed-0"].table(name, 0) for one in ("madbal", "random"))
        assert first.equals(second)
        assert not first.equals(runs["madbal-seed-1"].table(name, 0))
    digests = {
        runs[f"{one}-seed-0"].stage("phase1", 0).marker().digest for one in ("madbal", "random")
    }
    assert len(digests) == 1
    trained = [
        event
        for one in runs.values()
        for event in one.run_dir.events()
        if event["event"] == "stage_finished" and event["stage"] == "train" and event["round"] == 0
    ]
    # one for each seed, one for each fully supervised run, and madbal's phase II
    assert len(trained) <= 6


def test_a_finished_suite_runs_nothing(tiny_suite, tmp_path):
    lines: list[str] = []
    path = write(tmp_path / "suite.yaml")
    _, failed = api.run_suite(path, folder=tiny_suite, engine="local", say=lines.append)
    assert lines == ["6 runs, 6 finished"]
    assert failed == []


def test_an_edited_suite_does_not_report_old_runs(tiny_suite, tmp_path):
    members = {"madbal": {"strategy": {"name": "madbal", "pixel_share": 0.5}}, "random": {}}
    members["random"] = {"strategy": {"name": "random"}}
    path = write(tmp_path / "suite.yaml", members=members)
    with pytest.raises(ConfigError, match=r"madbal-seed-0: strategy.pixel_share: null -> 0.5"):
        api.run_suite(path, folder=tiny_suite, engine="local")


def test_a_run_without_its_phase_2_is_not_finished(tiny_suite, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(tiny_suite, folder)
    (folder / "madbal-seed-0" / "rounds" / "001" / "phase2" / "_CURRENT.json").unlink()
    lines: list[str] = []
    api.run_suite(write(tmp_path / "suite.yaml"), folder=folder, engine="local", say=lines.append)
    assert lines[0] == "6 runs, 5 finished"


def test_two_suites_in_one_report_keep_their_runs_apart(tiny_suite, tmp_path):
    shutil.copytree(tiny_suite, tmp_path / "other")
    results, _ = api.report([tiny_suite, tmp_path / "other"], out=tmp_path / "out", warn=print)
    assert len(results.members) == 8
    assert all(len(results.of(member)) == 1 for member in results.members)


def test_a_failed_run_is_listed_and_tried_again(tiny_suite, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(tiny_suite, folder)
    shutil.rmtree(folder / "madbal-seed-1")
    shutil.rmtree(folder / "random-seed-1" / "rounds" / "001")
    broken = folder / "madbal-seed-1"
    broken.write_text("a file where a folder should be")
    path, lines = write(tmp_path / "suite.yaml"), []
    _, failed = api.run_suite(path, folder=folder, engine="local", say=lines.append)
    assert [result.task.run.name for result in failed] == ["madbal-seed-1"]
    assert any("random-seed-1" in line and "failed" not in line for line in lines)
    broken.unlink()
    _, failed = api.run_suite(path, folder=folder, engine="local", say=lines.append)
    assert failed == []
    again = madbal_ray.open_run(folder / "madbal-seed-1")
    first = madbal_ray.open_run(tiny_suite / "madbal-seed-1")
    assert again.table("queries").equals(first.table("queries"))


def test_ray_runs_the_suite_like_the_local_engine(ray_session, tiny_suite, tmp_path):
    path = write(tmp_path / "suite.yaml", seeds=[1], reference=None)
    _, failed = api.run_suite(path, folder=tmp_path / "out", engine="ray", say=lambda line: None)
    assert failed == []
    for name in ("madbal-seed-1", "random-seed-1"):
        here = madbal_ray.open_run(tmp_path / "out" / name)
        there = madbal_ray.open_run(tiny_suite / name)
        assert here.table("queries").equals(there.table("queries"))
    listing = json.loads((tmp_path / "out" / "suite.json").read_text())
    assert listing["runs"] == ["madbal-seed-1", "random-seed-1"]


@pytest.mark.parametrize("path", sorted(Path("experiments/suites").glob("*.yaml")), ids=str)
def test_the_suites_we_ship_are_comparable(path):
    suite = load_suite(path, ("data.root=/data",))
    assert suite.baseline in suite.members
    assert len(suite.runs) == len(suite.seeds) * (len(suite.members) + suite.has_reference)


def test_a_suite_may_compare_ways_of_training_and_says_how_members_differ(tmp_path):
    more = {"train": {"phase1": {"epochs": 2}}, "strategy": {"name": "random"}}
    path = write(
        tmp_path / "suite.yaml",
        members={"random": {"strategy": {"name": "random"}}, "longer": more},
        varies=["train.phase1.epochs"],
        seeds=[4, 5],
        reference=None,
    )
    folder = tmp_path / "out"
    noting = Noting()
    SuiteRunner(load_suite(path), Folder(tmp_path / "noted"), noting, lambda line: None).run()
    starts = [f"{member}-seed-{seed}" for member in ("longer", "random") for seed in (4, 5)]
    assert sorted(noting.names[1]) == starts
    _, failed = api.run_suite(path, folder=folder, engine="local")
    assert failed == []
    results, _ = api.report([str(folder)], out=tmp_path / "report")
    told = {run.member: run.protocol[-1] for run in results.runs}
    assert told == {
        "random": "differs     train.phase1.epochs 1",
        "longer": "differs     train.phase1.epochs 2",
    }
    runs = [str(folder / f"{member}-seed-4") for member in ("random", "longer")]
    with pytest.raises(ConfigError, match=r"train.phase1.epochs: 1 -> 2"):
        api.report(runs, out=tmp_path / "refused")


@pytest.mark.parametrize(
    ("varied", "change"),
    [
        ("train.augment.flip", {"train": {"augment": {"flip": False}}}),
        ("model.dropout", {"model": {"dropout": 0.5}}),
    ],
)
def test_each_way_of_training_has_a_round_0_of_its_own(tmp_path, varied, change):
    """Members that train alike are not left to train it side by side, each for itself."""
    path = write(
        tmp_path / "suite.yaml",
        members={
            "random": {"strategy": {"name": "random"}},
            "other": {"strategy": {"name": "random"}, **change},
            "again": {"strategy": {"name": "madbal"}},
        },
        varies=[varied],
        seeds=[4],
        reference=None,
    )
    noting = Noting()
    SuiteRunner(load_suite(path), Folder(tmp_path / "noted"), noting, lambda line: None).run()
    assert sorted(noting.names[1]) == ["again-seed-4", "other-seed-4"]  # with or without phase II


def test_reports_refuse_other_protocols_on_one_axis(tiny_run, tmp_path):
    other = madbal_ray.run(
        tiny_config(train__phase1={"epochs": 2, "batch_size": 2}, num_rounds=1),
        run_dir=tmp_path / "other",
        engine="local",
    )
    with pytest.raises(ConfigError, match=r"one axis(.|\n)*train.phase1.epochs"):
        api.report([str(tiny_run.run_dir), str(other.run_dir)], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Noting:
    """A task pool that runs nothing and notes what it was given."""

    width = 1

    def __init__(self):
        self.names = []

    def map(self, tasks):
        self.names.append([task.run.name for task in tasks])
        return (TaskResult(task, 1.0) for task in tasks)


def test_seed_by_seed_so_that_a_stop_leaves_whole_comparisons(tmp_path):
    suite = load_suite(write(tmp_path / "suite.yaml", seeds=[3, 1]))
    noting = Noting()
    SuiteRunner(suite, Folder(tmp_path / "out"), noting, lambda line: None).run()
    pool, round_0, whole = noting.names
    assert pool == ["madbal-seed-3"]
    assert sorted(round_0) == ["madbal-seed-1", "madbal-seed-3"]
    members = ("madbal", "random", "full_supervision")
    assert whole == [f"{member}-seed-{seed}" for seed in (3, 1) for member in members]
