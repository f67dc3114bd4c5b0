"""Waiting for nodes: for one that was taken away, or one that the autoscaler has yet to start."""

from __future__ import annotations

import logging
import os
import time

from ray.autoscaler.sdk import request_resources

from madbal_ray.distributed.session import cluster_resources
from madbal_ray.errors import ResourceError

LOGGER = logging.getLogger("madbal_ray")

POLL_SECONDS = 1.0


def is_joined(address: str | None) -> bool:
    """Tell whether `madbal_ray.distributed.session.connect` joins a cluster, which may grow."""
    return (address or os.environ.get("RAY_ADDRESS") or "local") != "local"


def await_gpus(count: int, *, option: str, seconds: float) -> None:
    """Return when the cluster has so many GPUs, busy ones included; its autoscaler is asked.

    Args:
        option: that asks for them, for messages.
        seconds: to wait; 0: not at all.

    Raises:
        ResourceError: it has fewer in the end.
    """
    _, gpus = cluster_resources()
    if gpus < count and seconds:
        LOGGER.warning(
            "%s = %d: waiting up to %.0f s (resources.node_wait_seconds) for GPUs, the Ray cluster "
            "has %g now",
            *(option, count, seconds, gpus),
        )
        gpus = _wait(count, seconds)
    if gpus < count:
        waited = f" after {seconds:.0f} s" if seconds else ""
        raise ResourceError(
            f"{option} = {count} needs {count} GPUs, the Ray cluster has {gpus:g}{waited}; lower "
            "it, or add GPU nodes"
        )


def _wait(count: int, seconds: float) -> float:
    """Return the GPUs there are when they are enough, or at the end."""
    ends = time.monotonic() + seconds
    request_resources(bundles=[{"GPU": 1}] * count)
    try:
        while True:
            _, gpus = cluster_resources()
            if gpus >= count or time.monotonic() >= ends:
                return gpus
            time.sleep(POLL_SECONDS)
    finally:
        request_resources(bundles=[])  # else they are kept for ever
