"""Which library runs K-means."""

from __future__ import annotations

from importlib.util import find_spec

from madbal_ray.errors import PoolError, ResourceError

INSTALL_CUML = "pip install 'madbal_ray[gpu]'"


def choose_backend(asked: str, device: str) -> tuple[str, str]:
    """Return ``sklearn`` or ``cuml``, and why, for a log line.

    Looks only whether cuML is installed, and does not import it: that takes seconds and the
    process that decides need not be the one with the GPU.

    Args:
        asked: ``auto``, ``sklearn`` or ``cuml``.
        device: ``cpu`` or ``cuda``, what workers compute on.

    Raises:
        ResourceError: cuML is asked for and cannot run here.
    """
    if asked == "sklearn":
        return "sklearn", "as configured"
    is_installed = find_spec("cuml") is not None
    if asked == "auto":
        if device != "cuda":
            return "sklearn", "auto: no CUDA device in use"
        if not is_installed:
            return "sklearn", f"auto: cuML is not installed ({INSTALL_CUML})"
        return "cuml", "auto: a CUDA device and cuML are there"
    if device != "cuda":
        raise ResourceError(
            "clustering.backend = cuml needs a CUDA device, and this run uses cpu; run it where "
            "a GPU is (resources.device=auto or cuda), or set clustering.backend=sklearn"
        )
    if not is_installed:
        raise ResourceError(
            f"clustering.backend = cuml, but cuML is not installed here; {INSTALL_CUML} here and "
            "on every node with a GPU, or set clustering.backend=sklearn"
        )
    return "cuml", "as configured"


def check_rows(num_rows: int, num_clusters: int) -> None:
    """Refuse to form more clusters than there are superpixels.

    Raises:
        PoolError: fewer superpixels than clusters.
    """
    if num_rows < num_clusters:
        raise PoolError(
            f"{num_rows} superpixels cannot form clustering.num_clusters = {num_clusters} "
            "clusters; lower it, lower superpixels.pixels, or add images"
        )
