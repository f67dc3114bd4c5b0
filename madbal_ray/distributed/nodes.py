"""What a cluster has and is promised, and where on it actors start."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray._private import worker
from ray.autoscaler.sdk import request_resources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from madbal_ray.config.documents import read_yaml
from madbal_ray.errors import ResourceError

CLUSTER_FILE = Path.home() / "ray_bootstrap_config.yaml"
"""What `ray up` leaves on the head of the file that it was given."""

NODE_SECONDS = 900.0
"""How long a node that is to come is waited for."""

POLL_SECONDS = 1.0

LOGGER = logging.getLogger("madbal_ray")


def promised_gpus() -> float:
    """Return the GPUs of the nodes that the cluster file of `ray up` lets Ray start.

    The file lies on the head, where the driver runs as a rule. Where there is none, or where this
    process started a Ray of its own, nothing is promised.
    """
    if not CLUSTER_FILE.is_file() or _is_private():
        return 0.0
    file = read_yaml(CLUSTER_FILE, "the cluster file of `ray up`")
    return float(
        sum(
            kind.get("resources", {}).get("GPU", 0)
            * kind.get("max_workers", file.get("max_workers", 0))
            for kind in file.get("available_node_types", {}).values()
        )
    )


def _is_private() -> bool:
    """Tell whether `ray.init` of this process started the cluster."""
    node = worker._global_node
    return node is not None and node.is_head()


def wait_for_promised_gpu() -> bool:
    """Wait for a node with a GPU, where one is promised; tell whether one is.

    Raises:
        ResourceError: none came.
    """
    promised = promised_gpus()
    if promised:
        wait_for_node("GPU", f"{CLUSTER_FILE} promises {promised:g} GPUs, the cluster has none yet")
    return promised > 0


def wait_for_node(resource: str, reason: str) -> None:
    """Wait until some node has a resource (``CPU``, ``GPU``); ask Ray's autoscaler for one.

    Args:
        reason: what is missing, for messages.

    Raises:
        ResourceError: none came.
    """
    if ray.cluster_resources().get(resource):
        return
    LOGGER.warning("%s: waiting for it, up to %.0f s", reason, NODE_SECONDS)
    request_resources(bundles=[{resource: 1}])
    ends = time.monotonic() + NODE_SECONDS
    try:
        while time.monotonic() < ends:
            time.sleep(POLL_SECONDS)
            if ray.cluster_resources().get(resource):
                return
    finally:
        request_resources(bundles=[])  # else the node would stay for ever
    raise ResourceError(
        f"{reason}, and no node with a {resource} came within {NODE_SECONDS:.0f} s; `ray status` "
        "says why; start the same command again when one is there, or set resources.device=cpu to "
        "do without GPUs"
    )


def spread_over_nodes() -> Callable[[], dict[str, Any]]:
    """Return what places one actor after another on the nodes that have CPUs for work.

    An actor that reserves nothing may else start on a head without CPUs, which has other things
    to do; and what it reserved instead would be missing for training.
    """
    turn = itertools.count()

    def place() -> dict[str, Any]:
        nodes: list[Any] = []
        while not nodes:
            wait_for_node("CPU", "the cluster has no CPUs for work")
            alive = [node for node in ray.nodes() if node["Alive"]]
            nodes = [node["NodeID"] for node in alive if node["Resources"].get("CPU")]
        strategy = NodeAffinitySchedulingStrategy(nodes[next(turn) % len(nodes)], soft=False)
        return {"scheduling_strategy": strategy}

    return place
