"""The wheel: it holds what a run needs, and runs outside the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a folder with what the wheel holds, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--quiet",
            "--no-build-isolation",
            "--disable-pip-version-check", "--wheel-dir", str(folder),
        ],
        check=True,
    )  # fmt: skip
    (wheel,) = folder.glob("madbal_ray-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed, cwd, *arguments):
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def test_it_holds_every_file_of_the_package(installed):
    def files(root, pattern="*"):
        return {
            path.relative_to(root).as_posix()
            for path in root.rglob(pattern)
            if path.is_file() and "__pycache__" not in path.parts
        }

    # What can be run, not what was found: the log and the results stay in the checkout.
    assert files(installed / "madbal_ray") == files(ROOT / "madbal_ray") | {
        f"presets/{name}" for name in files(ROOT / "experiments", "*.yaml")
    }


def test_the_demo_runs_from_it_outside_the_checkout(installed, tmp_path):
    where = run(installed, tmp_path, "-c", "import madbal_ray; print(madbal_ray.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    out = run(
        installed, tmp_path, "-m", "madbal_ray", "run", "quickstart", "--engine", "local",
        "--set", "data.synthetic.num_train=8", "--set", "data.synthetic.num_val=4",
    )  # fmt: skip
    assert "runs/quickstart/report/index.html, " in out
    assert (tmp_path / "runs/quickstart/report/index.html").stat().st_size > 100_000
    listed = run(installed, tmp_path, "-m", "madbal_ray", "presets")
    assert "suites/paper-camvid " in listed
