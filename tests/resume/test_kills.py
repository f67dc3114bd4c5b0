"""A killed run ends with the same tables as an undisturbed one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import madbal_ray
from tests.conftest import frozen_config, tiny_config

TABLES = ("queries", "labels", "cluster_budgets", "superpixel_scores", "metrics")
HERE = Path(__file__).parent
NUM_KILLS = 20


def assert_same_tables(first, second):
    for name in TABLES:
        assert first.table(name).equals(second.table(name)), name


DRILL = (pytest.mark.kill, pytest.mark.timeout(3600))


@pytest.mark.parametrize(
    ("mode", "how", "least"),
    [
        ("fine-tuned", "kill", 90),
        ("frozen", "kill", 100),
        pytest.param("four rounds", "kill", 170, marks=DRILL),
        pytest.param("fine-tuned", "EIO", 90, marks=DRILL),
        pytest.param("frozen", "EIO", 100, marks=DRILL),
        pytest.param("fine-tuned", "ENOSPC", 90, marks=DRILL),
        pytest.param("frozen", "ENOSPC", 100, marks=DRILL),
    ],
)
def test_local_run_survives_a_failure_at_every_write_point(mode, how, least, tmp_path):
    """`make test-kill` has all of it, `make test` a kill at every point."""
    scenes = {"num_train": 4, "num_val": 2, "height": 48, "width": 64}
    changes = {
        "data": {"name": "synthetic", "synthetic": scenes},
        "resources": {"checkpoint_seconds": 0},
    }
    if mode == "frozen":
        config = frozen_config(**changes)
    elif mode == "four rounds":
        config = frozen_config(num_rounds=4, **changes)
    else:
        config = tiny_config(
            train__init="frozen_head",
            train__frozen_head__epochs=2,
            train__phase1__epochs=2,
            train__phase2__epochs=2,
            **changes,
        )
    folder = tmp_path / "killed" / "run"
    process = subprocess.run(
        [sys.executable, HERE / "kill_points.py", json.dumps(config), folder, how],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(HERE.parents[1])},
    )
    assert process.returncode == 0, process.stderr[-2000:]
    outcome = json.loads(process.stdout.splitlines()[-1])
    print(f"{mode}: {outcome['failures']} x {how}")
    assert outcome["exit"] == 0, process.stderr[-2000:]
    assert outcome["failures"] >= least
    undisturbed = madbal_ray.run(config, run_dir=tmp_path / "calm" / "run", engine="local")
    killed = madbal_ray.open_run(tmp_path / "killed" / "run")
    assert_same_tables(killed, undisturbed)
    weights = [
        run.run_dir.find("phase2", config["num_rounds"] - 1).folder.read("phase2.safetensors")
        for run in (killed, undisturbed)
    ]
    assert weights[0] == weights[1]  # training resumed from its checkpoints, bit for bit


def start(config_path, run_dir):
    """Start `madbal run` on Ray in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "madbal_ray", "run", config_path, "--run-dir", run_dir],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def kill_group(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for_event(run_dir, wanted, process, timeout=240):
    """Wait until an event with these values was noted."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"ended early: {process.stderr.read().decode()[-2000:]}")
        path = run_dir / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            if all(event.get(key) == value for key, value in wanted.items()):
                return
        time.sleep(0.1)
    raise AssertionError(f"no event {wanted} within {timeout} s")


@pytest.mark.ray
def test_ray_run_survives_a_kill_while_it_scores(tmp_path, tiny_run):
    config_path, run_dir = tmp_path / "config.json", tmp_path / "run"
    config_path.write_text(json.dumps(tiny_config()))
    process = start(config_path, run_dir)
    wait_for_event(run_dir, {"event": "stage_started", "round": 1, "stage": "score"}, process)
    time.sleep(2.0)
    kill_group(process)
    process = start(config_path, run_dir)
    assert process.wait(timeout=240) == 0, process.stderr.read().decode()[-2000:]
    assert_same_tables(madbal_ray.open_run(run_dir), tiny_run)


@pytest.mark.kill
@pytest.mark.timeout(3600)
def test_ray_run_survives_twenty_kills_at_random_moments(tmp_path):
    """`make test-kill`: about 10 minutes on 2 cores."""
    config = tiny_config(
        num_rounds=3, data__synthetic__num_train=24, train__phase1__epochs=6, pool__shard_images=4
    )
    config["resources"] = {"checkpoint_seconds": 0, "scoring_workers": 2}
    undisturbed = madbal_ray.run(config, run_dir=tmp_path / "calm" / "run", engine="ray")
    config_path, run_dir = tmp_path / "config.json", tmp_path / "killed" / "run"
    config_path.write_text(json.dumps(config))
    dice = random.Random()
    kills = 0
    while True:
        process = start(config_path, run_dir)
        patience = dice.uniform(6.0, 30.0) if kills < NUM_KILLS else 600.0
        try:
            code = process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            kill_group(process)
            kills += 1
            reached = [str(path.parent) for path in run_dir.rglob("_CURRENT.json")]
            print(
                f"kill {kills} after {patience:.1f} s; {len(reached)} stages were done", flush=True
            )
            continue
        assert code == 0, process.stderr.read().decode()[-2000:]
        if kills < NUM_KILLS:
            print(f"finished after {kills} kills; starting over for the rest", flush=True)
            assert_same_tables(madbal_ray.open_run(run_dir), undisturbed)
            run_dir = run_dir.with_name(f"run-{kills}")
            continue
        break
    assert kills == NUM_KILLS
    killed = madbal_ray.open_run(run_dir)
    assert_same_tables(killed, undisturbed)
    subprocess.run([sys.executable, "-m", "madbal_ray", "verify", run_dir], check=True)
