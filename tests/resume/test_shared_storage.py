"""Several nodes, and a folder that only one of them sees: refused in one sentence, nothing done."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import yaml

from tests.conftest import tiny_config, tiny_suite_file

SCRIPT = """
import json, sys
from madbal_ray import api
from madbal_ray.errors import ResourceError

config, suite, space, folder, address = sys.argv[1:]
calls = {
    "run": lambda: api.run(config, run_dir=f"{folder}/run", address=address),
    "suite": lambda: api.run_suite(suite, folder=f"{folder}/suite", address=address),
    "tune": lambda: api.tune(
        config, space=space, num_samples=2, folds=2, out=f"{folder}/tune", address=address,
        say=lambda line: None,
    ),
}
found = {}
for name, call in calls.items():
    try:
        call()
    except ResourceError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


NODE = """
import signal, sys
from ray._private.node import Node
from ray._private.parameter import RayParams

Node(
    RayParams(
        gcs_address=sys.argv[1], redis_address=sys.argv[1], num_cpus=1, num_gpus=0,
        object_store_memory=128 * 2**20, min_worker_port=0, max_worker_port=0,
        include_log_monitor=False, node_manager_port=0, dashboard_agent_listen_port=None,
    ),
    head=False, shutdown_at_exit=True, spawn_reaper=True,
)
signal.pause()
"""
"""A node on loopback, as `ray.cluster_utils` starts one; `ray start` takes another address."""


def can_mount():
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.ray
@pytest.mark.skipif(not can_mount(), reason="needs the right to mount in a namespace of its own")
def test_a_folder_that_a_node_does_not_see_is_refused(tmp_path):
    from ray.cluster_utils import Cluster

    folder = tmp_path / "runs"
    folder.mkdir()
    config, suite, space = (tmp_path / name for name in ("c.json", "suite.yaml", "space.yaml"))
    config.write_text(json.dumps(tiny_config()))
    suite.write_text(yaml.safe_dump(tiny_suite_file()))
    space.write_text("train.phase2.learning_rate: {choice: [0.01]}\n")
    options = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 128 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=options | {"include_dashboard": False})
    mount = f"mount -t tmpfs none {folder} && exec {sys.executable} -c '{NODE}' {cluster.address}"
    with open(tmp_path / "node.log", "w") as log:
        node = subprocess.Popen(
            ["unshare", "-m", "bash", "-ec", mount],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        wait = "import ray, sys, time; ray.init(sys.argv[1], log_to_driver=False)\n"
        wait += "while sum(n['Alive'] for n in ray.nodes()) < 2: time.sleep(0.2)"
        subprocess.run([sys.executable, "-c", wait, cluster.address], check=True, timeout=90)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, config, suite, space, folder, cluster.address],
            capture_output=True, text=True, cwd=tmp_path, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    finally:
        os.killpg(node.pid, signal.SIGTERM)
        node.wait(30)
        cluster.shutdown()
    found = json.loads(done.stdout.splitlines()[-1])
    assert sorted(found) == ["run", "suite", "tune"]
    for message in found.values():
        assert "is not shared: node" in message
        assert "put run and pool on storage that all nodes mount at one path" in message
        assert str(folder) in message
    assert not list(folder.rglob("metrics"))
    assert not list((folder / "run").rglob("_DONE.json"))
