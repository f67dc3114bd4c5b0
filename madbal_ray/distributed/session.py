"""Starting and joining Ray."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray._private import ray_constants
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from madbal_ray.distributed.nodes import wait_for_promised_gpu
from madbal_ray.errors import ResourceError
from madbal_ray.state.storage import Folder

DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # 0 GPUs must not hide a GPU from torch
}
"""Ray's own settings where a user has not set them."""

LOOPBACK_SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

QUIET_LOGGERS = ("ray.data", "ray.train", "ray.tune", "ray._private")
SOURCES = Path(__file__).parents[1]
TOKEN_FILE = Path.home() / ".ray" / "auth_token"


def quiet_ray() -> None:
    """Set `DEFAULTS` and keep Ray's log lines out of our progress view."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)


def connect(address: str | None) -> bool:
    """Join a cluster, or start a private one on this machine.

    Args:
        address: of a cluster; None: $RAY_ADDRESS where it is set, else a private one.

    Returns:
        Whether this call started or joined it (and `ray.shutdown` is ours to call).

    Raises:
        ResourceError: no cluster answers at the address.
    """
    if ray.is_initialized():
        return False
    quiet_ray()
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    if target == "local":  # lost actors are told on the C++ "error" level, and by us
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    options: dict[str, Any] = {"include_dashboard": False} if target == "local" else {}
    try:
        with _quiet_stderr(), _on_loopback() if target == "local" else nullcontext():
            ray.init(address=target, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ResourceError(
            f"no Ray cluster answers at {target}: {error}; start one with `ray start --head`, or "
            "leave --address out for a private local one"
        ) from None
    if TOKEN_FILE.exists() and TOKEN_FILE.stat().st_uid == os.getuid():
        TOKEN_FILE.chmod(0o600)  # a local ray.init() writes it readable by everyone
    try:
        check_code()
    except ResourceError:
        ray.shutdown()
        raise
    return True


def check_code() -> None:
    """See that every node of a cluster runs the code that this process runs.

    Raises:
        ResourceError: some node has another madbal_ray, or none; it is named.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    here = code_digest()
    asked = {node["NodeID"]: _on_node(code_digest, node["NodeID"]).remote() for node in nodes}
    others = set()
    for node in nodes:
        try:
            found = ray.get(asked[node["NodeID"]])
        except ray.exceptions.RayTaskError as error:  # the package is missing there, or older
            found = str(error.cause)
        if found != here:
            others.add(f"{node['NodeManagerAddress']} ({found[:40]})")
    if others:
        raise ResourceError(
            f"other code than here ({here}) runs on node {', '.join(sorted(others))}: results "
            "would mix two versions; install the same madbal_ray on all nodes, or start the run on "
            "one of them from the same image"
        )


def code_digest() -> str:
    """Return the version of madbal_ray and the first digits of a hash of its source files."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*.py")):
        digest.update(f"{path.relative_to(SOURCES)}\0".encode())
        digest.update(path.read_bytes())
    try:
        release = version("madbal_ray")
    except PackageNotFoundError:  # a source tree on the path
        release = "sources"
    return f"{release} {digest.hexdigest()[:12]}"


def _on_node(function: Callable[..., Any], node_id: str) -> Any:
    """Return a function as a Ray task that runs on one node and asks for no CPU."""
    affinity = NodeAffinitySchedulingStrategy(node_id, soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": affinity}
    return ray.remote(**options)(function)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have the Ray that starts inside listen on 127.0.0.1 alone, metrics and all.

    It is the switch that Ray throws on macOS and Windows: the environment is for the processes
    that Ray starts, the constant for this one, which has imported Ray already.
    """
    before = os.environ.get(LOOPBACK_SWITCH), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[LOOPBACK_SWITCH], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        os.environ.pop(LOOPBACK_SWITCH)
        if before[0] is not None:
            os.environ[LOOPBACK_SWITCH] = before[0]
        ray_constants.ENABLE_RAY_CLUSTER = before[1]


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Drop what Ray's C++ core prints while it starts; failures come as exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


def cluster_resources() -> tuple[float, float]:
    """Return the CPUs and GPUs of the whole cluster."""
    resources = ray.cluster_resources()
    return resources.get("CPU", 0.0), resources.get("GPU", 0.0)


def largest_node() -> float:
    """Return the most CPUs that one node has: nothing that reserves more ever starts."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return max(resources.get("CPU", 0.0) for resources in nodes)


def cluster_device(asked: str) -> str:
    """Return ``cpu`` or ``cuda`` for the cluster's workers.

    GPU nodes that the cluster file promises are waited for, unless ``cpu`` is asked for.

    Raises:
        ResourceError: a GPU is asked for or promised, and the cluster has none.
    """
    cpus, gpus = cluster_resources()
    if asked != "cpu" and not gpus and wait_for_promised_gpu():
        return "cuda"
    if asked == "cuda" and not gpus:
        raise ResourceError(
            f"resources.device = cuda, but the Ray cluster has no GPU (it has {cpus:g} CPUs); add "
            "GPU nodes, or set resources.device=auto or cpu"
        )
    if asked == "auto":
        return "cuda" if gpus else "cpu"
    return asked


def check_shared(folder: Folder) -> None:
    """See that every node of a cluster reads what this one writes.

    Raises:
        ResourceError: the folder is on a disk of its own on some node; it is named.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if not folder.is_local or len(nodes) < 2:
        return
    name = f"_shared-{secrets.token_hex(6)}"
    folder.write(name, b"")
    try:
        looks = [_on_node(_sees, node["NodeID"]).remote(folder, name) for node in nodes]
        seen = zip(nodes, ray.get(looks), strict=True)
        blind = {node["NodeManagerAddress"] for node, sees in seen if not sees}
    finally:
        folder.delete(name)
    if blind:
        raise ResourceError(
            f"{folder} is not shared: node {', '.join(sorted(blind))} does not see what this one "
            "writes; put run and pool on storage that all nodes mount at one path, or on s3://, gs://"
        )


def _sees(folder: Folder, name: str) -> bool:
    return folder.exists(name)
