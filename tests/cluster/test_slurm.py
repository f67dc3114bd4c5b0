"""cluster/slurm.sh on a real SLURM of two nodes on this machine: `make test-slurm`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

import madbal_ray
from tests.cluster import slurm
from tests.conftest import tiny_config

ROOT = Path(__file__).parents[2]
DEADLINE = 900


@pytest.fixture(scope="module")
def environment():
    """SLURM's environment; the folder's path is short, as those of sockets must be."""
    if slurm.lacks():
        pytest.fail(f"{slurm.lacks()} are not installed: apt-get install slurm-wlm munge")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        with slurm.cluster(folder) as environment:
            home = folder / "home"
            home.mkdir()
            # as a user's shell has it: without what the tests tell Ray
            kept = {name: value for name, value in environment.items() if name[:4] != "RAY_"}
            yield kept | {
                "HOME": str(home),
                "MADBAL_VENV": sys.prefix,
                "PYTHONPATH": str(ROOT),
            }
    finally:
        shutil.rmtree(folder)


def raylets_of(job):
    """The raylets that a job's steps started."""
    found = []
    for process in psutil.process_iter(["name"]):
        try:
            if process.info["name"] == "raylet" and process.environ().get("SLURM_JOB_ID") == job:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slurm
@pytest.mark.timeout(2 * DEADLINE)
def test_a_run_over_two_nodes_and_the_same_line_again(environment, tmp_path):
    cpus = os.cpu_count()
    config, where, log = tmp_path / "config.json", tmp_path / "run", tmp_path / "log"
    config.write_text(json.dumps(tiny_config(resources={"scoring_workers": 2})))
    submit = ["sbatch", "--parsable", "--output", str(log), f"--cpus-per-task={cpus}", "--mem=2000"]
    submit += ["cluster/slurm.sh", str(config), str(where)]

    def send():
        done = subprocess.run(
            submit, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def state_of(job):
        text = subprocess.run(
            ["scontrol", "show", "job", job],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return text.split("JobState=")[1].split()[0]

    def wait(job):
        affinities = {}
        ends = time.monotonic() + DEADLINE
        while time.monotonic() < ends:
            for raylet in raylets_of(job):
                try:
                    affinities[raylet.pid] = len(raylet.cpu_affinity())
                except psutil.Error:
                    continue
            if state_of(job) not in ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING"):
                return affinities
            time.sleep(0.5)
        raise AssertionError(f"job {job} is {state_of(job)} after {DEADLINE} s")

    job = send()
    affinities = wait(job)
    text = log.read_text()
    assert state_of(job) == "COMPLETED", text[-3000:]
    assert madbal_ray.open_run(where).num_rounds == 2
    assert list(affinities.values()) == [cpus, cpus]  # two nodes, no raylet pinned to one processor
    assert (Path(environment["HOME"]) / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    assert not raylets_of(job)

    again = send()  # finished: says so, and changes nothing
    wait(again)
    assert state_of(again) == "COMPLETED", log.read_text()[-3000:]
