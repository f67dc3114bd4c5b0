"""The files under cluster/: Ray's own schema, the fields of KubeRay's objects, shellcheck."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import ray
import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
LAUNCHERS = sorted(CLUSTER.glob("ray-*.yaml"))
KUBERAY = sorted(CLUSTER.glob("kuberay-*.yaml"))
SHELL = [*sorted(CLUSTER.glob("*.sh")), ROOT / ".ci" / "run"]

POD_FIELDS = {"containers", "volumes"}
CONTAINER_FIELDS = {"name", "image", "resources", "volumeMounts"}
CLUSTER_FIELDS = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
GROUP_FIELDS = {"rayStartParams", "template"}
WORKER_FIELDS = GROUP_FIELDS | {"groupName", "replicas", "minReplicas", "maxReplicas"}
JOB_FIELDS = {
    "entrypoint",
    "backoffLimit",
    "preRunningDeadlineSeconds",
    "shutdownAfterJobFinishes",
    "ttlSecondsAfterFinished",
    "rayClusterSpec",
}


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.name)
def test_launchers_pass_rays_own_validation(path):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(path.read_text())
    validate_config(prepare_config(config))
    commands = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in commands
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = next(line for line in config[name] if "ray start" in line)
        assert "RAY_AUTH_MODE=token" in start
    assert any(target.endswith("/.ray/auth_token") for target in config["file_mounts"])


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.name)
def test_kuberay_objects_use_fields_that_exist(path):
    found = yaml.safe_load(path.read_text())
    assert found["apiVersion"] == "ray.io/v1"
    spec = found["spec"]
    if found["kind"] == "RayJob":
        assert set(spec) <= JOB_FIELDS
        assert spec["backoffLimit"] == 2
        config = re.search(r"/opt/madbal/(\S+\.yaml)", spec["entrypoint"])
        assert config is not None
        assert (ROOT / config[1]).exists()
        spec = spec["rayClusterSpec"]
    else:
        assert found["kind"] == "RayCluster"
    assert set(spec) <= CLUSTER_FIELDS
    assert spec["rayVersion"] == ray.__version__
    assert spec["authOptions"] == {"mode": "token"}
    head = spec["headGroupSpec"]
    assert set(head) <= GROUP_FIELDS
    assert head["rayStartParams"] == {"num-cpus": "0"}
    for group in [head, *spec["workerGroupSpecs"]]:
        assert set(group) <= WORKER_FIELDS
        pod = group["template"]["spec"]
        assert set(pod) <= POD_FIELDS
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert set(container) <= CONTAINER_FIELDS
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert set(mounts.values()) <= volumes
            assert {"/shared", "/dev/shm"} <= set(mounts)
        if group is not head:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_shell_files_pass_shellcheck(path):
    tool = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([tool, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_versions_are_pinned_and_agree():
    constraints = (ROOT / "constraints.txt").read_text()
    assert f"\nray=={ray.__version__}\n" in constraints
    assert "-c constraints.txt" in (CLUSTER / "Dockerfile").read_text()


def test_every_file_is_explained():
    text = (ROOT / "docs" / "cluster.md").read_text()
    for path in CLUSTER.iterdir():
        assert f"cluster/{path.name}" in text, path.name
