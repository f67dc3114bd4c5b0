"""A private Ray is private: nothing of it can be reached from another machine."""

import json
import os
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
