"""Foreign bytes pass one door: nothing else in the package hands a user's file to a decoder."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "madbal_ray"

DOORS = {
    # what may open foreign bytes -> the files that may use it
    "PIL.Image.open": {"vision/decode.py"},
    "cv2.imdecode": {"vision/decode.py"},
    "cv2.imread": set(),
    "cv2.imreadmulti": set(),
    "skimage.io": set(),
    "imageio": set(),
    "tifffile": set(),
    "matplotlib.image": set(),
    "matplotlib.pyplot": set(),
    "torchvision.io": set(),
    "tarfile": {"data/tars.py"},
    "zipfile": {"labels/cvat_format.py"},  # answers as CVAT packs them, one member, bounded
    "pickle": set(),
    "numpy.load": set(),
    "pandas.read_csv": set(),
    "pandas.read_parquet": set(),
    "pyarrow.csv": set(),
    "pyarrow.dataset": set(),
    "pyarrow.parquet": {
        "data/members.py",
        "state/tables.py",  # our own tables
        "pool/features/stored_taps.py",  # our own features
    },
    "yaml.SafeLoader": {"config/documents.py"},
    "yaml.safe_load": set(),
    "yaml.load": set(),
    "torch.load": {"models/weights.py", "training/checkpoint.py"},  # both with weights_only
    "safetensors.safe_open": {"runs/trained_model.py"},
}

READS = {"read", "open", "read_text", "read_bytes", "read_json"}
"""Methods that read a file; data sets use `madbal_ray.data.members` instead."""


def uses(path):
    """Yield the dotted names of other packages that a file uses."""
    tree = ast.parse(path.read_text())
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
                yield alias.name
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts, value = [node.attr], node.value
            while isinstance(value, ast.Attribute):
                parts.append(value.attr)
                value = value.value
            if isinstance(value, ast.Name) and value.id in names:
                yield ".".join([names[value.id], *reversed(parts)])


def files_that_use(thing):
    return {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for name in set(uses(path))
        if name == thing or name.startswith(f"{thing}.")
    }


@pytest.mark.parametrize("thing", list(DOORS))
def test_only_the_door_opens(thing):
    assert files_that_use(thing) == DOORS[thing]


def test_data_sets_read_files_through_the_door_alone():
    for path in [*(PACKAGE / "data").glob("*.py"), *(PACKAGE / "survey").glob("*.py")]:
        if path.name in ("members.py", "tars.py"):
            continue
        called = {
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        }
        assert not called & READS, path.name


def test_torch_files_are_loaded_without_code_in_them():
    for name in DOORS["torch.load"]:
        text = (PACKAGE / name).read_text()
        assert text.count("torch.load(") == text.count("weights_only=True")
