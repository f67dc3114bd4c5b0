"""Names of runs and classes are text: no formula, no markup, no mathematics, no other folder."""

import csv

import pytest
from click.testing import CliRunner
from rich.console import Console

import madbal_ray
from madbal_ray import api
from madbal_ray.cli import main
from tests.conftest import tiny_config

HOSTILE = "=1+cmd $x_{$ [_red]"
MARKUP = "[/red] x"


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory):
    """A finished run whose name is a formula, mathematics and markup."""
    folder = tmp_path_factory.mktemp("hostile")
    config = tiny_config(num_rounds=1) | {"name": HOSTILE}
    return madbal_ray.run(config, run_dir=folder / "run", engine="local")


def test_a_report_shows_them_as_they_are(hostile_run, tmp_path):
    _, written = api.report([hostile_run.run_dir.folder.uri], out=tmp_path, warn=print)
    cells = [
        cell
        for path in written
        if path.suffix == ".csv"
        for row in csv.reader(path.read_text().splitlines())
        for cell in row
    ]
    assert any("=1+cmd" in cell for cell in cells)
    assert not [cell for cell in cells if cell.startswith(("=", "@", "+"))]


def test_markup_in_a_name_does_not_break_what_commands_print(hostile_run, tmp_path):
    from madbal_ray.cli.summary import print_metrics

    run = madbal_ray.open_run(hostile_run.run_dir.folder.uri)
    run.config = run.config.model_copy(update={"name": MARKUP})
    with open(tmp_path / "out.txt", "w") as sink:
        print_metrics(Console(file=sink, markup=False, width=120), run)
    assert "[/red] x" in (tmp_path / "out.txt").read_text()


def test_a_command_prints_a_name_with_markup(tmp_path):
    import json

    path = tmp_path / "c.json"
    path.write_text(json.dumps(tiny_config(num_rounds=1) | {"name": "[red] [bold"}))
    arguments = ["run", str(path), "--run-dir", str(tmp_path / "run"), "--engine", "local"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "[red] [bold" in done.output
