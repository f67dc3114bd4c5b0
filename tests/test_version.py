"""One version: of the package, the newest changes, the images of clusters, a commit's tag."""

import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from madbal_ray import __version__

ROOT = Path(__file__).parents[1]


def test_the_installed_package_takes_it_from_the_source():
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert version("madbal_ray") == __version__


def test_the_newest_changes_are_of_this_version():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    newest, when = headings[0].split(" ", 1)
    assert newest == __version__
    assert re.fullmatch(r"\((unreleased|\d{4}-\d{2}-\d{2})\)", when)


def test_clusters_run_the_image_of_this_version():
    files = [path for path in (ROOT / "cluster").iterdir() if path.is_file()]
    found = {
        (path.name, tag)
        for path in files
        for tag in re.findall(r"madbal_ray:(\d[\w.]*)", path.read_text())
    }
    assert {name for name, _ in found} >= {"Dockerfile", "kuberay-cluster.yaml", "ray-aws.yaml"}
    assert {tag for _, tag in found} == {__version__}


def test_a_tagged_commit_has_the_version_of_its_tag():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-C", str(ROOT), "tag", "--points-at", "HEAD", "--list", "v[0-9]*"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"git cannot say: {found.stderr.strip()}")
    tags = found.stdout.split()
    assert set(tags) <= {f"v{__version__}"}
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert not tags or f"## {__version__} (unreleased)" not in changes
