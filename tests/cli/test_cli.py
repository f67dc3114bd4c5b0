"""The command line: what it prints, what it returns, what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import madbal_ray
from madbal_ray.cli import main
from madbal_ray.state.run_dir import RunDir
from tests.conftest import tiny_config


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def config_path(tmp_path):
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(tiny_config()))
    return path


@pytest.fixture
def copied_run(tiny_run, tmp_path):
    """A copy of the finished tiny run that a test may damage."""
    source = Path(str(tiny_run.run_dir)).parent
    shutil.copytree(source, tmp_path / "copy")
    return tmp_path / "copy" / "run"


def test_run_stops_resumes_finishes_and_says_so(config_path, tmp_path):
    run_dir = tmp_path / "runs" / "run"
    command = ["run", config_path, "--run-dir", run_dir, "--engine", "local"]
    stopped = invoke(*command, "--stop-after", "score:1")
    assert stopped.exit_code == 0, stopped.output
    assert "stopped after round 1 score, as asked" in stopped.output
    status = invoke("status", run_dir)
    assert "rounds   1 of 2 finished" in status.output
    assert "stage    round 1, score" in status.output
    assert "stopped; the same `madbal run` command carries on" in status.output
    finished = invoke(*command)
    assert finished.exit_code == 0, finished.output
    assert "labels per image" in finished.output
    assert "round 0 labels" not in finished.output  # it was done before
    assert (run_dir / "report" / "index.html").stat().st_size > 1000
    assert (run_dir / "report" / "metrics.csv").read_text().count("\n") == 3
    again = invoke(*command)
    assert again.exit_code == 0
    assert "is finished: 2 rounds" in again.output
    assert "state    finished" in invoke("status", run_dir).output


def test_a_run_step_by_step_is_the_same_run(config_path, tmp_path, tiny_run):
    run_dir = tmp_path / "runs" / "run"
    rest = [config_path, "--run-dir", run_dir, "--engine", "local"]
    prepared = invoke("prepare", *rest)
    assert prepared.exit_code == 0, prepared.output
    assert "9 images, 0 quarantined" in prepared.output
    assert not (run_dir / "rounds").exists()
    for round_index in range(2):
        selected = invoke("select", *rest)
        assert selected.exit_code == 0, selected.output
        assert f"round {round_index}: 30 queries in" in selected.output
        trained = invoke("train", *rest)
        assert trained.exit_code == 0, trained.output
        assert f"rounds   {round_index + 1} of 2 finished" in invoke("status", run_dir).output
    assert "labels per image" in trained.output
    nothing = invoke("select", *rest)
    assert nothing.exit_code == 2
    assert "all 2 rounds are trained" in nothing.output
    assert "--set num_rounds=3" in nothing.output
    assert "is finished: 2 rounds" in invoke("run", *rest).output
    queries = madbal_ray.open_run(run_dir).table("queries")
    assert queries.equals(tiny_run.table("queries"))


def test_a_step_after_a_stop_rule_is_refused(copied_run, config_path):
    rest = ["--run-dir", copied_run, "--engine", "local", "--set", "stop.clicks_per_image=10"]
    more = invoke("run", config_path, *rest, "--set", "num_rounds=4")
    assert more.exit_code == 0, more.output
    refused = invoke("select", config_path, *rest, "--set", "num_rounds=4")
    assert refused.exit_code == 2
    assert "was ended by its stop rule (10 clicks an image are spent" in refused.output


def test_more_rounds_may_be_added(copied_run, config_path):
    more = invoke(
        "run", config_path, "--run-dir", copied_run, "--engine", "local", "--set", "num_rounds=3"
    )
    assert more.exit_code == 0, more.output
    assert "round 2: 15 labels per image" in more.output


def test_a_stored_configuration_repeats_the_run(copied_run, tiny_run, tmp_path):
    result = invoke(
        "run",
        copied_run / "config.json",
        "--run-dir",
        tmp_path / "again" / "run",
        "--engine",
        "local",
    )
    assert result.exit_code == 0, result.output
    again = madbal_ray.open_run(tmp_path / "again" / "run")
    assert again.table("queries").equals(tiny_run.table("queries"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "train.phase1.epoch=3"], "train.phase1.epoch: unknown key; allowed here"),
        (["--set", "seed=9"], "seed: 0 -> 9"),
        (["--stop-after", "Score 1"], "expected STAGE or STAGE:ROUND"),
        (["--stop-after", "training"], "there is no such stage; did you mean train?"),
        (["--stop-after", "score"], "a stage of a round; say which, from score:0 to score:1"),
        (["--stop-after", "train:2"], "say which, from train:0 to train:1"),
        (["--stop-after", "images:0"], "a stage of the pool; say images"),
    ],
)
def test_refusals_exit_with_2_and_write_nothing(copied_run, config_path, arguments, message):
    before = sorted(copied_run.parent.rglob("*"))
    result = invoke("run", config_path, "--run-dir", copied_run, "--engine", "local", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert [p for p in sorted(copied_run.parent.rglob("*")) if p.name[0] != "_"] == [
        p for p in before if p.name[0] != "_"
    ]


def test_a_second_process_is_refused_and_told_who_holds_the_folder(copied_run, config_path):
    with RunDir(copied_run).lock():
        result = invoke(
            "run",
            config_path,
            "--run-dir",
            copied_run,
            "--engine",
            "local",
            "--set",
            "num_rounds=3",
        )
    assert result.exit_code == 1
    assert "is held by process" in result.output
    assert "choose another --run-dir" in result.output


def test_dry_run_writes_nothing(config_path, tmp_path):
    result = invoke("run", config_path, "--run-dir", tmp_path / "new", "--dry-run")
    assert result.exit_code == 0
    assert "5 random pixels an image, then 1 x 5 pixels an image by madbal" in result.output
    assert not (tmp_path / "new").exists()


def test_no_run_here(tmp_path):
    for command in ("status", "verify", "report"):
        result = invoke(command, tmp_path)
        assert result.exit_code == 1, command
        assert "is not a run folder" in result.output


def test_report_compares_runs(copied_run, tiny_run, tmp_path):
    result = invoke("report", copied_run, str(tiny_run.run_dir), "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "index.html").exists()


class TestVerify:
    def test_a_whole_run_is_verified(self, tiny_run):
        result = invoke("verify", str(tiny_run.run_dir))
        assert result.exit_code == 0, result.output
        assert "selection replayed" in result.output
        assert "\nverified: 2 of 2 rounds; taken as stored: index, " in result.output

    @pytest.mark.parametrize(
        "name", ["queries/00001", "superpixel_scores/00000", "labels/00002", "superpixels/00000"]
    )
    def test_the_first_changed_file_is_named(self, copied_run, name):
        path = next(copied_run.parent.rglob(f"{name}.parquet"))
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        result = invoke("verify", copied_run)
        assert result.exit_code == 1
        assert f"{name}.parquet: sha256" in result.output

    def test_a_selection_that_its_scores_do_not_give_is_found(self, copied_run):
        """Queries, labels and markers are all rewritten, hashes included."""
        state = RunDir(copied_run)
        asked = state.find("select", 1).read_table("queries", [0]).to_pylist()[0]

        def move(rows):
            pixel = ("image_id", "y", "x")
            row = next(r for r in rows if all(r[k] == asked[k] for k in pixel))
            row.update(x=63, y=47)

        self.forge(copied_run, "select", "queries", move)
        self.forge(copied_run, "labels", "labels", move)
        result = invoke("verify", copied_run)
        assert result.exit_code == 1
        assert "queries: column" in result.output
        assert "differs from the replay" in result.output

    def test_labels_that_do_not_answer_the_queries_are_found(self, copied_run):
        self.forge(copied_run, "labels", "labels", lambda rows: rows.pop())
        result = invoke("verify", copied_run)
        assert result.exit_code == 1
        assert "in only one of queries" in result.output

    @staticmethod
    def forge(run_dir, stage_name, table, change):
        """Change a table of round 1 and make every hash agree with it."""
        from madbal_ray.state import tables

        state = RunDir(run_dir)
        stage = state.find(stage_name, 1)
        rows = stage.read_table(table, [0]).to_pylist()
        change(rows)
        marker = stage.marker()
        forged = stage.write_table(table, 0, tables.from_rows(table, rows))
        records = [forged if r.path == forged.path else r for r in marker.files]
        stage.folder.delete("_DONE.json")
        from madbal_ray.state.stage_dir import StageDir, _markers

        _markers.clear()
        fresh = StageDir(stage.folder, stage.stage, stage.key, marker.settings, marker.inputs)
        fresh.commit(records, marker.summary)
        (Path(str(state)) / f"rounds/001/{stage_name}/_CURRENT.json").unlink()
        _markers.clear()
        state.point(fresh, 1)
