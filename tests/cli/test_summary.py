"""What runs say when they end, and who answers where nobody is named."""

import getpass
import io

import pandas as pd
import pytest
from click.testing import CliRunner
from rich.console import Console

from madbal_ray.cli import main
from madbal_ray.cli.summary import point_lines, print_metrics, print_results
from madbal_ray.report.results import Results
from madbal_ray.report.run_result import RunResult
from madbal_ray.runs.run import Run
from madbal_ray.state import tables


class Measured(Run):
    """A run that is nothing but its tables."""

    def __init__(self, labels=(), points=()):
        self._labels, self._points = labels, points

    def metrics(self):
        return pd.DataFrame()

    def point_metrics(self):
        return pd.DataFrame(self._points)

    def table(self, name):
        return tables.from_rows(name, self._labels)


def label(place, round_index, revision, status):
    pixel = {"image_id": "a.png", "y": place, "x": 0, "unit": "pixel"}
    return pixel | {"round": round_index, "revision": revision, "status": status}


def test_answers_are_counted_once_however_often_they_were_revised():
    rows = [label(0, 0, 1, "labelled"), label(1, 0, 0, "waiting"), label(2, 0, 0, "waiting")]
    rows += [label(0, 0, 2, "void"), label(1, 0, 1, "labelled"), label(0, 1, 1, "labelled")]
    rows[-1]["image_id"] = "b.png"
    sink = io.StringIO()
    print_metrics(Console(file=sink, width=120), Measured(labels=rows))
    assert sink.getvalue() == (
        "labels: 2 in round 0, 1 in round 1; nothing was measured, for want of masks\n"
    )


def test_members_without_a_shared_range_have_no_area():
    curve = pd.DataFrame({"round": [0, 1], "split": "val", "miou": [0.25, 0.5]})
    runs = [
        RunResult(member, 0, "", False, curve.assign(clicks_per_image=[20, end]))
        for member, end in (("random", 60), ("core_set", 500))
    ]
    text = io.StringIO()
    print_results(Console(file=text, width=110, markup=False), Results(runs, "random"))
    rows = [line.split("│") for line in text.getvalue().splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row[1:7]] for row in rows] == [
        ["random", "1", "60", "0.5000 [0.5000, 0.5000]", "0.3750 [0.3750, 0.3750]", "–"],
        ["core_set", "1", "500", "0.5000 [0.5000, 0.5000]", "–", "–"],
    ]


def test_points_without_an_interval_or_a_value_say_so():
    row = {"round": 1, "split": "val_points", "measure": "pixel_accuracy", "num_points": 300}
    found = [
        {"value": 0.75, "low": 0.7, "high": 0.8, "points_needed": 1875},
        {"value": 1.0, "low": None, "high": None, "points_needed": None},
        {"value": None, "low": None, "high": None, "points_needed": None},
    ]
    rows = [row | estimate for estimate in found]
    earlier, of_class = row | found[0] | {"round": 0}, row | found[0] | {"measure": "class_iou"}
    run = Measured(points=[earlier, *rows, of_class])
    assert [line.removeprefix("val_points, pixel accuracy: ") for line in point_lines(run)] == [
        "0.7500 [0.7000, 0.8000] from 300 points; about 1875 would give +- 0.02",
        "1.0000 from 300 points; no interval: all images say the same",
        "no point says anything",
    ]


@pytest.mark.parametrize("command", [["requests", "import"], ["annotate"]])
def test_an_account_without_a_name_is_told_to_say_who_answers(monkeypatch, tmp_path, command):
    def nobody():
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(getpass, "getuser", nobody)
    files = [str(tmp_path / name) for name in ("run", "answers.csv")][: len(command)]
    done = CliRunner().invoke(main, [*command, *files])
    assert done.exit_code != 0
    assert "this account has no name" in done.output
    assert "say who answers with --annotator NAME" in done.output
    assert "Traceback" not in done.output
