"""`madbal ranks`: suites in, a table, a picture and sentences out."""

from types import SimpleNamespace

import pandas as pd
import pytest
from click.testing import CliRunner

from madbal_ray.cli import main
from madbal_ray.studies import rank_suites as module
from tests.report.test_over_suites import suite


@pytest.fixture
def two_suites(monkeypatch):
    results = {"a": suite(range(4)), "b": suite(range(4))}
    asked = []

    def compare(runs, *, baseline, is_known):
        asked.append((runs, baseline, is_known))
        return results[runs]

    def opened(paths):
        (path,) = paths
        return SimpleNamespace(title="streets", baseline="random", runs=path)

    monkeypatch.setattr(module, "open_runs", opened)
    monkeypatch.setattr(module, "compare", compare)
    return asked


def test_ranks_are_printed_and_written(two_suites, tmp_path):
    found = CliRunner().invoke(main, ["ranks", "a", "b", "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert "8 seeds, suites: 2" in found.output
    assert "Friedman's test that all are alike: p = 0.000335" in found.output
    assert "from 1.17 ranks on" in found.output
    table = pd.read_csv(tmp_path / "ranks.csv")
    assert table["member"].tolist() == ["better", "random", "worse"]
    # suites of one name are told apart by their folders
    assert [c for c in table.columns if c.endswith("points")] == ["streets: points", "b: points"]
    assert (tmp_path / "ranks.png").read_bytes().startswith(b"\x89PNG")
    assert two_suites == [("a", "random", True), ("b", "random", True)]


def test_another_baseline_is_the_users_and_too_few_seeds_are_told(two_suites):
    arguments = ["ranks", "a", "--baseline", "better"]
    found = CliRunner().invoke(main, arguments)
    assert two_suites == [("a", "better", False)]
    assert found.exit_code == 2
    assert "3 members are in all suites (better, random, worse); expected 3 or more" in found.output
