"""The files under cluster/ against what their readers say of themselves; shellcheck."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import botocore.session
import botocore.validate
import kubernetes_validate
import pytest
import ray
import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
LAUNCHERS = sorted(CLUSTER.glob("ray-*.yaml"))
KUBERAY = sorted(CLUSTER.glob("kuberay-*.yaml"))
SHELL = [*sorted(CLUSTER.glob("*.sh")), ROOT / ".ci" / "run"]

CLUSTER_FIELDS = {
    "rayVersion",
    "authOptions",
    "enableInTreeAutoscaling",
    "headGroupSpec",
    "workerGroupSpecs",
}
"""Of KubeRay's API reference, as far as we use them: its schema comes in no package."""
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
        kubernetes_validate.validate(
            {
                "apiVersion": "v1",
                "kind": "PodTemplate",
                "metadata": {"name": "one"},
                "template": group["template"],
            },
            kubernetes_validate.latest_version(),
            strict=True,
        )
        assert pod["serviceAccountName"] == "madbal"
        needs_gpu = any("nvidia.com/gpu" in c["resources"]["limits"] for c in pod["containers"])
        tolerated = {taint["key"] for taint in pod.get("tolerations", ())}
        assert ("nvidia.com/gpu" in tolerated) == needs_gpu == (group is not head)
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert set(mounts.values()) <= volumes
            assert {"/shared", "/dev/shm"} <= set(mounts)
        if group is not head:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
            if group["minReplicas"] < group["maxReplicas"]:
                assert spec["enableInTreeAutoscaling"] is True


def node_configs(name):
    return {
        kind: node["node_config"]
        for kind, node in yaml.safe_load((CLUSTER / name).read_text())[
            "available_node_types"
        ].items()
    }


def refusals(service, operation, parameters):
    """What AWS' own model of a call has against its parameters."""
    model = botocore.session.get_session().get_service_model(service).operation_model(operation)
    return botocore.validate.ParamValidator().validate(parameters, model.input_shape)


def test_aws_nodes_are_instances_that_ec2_knows():
    configs = node_configs("ray-aws.yaml")
    assert set(configs) == {"head", "gpu_worker"}
    for config in configs.values():
        found = refusals("ec2", "RunInstances", config | {"MinCount": 1, "MaxCount": 1})
        assert not found.has_errors(), found.generate_report()
        assert config["ImageId"].startswith("ami-")
        assert config["IamInstanceProfile"]["Name"]
    assert configs["head"]["IamInstanceProfile"] != configs["gpu_worker"]["IamInstanceProfile"]


def test_rules_for_unfinished_uploads_are_those_that_stores_know():
    rules = json.loads((CLUSTER / "s3-lifecycle.json").read_text())
    found = refusals(
        "s3",
        "PutBucketLifecycleConfiguration",
        {"Bucket": "my-bucket", "LifecycleConfiguration": rules},
    )
    assert not found.has_errors(), found.generate_report()
    assert rules["Rules"][0]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 2}
    rules = json.loads((CLUSTER / "gcs-lifecycle.json").read_text())
    check_google("storage.v1", "Bucket", {"lifecycle": rules})
    assert rules["rule"][0]["action"]["type"] == "AbortIncompleteMultipartUpload"


def check_google(api, schema, value):
    """See that a value is one of Google's own description of an API, field by field."""
    spec = importlib.util.find_spec("googleapiclient")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "discovery_cache" / "documents"
    schemas = json.loads((folder / f"{api}.json").read_text())["schemas"]
    _check(value, {"$ref": schema}, schemas, schema)


KINDS = {"string": str, "boolean": bool, "integer": (int, str), "array": list, "object": dict}


def _check(value, described, schemas, where):
    described = schemas[described["$ref"]] if "$ref" in described else described
    kind = described["type"]
    if kind == "string" and described.get("format") in ("int64", "uint64"):
        kind = "integer"
    assert isinstance(value, KINDS[kind]), f"{where}: {value!r} is no {kind}"
    if "enum" in described:
        assert value in described["enum"], f"{where}: {value!r}"
    if kind == "array":
        for number, one in enumerate(value):
            _check(one, described["items"], schemas, f"{where}[{number}]")
    elif kind == "object":
        for name, one in value.items():
            assert name in described["properties"], f"{where}.{name} does not exist"
            _check(one, described["properties"][name], schemas, f"{where}.{name}")


def test_google_nodes_are_instances_that_compute_engine_knows():
    configs = node_configs("ray-gcp.yaml")
    for config in configs.values():
        check_google("compute.v1", "Instance", config)
        image = config["disks"][0]["initializeParams"]["sourceImage"]
        driver = re.search(r"nvidia-(\d+)$", image)
        assert driver is not None
        assert int(driver[1]) >= 580  # CUDA 13
    account = configs["gpu_worker"]["serviceAccounts"][0]
    assert account["scopes"] == ["https://www.googleapis.com/auth/cloud-platform"]


def test_the_check_of_google_fields_finds_what_is_wrong():
    for wrong in (
        {"machine": "n2"},
        {"scheduling": [{"preemptible": True}]},
        {"disks": [{"boot": 1}]},
    ):
        with pytest.raises(AssertionError):
            check_google("compute.v1", "Instance", wrong)


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
