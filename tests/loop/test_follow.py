"""`--follow`: a run that people answer goes on by itself."""

import json
import subprocess
import sys
import threading
import time

import pytest

import madbal_ray
from madbal_ray.config.file import load_config
from madbal_ray.errors import AnswersPending, ConfigError, RunDirError
from madbal_ray.labels.answer_store import AnswerStore
from madbal_ray.loop import follow as follow_module
from madbal_ray.state.run_dir import RunDir
from tests.conftest import tiny_config
from tests.people import answer_waiting, people_config, picture_folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return picture_folder(tmp_path_factory.mktemp("pictures"))


def waits_for(folder, round_index):
    """Wait until a round has asked."""
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        try:
            with AnswerStore.open(str(folder / "answers.sqlite")) as store:
                if store.queries(round_index):
                    return
        except RunDirError:
            pass  # not made yet, or being made
        time.sleep(0.1)
    raise AssertionError(f"round {round_index} asks nothing")


def answer_both_rounds(folder, masks, names):
    for index in range(2):
        waits_for(folder, index)
        answered = 0
        while answered < 30:  # shard after shard is posted
            answered += answer_waiting(folder, masks, names, most=10)
            time.sleep(0.05)


def test_one_command_sees_both_rounds_through(pictures, tmp_path, monkeypatch):
    root, masks, names = pictures
    monkeypatch.setattr(follow_module, "POLL_SECONDS", 0.02)
    said = []
    people = threading.Thread(
        target=answer_both_rounds, args=(tmp_path / "run", masks, names), daemon=True
    )
    people.start()
    done = madbal_ray.run(
        people_config(root),
        run_dir=tmp_path / "run",
        engine="local",
        follow=True,
        progress=Said(said),
    )
    people.join(10)
    assert done.table("labels").to_pandas().groupby("round").size().tolist() == [30, 30]
    waited = [line for line in said if line.startswith("waiting for")]
    assert all(line.endswith("The run goes on by itself") for line in waited)
    for index in range(2):
        assert any(f"answers: round {index}: " in line for line in waited)


def test_answers_that_come_while_it_looks_are_not_waited_for_again(tmp_path, pictures, monkeypatch):
    """The last answer is stored after the round looked and before the wait begins."""
    root, masks, names = pictures
    folder = tmp_path / "run"
    with pytest.raises(AnswersPending):
        madbal_ray.run(people_config(root, num_rounds=1), run_dir=folder, engine="local")
    answered = []

    def work():
        answered.append(answer_waiting(folder, masks, names, most=25))
        if len(answered) == 1:
            raise AnswersPending("round 0", 30)  # it had looked before the 25 came

    def sleep(seconds):
        assert len(answered) == 1, "it waits for answers that are there"
        answered.append(answer_waiting(folder, masks, names))

    monkeypatch.setattr(follow_module.time, "sleep", sleep)
    config = load_config(people_config(root, num_rounds=1))
    follow_module.follow(config, RunDir(folder), work, print)
    assert answered == [25, 5, 0]


def test_who_asks_nobody_follows_nobody(tmp_path):
    with pytest.raises(ConfigError, match="oracle simulated asks nobody"):
        madbal_ray.run(tiny_config(), run_dir=tmp_path / "run", engine="local", follow=True)


@pytest.mark.kill
@pytest.mark.timeout(900)
def test_a_follower_that_is_killed_carries_on(pictures, tmp_path):
    root, masks, names = pictures
    config, folder = tmp_path / "people.json", tmp_path / "run"
    config.write_text(json.dumps(people_config(root)))
    command = [sys.executable, "-m", "madbal_ray", "run", str(config), "--engine", "local",
               "--run-dir", str(folder), "--follow"]  # fmt: skip
    for index in range(2):
        process = subprocess.Popen(command)
        waits_for(folder, index)
        answer_waiting(folder, masks, names, most=20)
        process.kill()
        process.wait()
        if index == 0:
            process = subprocess.Popen(command)
            answer_waiting(folder, masks, names)
            waits_for(folder, 1)
            process.kill()
            process.wait()
    answer_waiting(folder, masks, names)
    assert subprocess.run(command, check=False).returncode == 0
    labels = madbal_ray.open_run(folder).table("labels").to_pandas()
    assert labels.groupby("round").size().tolist() == [30, 30]


class Said:
    """A view that keeps what it is told."""

    def __init__(self, lines):
        self.say = lines.append

    def start_stage(self, title, total): ...
    def advance(self, images): ...
    def on_training(self, progress): ...
    def end_stage(self, seconds): ...
