"""Documents name things that exist."""

import re
from pathlib import Path

import pytest

from madbal_ray.state import tables

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "CHANGELOG.md", "experiments/LOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_every_column_of_every_table_is_described():
    text = (ROOT / "docs" / "data-formats.md").read_text()
    for name, schema in tables.SCHEMAS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        for column in schema.names:
            assert re.search(rf"\b{column}\b", row), (name, column)


def test_functions_named_in_the_fidelity_table_exist():
    import importlib

    text = (ROOT / "docs" / "fidelity.md").read_text()
    section = text.split("## Equations")[1].split("## Decisions")[0]
    for line in section.splitlines()[4:]:
        cells = line.split("|")
        if len(cells) < 5:
            continue
        for name in re.findall(r"`([a-z_]+(?:\.[A-Za-z_0-9]+)+)`", cells[3]):
            module, _, attribute = name.rpartition(".")
            if attribute.startswith("_"):
                module, _, owner = module.rpartition(".")
                assert hasattr(
                    getattr(importlib.import_module(f"madbal_ray.{module}"), owner), attribute
                )
                continue
            try:
                found = importlib.import_module(f"madbal_ray.{module}")
            except ModuleNotFoundError:
                pytest.fail(f"docs/fidelity.md names {name}")
            if not hasattr(found, attribute):
                importlib.import_module(f"madbal_ray.{name}")
        for test in re.findall(r"`([a-z_]+/test_[a-z_]+\.py)`", cells[4]):
            assert (ROOT / "tests" / test).exists(), test
