"""The house holds: import contracts catch what they are for, rooms and files stay small."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "madbal_ray"
LONGEST = 300
LARGEST_SHARE = 0.12
REASON = re.compile(r"Longer than")

BREAKS = {
    "a room imports one above it": (
        "labels/ledger.py",
        "from madbal_ray.loop import round",
        "rooms",
    ),
    "a kernel imports its job": (
        "scoring/candidates.py",
        "from madbal_ray.scoring import job",
        "Inside scoring",
    ),
    "Ray outside distributed": ("studies/suite.py", "import ray", "Only distributed and cli"),
    "torch in selection": ("selection/query.py", "import torch", "work without torch"),
    "a kernel reads folders": (
        "pool/superpixels/color.py",
        "from madbal_ray.state import storage",
        "Kernels are pure",
    ),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_deliberate_break_is_caught(what, tmp_path):
    name, line, contract = BREAKS[what]
    shutil.copytree(PACKAGE, tmp_path / "madbal_ray", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "madbal_ray" / name
    path.write_text(path.read_text().replace("\nimport ", f"\n{line}\nimport ", 1))
    assert line in path.read_text()
    lint = Path(sys.executable).with_name("lint-imports")
    process = subprocess.run(
        [lint, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert process.returncode == 1, process.stdout
    broken = [text for text in process.stdout.splitlines() if " BROKEN" in text]
    assert any(contract in text for text in broken), broken


def lines_of(path):
    return len(path.read_text().splitlines())


def test_no_file_is_long_without_a_reason_at_its_head():
    for path in PACKAGE.rglob("*.py"):
        if lines_of(path) > LONGEST:
            assert REASON.search(path.read_text()[:1500]), f"{path}: {lines_of(path)} lines"


def test_no_room_holds_more_than_its_share():
    sizes = {
        room.name: sum(map(lines_of, room.rglob("*.py")))
        for room in PACKAGE.iterdir()
        if room.is_dir() and room.name != "__pycache__"
    }
    total = sum(map(lines_of, PACKAGE.rglob("*.py")))
    assert max(sizes.values()) <= LARGEST_SHARE * total, sizes


def test_rooms_begin_with_a_docstring_and_nothing_else():
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent not in (PACKAGE, PACKAGE / "cli"):
            assert re.fullmatch(r'""".*?"""\n', path.read_text(), flags=re.DOTALL), path
