"""Three Ray nodes on one machine, a head without CPUs or GPUs among them; nodes vanish without
grace, one read or write in twenty fails, and the run ends by itself.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import madbal_ray
from madbal_ray.loop.verify import verify_run
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.storage import Folder
from tests.conftest import tiny_config

TRAINING, SCORING = "RayTrainWorker", "HeavyActor"
DEADLINE = 900


FAULTS = """
import errno, os, random
from pathlib import Path
from madbal_ray.state.storage import Folder

draw, noted = random.Random(os.getpid()), Path(__file__).with_name("noted")

def flaky(method):
    def act(self, *given):
        if noted.exists() and draw.random() < 0.05:
            with open(noted, "a") as sink:
                sink.write("+")
            raise OSError(errno.EIO, "Input/output error")
        return method(self, *given)
    return act

for name in ("_read", "_write", "open"):
    setattr(Folder, name, flaky(getattr(Folder, name)))
"""
"""A plug-in: every process of the run, driver and workers, has a disk that fails in passing."""


def node_of(cluster, worker_name):
    """The node, not the head, that has a worker of this name; None while there is none."""
    for node in cluster.list_all_nodes():
        if node is cluster.head_node:
            continue
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        for child in raylet.children(recursive=True):
            try:
                title = " ".join(child.cmdline())
            except psutil.Error:
                continue
            if worker_name in title and "IDLE" not in title:
                return node
    return None


def wait_for_node(cluster, process, worker_name, is_time):
    ends = time.monotonic() + DEADLINE
    while time.monotonic() < ends:
        if process.poll() is not None:
            said = (Path(process.args[-3]).parents[1] / "log").read_text()[-3000:]
            raise AssertionError(f"the run ended before a node with {worker_name} was lost\n{said}")
        node = node_of(cluster, worker_name) if is_time() else None
        if node is not None:
            return node
        time.sleep(0.1)
    raise AssertionError(f"no node ran {worker_name}")


@pytest.mark.kill
@pytest.mark.timeout(2 * DEADLINE)
def test_a_run_survives_the_loss_of_two_nodes_and_a_flaky_store(tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    (tmp_path / "faults.py").write_text(FAULTS)
    faults = tmp_path / "noted"  # while it is there
    faults.touch()
    config = tiny_config(
        plugins=["faults"],
        data__synthetic={"num_train": 24, "num_val": 3, "height": 96, "width": 128},
        train__num_workers=2,
        train__phase1={"epochs": 12, "batch_size": 4},
        train__phase2={"epochs": 4, "batch_size": 4},
        score={"batch_size": 2},
        resources={"scoring_workers": 3, "checkpoint_seconds": 0},
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    where = tmp_path / "runs" / "run"
    node_options = {"num_cpus": 2, "num_gpus": 0, "object_store_memory": 128 * 2**20}
    cluster = Cluster(
        initialize_head=True,
        head_node_args=node_options | {"num_cpus": 0, "include_dashboard": False},
    )
    try:
        for _ in range(2):
            cluster.add_node(**node_options)
        cluster.wait_for_nodes()
        command = [sys.executable, "-m", "madbal_ray", "run", tmp_path / "config.json"]
        command += ["--run-dir", where, "--address", cluster.address]
        with open(tmp_path / "log", "w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)

        def events():
            return RunDir(where).events() if (where / "config.json").exists() else []

        def trains():
            return any(e["event"] == "epoch" for e in events())

        def scores():
            last = [e for e in events() if e["event"] in ("stage_started", "stage_finished")]
            return (
                bool(last) and last[-1]["event"] == "stage_started" and last[-1]["stage"] == "score"
            )

        lost = wait_for_node(cluster, process, TRAINING, trains)
        cluster.remove_node(lost, allow_graceful=False)
        cluster.add_node(**node_options)
        lost = wait_for_node(cluster, process, SCORING, scores)
        cluster.remove_node(lost, allow_graceful=False)
        assert process.wait(DEADLINE) == 0, (tmp_path / "log").read_text()[-3000:]
    finally:
        cluster.shutdown()

    num_faults = faults.stat().st_size
    faults.unlink()
    for name in ("_read", "_write", "open"):  # the plug-in stays in this test
        monkeypatch.setattr(Folder, name, getattr(Folder, name))
    monkeypatch.syspath_prepend(str(tmp_path))
    run = madbal_ray.open_run(where)
    assert run.num_rounds == 2
    told = [e["notices"]["tried again"][0] for e in run.run_dir.events() if "notices" in e]
    assert 0 < sum(told) <= num_faults
    assert any("replayed" in line for line in verify_run(run.run_dir))  # ledger and selection
    again = undisturbed(tmp_path, config)
    for name in ("superpixel_scores", "cluster_budgets", "queries", "labels"):
        assert again.table(name).equals(run.table(name)), name


def undisturbed(folder: Path, config):
    """Score and ask anew with the same checkpoints, in one process."""
    shutil.copytree(folder / "runs", folder / "again")
    for stage in ("score", "allocate", "select", "labels"):
        shutil.rmtree(folder / "again" / "run" / "rounds" / "001" / stage)
    return madbal_ray.run(config, run_dir=folder / "again" / "run", engine="local")
