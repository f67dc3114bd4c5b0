"""Versions of what computes results; written beside every run, never hashed."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "madbal_ray",
    "ray",
    "torch",
    "torchvision",
    "numpy",
    "pyarrow",
    "scikit-learn",
    "opencv-contrib-python-headless",
    "cuml-cu13",
)


def package_versions() -> dict[str, str]:
    """Return package -> version of those that are installed, and Python's."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
