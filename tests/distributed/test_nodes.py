"""What a cluster's file promises is waited for; light actors keep off a head without CPUs."""

import os
import subprocess
import sys

import pytest

from madbal_ray.distributed import nodes, session
from madbal_ray.errors import ResourceError

FILE = """
max_workers: 8
available_node_types:
  head: {resources: {CPU: 0}}
  small: {resources: {CPU: 16, GPU: 1}, min_workers: 0, max_workers: 3}
  large: {resources: {CPU: 64, GPU: 4}, min_workers: 2}
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A cluster of resources that a test sets, with a cluster file; notes what is asked for."""
    (tmp_path / "cluster.yaml").write_text(FILE)
    monkeypatch.setattr(nodes, "CLUSTER_FILE", tmp_path / "cluster.yaml")
    monkeypatch.setattr(nodes, "_is_private", lambda: False)
    monkeypatch.setattr(nodes, "POLL_SECONDS", 0.0)
    asked, looks = [], []
    monkeypatch.setattr(nodes, "request_resources", lambda bundles: asked.append(bundles))

    def has(*later):
        def resources():
            looks.append(1)
            return later[min(len(looks), len(later)) - 1]

        monkeypatch.setattr("ray.cluster_resources", resources)
        return asked

    return has


def test_gpus_are_promised_by_a_clusters_file_alone(cluster, monkeypatch):
    assert nodes.promised_gpus() == 3 * 1 + 8 * 4
    monkeypatch.setattr(nodes, "_is_private", lambda: True)
    assert nodes.promised_gpus() == 0
    monkeypatch.setattr(nodes, "_is_private", lambda: False)
    nodes.CLUSTER_FILE.unlink()
    assert nodes.promised_gpus() == 0


@pytest.mark.parametrize("asked_for", ["auto", "cuda"])
def test_a_promised_gpu_node_is_asked_and_waited_for(cluster, asked_for):
    asked = cluster({"CPU": 4}, {"CPU": 4}, {"CPU": 4}, {"CPU": 20, "GPU": 1})
    assert session.cluster_device(asked_for) == "cuda"
    assert asked == [[{"GPU": 1}], []]


def test_nobody_waits_where_cpus_are_asked_for_or_gpus_are_there(cluster):
    asked = cluster({"CPU": 4})
    assert session.cluster_device("cpu") == "cpu"
    cluster({"CPU": 4, "GPU": 2})
    assert session.cluster_device("auto") == "cuda"
    nodes.CLUSTER_FILE.unlink()
    cluster({"CPU": 4})
    assert session.cluster_device("auto") == "cpu"
    assert asked == []


def test_a_promise_that_is_not_kept_is_a_sentence(cluster, monkeypatch):
    monkeypatch.setattr(nodes, "NODE_SECONDS", 0.01)
    asked = cluster({"CPU": 4})
    with pytest.raises(
        ResourceError,
        match=r"cluster.yaml promises 35 GPUs, the cluster has none yet, and no node with a GPU "
        r"came within 0 s; `ray status` says why",
    ):
        session.cluster_device("auto")
    assert asked[-1] == []


ZERO_CPU_HEAD = """
import ray
from ray.cluster_utils import Cluster
from madbal_ray.distributed.job_actors import JobActor, JobActors
from madbal_ray.distributed.nodes import spread_over_nodes

class Where(JobActor):
    def where(self):
        return ray.get_runtime_context().get_node_id()

options = {"object_store_memory": 80 * 2**20}
cluster = Cluster(
    initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **options}
)
cluster.add_node(num_cpus=1, **options)
cluster.wait_for_nodes()
ray.init(cluster.address, log_to_driver=False)
head = ray.get_runtime_context().get_node_id()
actors = JobActors(3, kind=Where, place=spread_over_nodes())
actors.start()
places = ray.get([actor.where.remote() for actor in actors._starting.values()])
print("on the head:", places.count(head), "of", len(places))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.ray
def test_light_actors_never_start_on_a_head_without_cpus():
    done = subprocess.run(
        [sys.executable, "-c", ZERO_CPU_HEAD],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert "on the head: 0 of 3" in done.stdout, done.stderr[-2000:]
