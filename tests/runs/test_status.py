"""Where a run is and how long it will take, from events with known times."""

import shutil

import pytest

import madbal_ray
from madbal_ray.config.file import load_config
from madbal_ray.errors import AnswersPending
from madbal_ray.labels.answer_rows import NewAnswer
from madbal_ray.labels.answer_store import AnswerStore
from madbal_ray.runs.status import Status, _seconds_left, format_seconds, read_status
from madbal_ray.state.run_dir import RunDir
from tests.conftest import tiny_config
from tests.people import people_config


def finished(round_index, seconds, stage="score"):
    return {
        "event": "stage_finished",
        "round": round_index,
        "stage": stage,
        "seconds": seconds,
        "time": 0.0,
    }


POOL = finished(None, 1000.0)


@pytest.mark.parametrize(
    ("events", "rounds", "seconds"),
    [
        ([], 0, None),
        ([POOL], 0, None),
        ([POOL, finished(0, 10.0)], 0, None),
        ([POOL, finished(0, 10.0), finished(0, 20.0)], 1, 120.0),
        ([finished(0, 10.0), finished(0, 20.0), finished(1, 5.0)], 1, 115.0),
        ([finished(0, 30.0), finished(1, 40.0), finished(2, 5.0)], 2, 115.0),
        ([finished(0, 40.0), finished(1, 30.0), finished(2, 5.0)], 2, 115.0),
        ([finished(0, 10.0), finished(1, 90.0)], 1, 0.0),
        ([finished(0, 10.0)], 5, 0.0),
    ],
)
def test_what_is_left_is_the_slowest_finished_round_for_each_that_is_not(events, rounds, seconds):
    events = [*events, {"event": "stage_started", "round": 0, "stage": "score", "time": 1.0}]
    assert _seconds_left(events, rounds, 5) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (31.0, "31 s"), (119.0, "119 s"), (121.0, "2 min"), (3569.0, "59 min"),
     (3571.0, "1 h 00 min"), (3725.0, "1 h 02 min"), (90000.0, "25 h 00 min")],
)  # fmt: skip
def test_durations_in_words(seconds, text):
    assert format_seconds(seconds) == text


def run_with(tmp_path, monkeypatch, *events, num_rounds=5):
    run_dir = RunDir(tmp_path / "run")
    run_dir.store_config(load_config(tiny_config(num_rounds=num_rounds)))
    monkeypatch.setattr(RunDir, "events", lambda self: list(events))
    return run_dir


def started(time, round_index, stage):
    return {"event": "stage_started", "time": time, "round": round_index, "stage": stage}


def epoch(time, phase, number, of):
    return {"event": "epoch", "time": time, "phase": phase, "epoch": number, "epochs": of}


def test_a_run_that_trains_names_its_latest_epoch(tmp_path, monkeypatch):
    run_dir = run_with(
        tmp_path,
        monkeypatch,
        started(1.0, None, "index"),
        started(2.0, 0, "train"),
        epoch(3.0, "phase2", 9, 9),
        started(4.0, 1, "train"),
        epoch(4.0, "phase1", 1, 40),
        epoch(6.0, "phase1", 7, 40),
    )
    status = read_status(run_dir)
    assert (status.round_index, status.stage) == (1, "train")
    assert status.epoch == " (phase1, epoch 7 of 40)"
    assert (status.finished_rounds, status.num_rounds) == (0, 5)
    assert status.lines() == [
        "rounds   0 of 5 finished",
        "stage    round 1, train (phase1, epoch 7 of 40)",
        "state    stopped; the same `madbal run` command carries on",
    ]


def test_a_folder_of_scores_is_no_run(tmp_path, monkeypatch):
    """What `madbal score` and `madbal predict` do has no rounds, and `madbal run` is not for it."""
    command = "madbal score runs/a --pool b --out c"
    events = [
        {"event": "process_started", "command": "madbal score another"},
        {"event": "process_ended", "seconds": 1.0, "is_done": True},
        {"event": "process_started", "command": command},
        started(1.0, 0, "score"),
    ]
    status = read_status(run_with(tmp_path, monkeypatch, *events))
    assert not status.is_finished
    assert status.lines() == [
        f"work     {command}",
        "stage    round 0, score",
        "state    stopped; the same command carries on",
    ]
    events.append({"event": "process_ended", "seconds": 1.0, "is_done": False})
    assert not read_status(run_with(tmp_path, monkeypatch, *events)).is_finished
    events[2]["command"] = ""
    events[-1]["is_done"] = True
    assert read_status(run_with(tmp_path, monkeypatch, *events)).lines() == [
        "work     called from Python",
        "state    finished",
    ]
    events.insert(1, {"event": "run_started"})
    status = read_status(run_with(tmp_path, monkeypatch, *events))
    assert status.command is None
    assert status.lines()[0] == "rounds   0 of 5 finished"


def test_epochs_of_an_earlier_training_are_not_this_ones(tmp_path, monkeypatch):
    run_dir = run_with(tmp_path, monkeypatch, epoch(3.0, "phase2", 9, 9), started(4.0, 1, "train"))
    assert read_status(run_dir).epoch == ""


def test_other_stages_have_no_epochs(tmp_path, monkeypatch):
    run_dir = run_with(tmp_path, monkeypatch, started(4.0, 1, "score"), epoch(5.0, "phase1", 7, 40))
    status = read_status(run_dir)
    assert (status.stage, status.epoch) == ("score", "")


def test_a_run_that_was_not_begun(tmp_path, monkeypatch):
    status = read_status(run_with(tmp_path, monkeypatch))
    assert (status.round_index, status.stage, status.seconds_left) == (None, "not started", None)
    assert status.lines()[1] == "stage    pool, not started"


def test_a_stop_rule_ends_a_run(tmp_path, monkeypatch):
    run_dir = run_with(tmp_path, monkeypatch)
    run_dir.mark_stopped(2, "enough")
    status = read_status(run_dir)
    assert status.is_finished
    assert status.lines() == ["rounds   0 of 5 finished", "state    finished: enough"]


def test_all_rounds_done_is_finished_and_a_holder_is_named():
    def status(finished_rounds, holder=None, seconds=None):
        return Status(finished_rounds, 3, 1, "score", "", None, seconds, holder)

    assert status(3).lines() == ["rounds   3 of 3 finished", "state    finished"]
    assert not status(2).is_finished
    lines = status(2, {"pid": 7, "host": "here", "since": 0.0}, 3725.0).lines()
    assert lines[2] == "left     about 1 h 02 min"
    assert lines[3].startswith("state    running: process 7 on here since 19")


def test_agreement_of_people_in_lines():
    """Observed 3 of 4, by chance 1/2: κ 0.5; α by hand 1 - 7 * 2 / (2 * 3 * 5)."""
    from madbal_ray.runs.status import _agreement

    words = [("x", "x"), ("x", "x"), ("y", "y"), ("x", "y")]
    pixels = [{"ada": one, "bob": other} for one, other in words]
    assert _agreement([*pixels, {"ada": "x"}]) == [
        "         ada and bob: 4 pixels in common, Cohen's κ 0.50",
        "         Krippendorff's α 0.53",
    ]
    assert _agreement([{"ada": "x", "eve": "x"}]) == [
        "         ada and eve: 1 pixels in common, κ is not defined"
    ]
    assert _agreement([{"ada": "x"}]) == []


def test_pixels_on_which_two_differ_name_what_settles_them(waiting, tmp_path):
    """Nobody of the two is asked again: without a third one the run waits for ever."""
    shutil.copytree(waiting[0].parent, tmp_path / "copy")
    run, names = tmp_path / "copy" / "run", waiting[2]
    with AnswerStore.open(str(run / "answers.sqlite")) as store:
        ids = [query.query_id for query in store.queries()]
        said = {"status": "labelled", "source": "test"}
        store.append(
            [
                NewAnswer(query_id=one, annotator="ada", class_name=names[0], **said)
                for one in ids[:-1]
            ]
        )
        for one, name in ((ids[0], names[1]), (ids[1], names[1]), (ids[2], names[0])):
            store.append([NewAnswer(query_id=one, annotator="bob", class_name=name, **said)])
        skipped = NewAnswer(query_id=ids[0], annotator="eve", status="skipped", source="test")
        store.append([skipped])
    settles = (
        f"a third annotator settles them (`madbal annotate {run} --annotator NAME`), or one of the "
        "two who changes their answer"
    )
    assert read_status(RunDir(run)).lines()[2:4] == [
        "people   round 0: 27 of 30 answered, 3 waiting, 2 of them for a third opinion",
        f"         where two differ, {settles}",
    ]
    config = people_config(waiting[0].parent / "pictures", num_rounds=1)
    with pytest.raises(AnswersPending) as waited:
        madbal_ray.run(config, run_dir=run, engine="local")
    assert waited.value.count == 3
    assert str(waited.value).startswith(
        f"round 0: 27 of 30 pixels are answered. On 2 of the others two people differ: {settles}. "
        f"Answer with `madbal annotate {run}`, or ask people with"
    )
