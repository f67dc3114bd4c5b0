"""A node that trains is taken away and comes back minutes later; the run waits and goes on."""

import json
import subprocess
import sys
import time

import pytest

import madbal_ray
from madbal_ray.loop.verify import verify_run
from madbal_ray.state.run_dir import RunDir
from tests.conftest import tiny_config
from tests.resume.test_nodes import DEADLINE, TRAINING, undisturbed, wait_for_node

AWAY = 180.0
"""Seconds; Ray's own limit, 60 s and one more try, would be over."""


@pytest.mark.kill
@pytest.mark.timeout(4 * DEADLINE)
def test_training_waits_for_a_node_to_come_back(tmp_path):
    from ray.cluster_utils import Cluster

    config = tiny_config(
        data__synthetic={"num_train": 12, "num_val": 3, "height": 96, "width": 128},
        train__num_workers=2,
        train__phase1={"epochs": 12, "batch_size": 4},
        train__phase2={"epochs": 1, "batch_size": 4},
        score={"batch_size": 2, "threads_per_worker": 1},
        resources={"checkpoint_seconds": 0},
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    where = tmp_path / "runs" / "run"
    # One CPU a node and none on the head: two workers need both nodes.
    options = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 128 * 2**20}
    cluster = Cluster(
        initialize_head=True,
        head_node_args=options | {"num_cpus": 0, "include_dashboard": False},
    )
    for _ in range(2):
        cluster.add_node(**options)
    cluster.wait_for_nodes()
    command = [sys.executable, "-m", "madbal_ray", "run", tmp_path / "config.json"]
    command += ["--run-dir", where, "--address", cluster.address]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    try:

        def epochs():
            events = RunDir(where).events() if (where / "config.json").exists() else []
            return [e for e in events if e["event"] == "epoch"]

        lost = wait_for_node(cluster, process, TRAINING, epochs)
        cluster.remove_node(lost, allow_graceful=False)
        time.sleep(AWAY)
        assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
        cluster.add_node(**options)
        assert process.wait(2 * DEADLINE) == 0, (tmp_path / "log").read_text()[-3000:]
    finally:
        process.kill()
        cluster.shutdown()

    run = madbal_ray.open_run(where)
    assert run.num_rounds == 2
    assert any("replayed" in line for line in verify_run(run.run_dir))
    again = undisturbed(tmp_path, config)
    for name in ("superpixel_scores", "cluster_budgets", "queries", "labels"):
        assert again.table(name).equals(run.table(name)), name
