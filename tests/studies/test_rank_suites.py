"""`madbal ranks`: suites in, a table, a picture and sentences out."""

from types import SimpleNamespace

import pandas as pd
import pytest
from click.testing import CliRunner

from madbal_ray.cli import main
from madbal_ray.report.results import Results
from madbal_ray.studies import rank_suites as module
from tests.report.test_over_suites import GAINS, suite
from tests.report.test_results import run


@pytest.fixture
def two_suites(monkeypatch):
    other = {name: gain / 2 for name, gain in GAINS.items()}
    results = {"a": suite(range(4)), "b": suite(range(4), other)}
    asked = []

    def compare(runs, *, baseline, is_known, varies):
        assert varies == ("train.init",)
        asked.append((runs, baseline, is_known))
        return results[runs]

    def opened(paths):
        (path,) = paths
        return SimpleNamespace(
            title="streets", baseline="random", runs=path, varies=("train.init",)
        )

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


def test_a_suite_that_is_not_finished_is_told(two_suites, monkeypatch):
    runs = [
        run(member, seed, [5, 10, 15], [0.3, 0.4, 0.4 + gain])
        for member, gain in GAINS.items()
        for seed in range(6)
    ]
    runs[2] = run("random", 2, [5, 10], [0.3, 0.4])
    runs += [run(member, 6, [5, 10, 15], [0.3, 0.4, 0.4 + gain]) for member, gain in GAINS.items()]
    results = Results(runs, baseline="random")
    monkeypatch.setattr(module, "compare", lambda runs, **options: results)
    found = CliRunner().invoke(main, ["ranks", "a"])
    assert found.exit_code == 0, found.output
    assert found.output.startswith(
        "streets, test: 1 of 21 runs have fewer rounds than the others of their member (random, "
        "seed 2: 2) and are left out until they finish.\n"
        "streets: 6 of 7 seeds are ranked; not all members have seed 2 (random)\n"
    )


def test_another_baseline_is_the_users_and_too_few_seeds_are_told(two_suites):
    arguments = ["ranks", "a", "--baseline", "better"]
    found = CliRunner().invoke(main, arguments)
    assert two_suites == [("a", "better", False)]
    assert found.exit_code == 2
    assert (
        "3 members have curves in all suites (random, better, worse); expected 3 or more"
    ) in found.output


def test_curves_stand_in_place_of_the_suites(two_suites, tmp_path):
    first = CliRunner().invoke(main, ["ranks", "a", "b", "--out", str(tmp_path / "one")])
    curves = str(tmp_path / "one" / "curves.csv")
    again = CliRunner().invoke(main, ["ranks", curves, "--out", str(tmp_path / "two")])
    assert again.exit_code == 0, again.output
    assert len(two_suites) == 2  # no folder was opened again
    for name in ("ranks.csv", "curves.csv"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert again.output == first.output
    beside = CliRunner().invoke(main, ["ranks", "a", curves])
    assert beside.exit_code == 2
    assert f"streets and {curves} hold the same runs, which would count twice" in beside.output
    val = CliRunner().invoke(main, ["ranks", curves, "--split", "val"])
    assert "streets was not measured on split 'val', but on test: choose one" in val.output
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "one/curves.csv").read_bytes())
    assert CliRunner().invoke(main, ["ranks", str(tmp_path / "bom.csv")]).output == first.output


def test_the_baseline_of_curves_and_files_that_are_none(two_suites, tmp_path):
    CliRunner().invoke(main, ["ranks", "a", "b", "--out", str(tmp_path)])
    curves = str(tmp_path / "curves.csv")
    better = CliRunner().invoke(
        main, ["ranks", curves, "--baseline", "better", "--out", str(tmp_path)]
    )
    assert better.exit_code == 0, better.output
    table = pd.read_csv(tmp_path / "ranks.csv").set_index("member")
    assert table["streets: points"].isna().to_dict() == {
        "better": True,
        "random": False,
        "worse": False,
    }
    wrong = CliRunner().invoke(main, ["ranks", curves, "--baseline", "none"])
    assert wrong.exit_code == 2
    assert "streets: baseline 'none' is none of the members: random, better, worse" in wrong.output
    missing = CliRunner().invoke(main, ["ranks", str(tmp_path / "no.csv")])
    assert missing.exit_code == 1
    assert "no.csv cannot be read as a table of curves" in missing.output
    assert "Traceback" not in missing.output
