"""The kit for an offline GPU machine: what is in it, in what parts, and that it works there."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from packaging.markers import default_environment

ROOT = Path(__file__).parents[2]


@pytest.fixture
def kit():
    spec = importlib.util.spec_from_file_location("gpu_kit", ROOT / "cluster" / "gpu_kit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_parts_are_full_but_the_last_and_hold_the_stream(kit, tmp_path):
    parts = kit.Parts(tmp_path, 10)
    for piece in (b"abc", b"defghijklmnopqrstuvw", b"", b"xyz"):
        assert parts.write(piece) == len(piece)
    assert [path.name[-2:] for path in parts.paths] == ["00", "01", "02"]
    assert [path.read_bytes() for path in parts.paths] == [b"abcdefghij", b"klmnopqrst", b"uvwxyz"]


def test_a_list_of_packages_may_be_of_pip_or_of_names(kit, tmp_path):
    listing = tmp_path / "have.txt"
    listing.write_text("# there\nNumpy==2.1\nPy_YAML @ file:///x\nclick, rich,\n")
    assert kit.names_in(listing) == {"numpy", "py-yaml", "click", "rich"}


def test_needs_are_followed_through_extras_and_by_the_target_s_markers(kit):
    environment = {key: str(value) for key, value in default_environment().items()}
    found = kit.needed(["pydantic"], environment)
    assert {"pydantic", "pydantic-core", "typing-extensions"} <= found.keys()
    assert found["pydantic-core"] == kit.importlib.metadata.version("pydantic-core")
    plain, more = (kit.needed([name], environment) for name in ("ray", "ray[train]"))
    assert "tensorboardx" not in plain
    assert "tensorboardx" in more
    assert kit.needed(["no-such-package"], environment) == {"no-such-package": ""}


def test_a_kit_holds_the_commit_data_and_weights(kit, tmp_path, monkeypatch, capsys):
    project, data, out = tmp_path / "project", tmp_path / "camvid", tmp_path / "out"
    project.mkdir()
    data.mkdir()
    (project / "committed.txt").write_text("yes")
    git = ["git", "-C", project, "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    (project / "later.txt").write_text("no")
    (data / "train.txt").write_bytes(os.urandom(2_500_000))
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"w")
    have = tmp_path / "have.txt"
    environment = {key: str(value) for key, value in default_environment().items()}
    wanted = kit.needed(["madbal_ray", "pytest", "pytest-timeout", "hypothesis"], environment)
    have.write_text("\n".join(wanted))
    monkeypatch.setattr(kit, "ROOT", project)
    arguments = ["--out", out, "--data", data, "--weights", weights, "--have", have]
    monkeypatch.setattr(sys, "argv", ["gpu_kit", *map(str, arguments), "--part-mb", "1"])
    kit.main()
    assert "0 wheels: none" in capsys.readouterr().out
    parts = sorted(out.iterdir())
    assert [path.stat().st_size for path in parts[:-1]] == [1_000_000] * 2
    whole = tmp_path / "whole.tar"
    whole.write_bytes(b"".join(path.read_bytes() for path in parts))
    with tarfile.open(whole) as tar:
        files = {member.name for member in tar if member.isfile()}
        read = tar.extractfile("gpu-kit/data/train.txt").read()
    assert files == {
        "gpu-kit/project/committed.txt",
        "gpu-kit/data/train.txt",
        "gpu-kit/weights/w.safetensors",
    }
    assert read == (data / "train.txt").read_bytes()
    with pytest.raises(SystemExit, match="is not empty"):
        kit.main()


def test_there_the_project_runs_from_the_kit_over_the_packages_of_the_machine(tmp_path):
    project = tmp_path / "kit" / "project"
    (project / "cluster").mkdir(parents=True)
    shutil.copy(ROOT / "cluster" / "gpu_run.sh", project / "cluster")
    (project / "madbal_ray").symlink_to(ROOT / "madbal_ray")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PATH": path}
    script = ["bash", project / "cluster" / "gpu_run.sh"]
    wrong = subprocess.run(
        [*script, "all"], env=environment, capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert "unknown step all: tests, bench or protocol" in wrong.stderr
    said = subprocess.run(
        [project / ".venv" / "bin" / "madbal", "presets"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "pixelpick-camvid" in said
    missing = subprocess.run(
        [*script, "protocol"], env=environment, capture_output=True, text=True, check=False
    )
    assert missing.returncode == 1
    assert "the kit holds no data and weights" in missing.stderr
