"""A private Ray is private: nothing of it can be reached from another machine."""

import json
import os
import re
import subprocess
import sys

import pytest

SCRIPT = """
import json, os
import psutil, ray
from madbal_ray.distributed.session import connect

connect("local")
family = psutil.Process().children(recursive=True)
pids = {os.getpid(), *(child.pid for child in family)}
ports = [
    c.laddr.ip for c in psutil.net_connections("inet") if c.status == "LISTEN" and c.pid in pids
]
print(json.dumps({"node": ray.nodes()[0]["NodeManagerAddress"], "listen": sorted(set(ports))}))
ray.shutdown()
"""


@pytest.mark.ray
def test_a_private_ray_listens_on_loopback_alone():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_ENABLE_WINDOWS")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["node"] == "127.0.0.1"
    assert found["listen"]
    for address in found["listen"]:
        assert address.removeprefix("::ffff:") == "127.0.0.1"


OTHER_CODE = """
import sys
import ray
from ray.cluster_utils import Cluster
from madbal_ray.distributed import session
from madbal_ray.errors import ResourceError

cluster = Cluster(
    initialize_head=True,
    head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20},
)
cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
cluster.wait_for_nodes()
try:
    session.connect(cluster.address)
    ray.shutdown()
    session.SOURCES = session.SOURCES / "labels"  # here, not on the nodes
    try:
        session.connect(cluster.address)
    except ResourceError as error:
        print(error)
    print("connected:", ray.is_initialized())
finally:
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.ray
def test_a_cluster_that_runs_other_code_is_refused():
    done = subprocess.run(
        [sys.executable, "-c", OTHER_CODE], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    refusal, connected = done.stdout.strip().splitlines()[-2:]
    found = re.match(r"other code than here \((.+?)\) runs on node 127.0.0.1 \((.+?)\): ", refusal)
    assert found is not None
    assert found[1] != found[2]
    assert connected == "connected: False"


def test_every_source_file_counts_as_code(tmp_path, monkeypatch):
    from madbal_ray.distributed import session

    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "one.py").write_text("x = 1\n")
    monkeypatch.setattr(session, "SOURCES", tmp_path)
    first = session.code_digest()
    (tmp_path / "inner" / "one.py").write_text("x = 2\n")
    second = session.code_digest()
    (tmp_path / "inner" / "one.py").rename(tmp_path / "inner" / "two.py")
    assert len({first, second, session.code_digest()}) == 3
