"""What computes results, and the command that asked for it; beside every run, never hashed."""

from __future__ import annotations

import platform
import re
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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


def command_line(arguments: Sequence[str] | None = None) -> str:
    """Return the command that this process was started by; empty where it is not ours.

    Args:
        arguments: None: the process's.

    >>> command_line(["/bin/madbal", "run", "my file.yaml", "--set", "a=https://me:key@host/x"])
    "madbal run 'my file.yaml' --set a=https://…@host/x"
    >>> command_line(["/usr/bin/pytest", "tests"])
    ''
    """
    program, *rest = sys.argv if arguments is None else arguments
    path = Path(program)
    if path.name != "madbal" and (path.parent.name, path.name) != ("madbal_ray", "__main__.py"):
        return ""
    # A password in an address is nobody's business.
    safe = [re.sub(r"//[^/@\s]+@", "//…@", argument) for argument in rest]
    return " ".join(
        ["madbal", *(a if re.fullmatch(r"[\w…@%+=:,./-]+", a) else shlex.quote(a) for a in safe)]
    )
