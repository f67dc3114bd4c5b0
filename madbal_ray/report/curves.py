"""Curves of suites as one table: what a repository keeps of runs that are gone, by seed."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from madbal_ray.errors import DataError
from madbal_ray.report.results import Results
from madbal_ray.report.run_result import RunResult
from madbal_ray.report.spreadsheet import plain_cell

COLUMNS = ("suite", "member", "role", "seed", "split", "round", "clicks_per_image", "miou")

ROLES = ("member", "baseline", "reference")
"""reference: fully supervised, no curve of its own."""


def curve_rows(suites: Mapping[str, Results]) -> pd.DataFrame:
    """Return `COLUMNS`, a row per suite, run, split and round: all that ranks are made of."""
    rows = []
    for suite, results in suites.items():
        for run in results.runs:
            role = "baseline" if run.member == results.baseline else "member"
            who = (suite, run.member, "reference" if run.is_reference else role, run.seed)
            for split in results.splits:
                curve = run.curve(split)
                points = zip(curve["round"], curve["clicks_per_image"], curve["miou"], strict=True)
                rows += [(*who, split, *point) for point in points]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def read_curves(text: str, where: str) -> dict[str, Results]:
    """Return suites by name from a table that `curve_rows` made.

    Args:
        where: the file, for messages.

    Raises:
        DataError: a column is missing, a cell is of another kind, a run has a round twice or two
            roles, or a suite two baselines.
    """
    reader = csv.DictReader(io.StringIO(text))
    try:
        names = reader.fieldnames or ()
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DataError(f"{where}, after line {reader.line_num}: {error}") from None
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise DataError(
            f"{where} has no column {', '.join(missing)}; expected the curves.csv that "
            f"`madbal ranks --out` writes, with {', '.join(COLUMNS)}"
        )
    points: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    roles: dict[tuple[str, str, int], str] = {}
    baselines: dict[str, str] = {}
    seen: set[tuple[str, str, int, str, int]] = set()
    for line, row in rows:
        place = f"{where}, line {line}"
        if None in row or None in row.values():
            raise DataError(
                f"{place}: {'more' if None in row else 'fewer'} cells than the header's "
                f"{len(names)}; a number with a comma in it is two cells"
            )
        suite, member, split = (_text(row, name, place) for name in ("suite", "member", "split"))
        if row["role"] not in ROLES:
            raise DataError(f"{place}: role {row['role']!r}; expected {', '.join(ROLES)}")
        seed, number = (_whole(row, name, place) for name in ("seed", "round"))
        if (suite, member, seed, split, number) in seen:
            raise DataError(
                f"{place}: {member}, seed {seed}, has round {number} on {split} twice; the same "
                "runs may have been added twice"
            )
        seen.add((suite, member, seed, split, number))
        role = roles.setdefault((suite, member, seed), row["role"])
        if row["role"] != role:
            raise DataError(
                f"{place}: {member}, seed {seed}, is a {row['role']} and was a {role} above"
            )
        if role == "baseline" and baselines.setdefault(suite, member) != member:
            raise DataError(
                f"{place}: {member} is a baseline of {suite}, and so is {baselines[suite]}; "
                "expected one"
            )
        clicks = _number(row, "clicks_per_image", place, most=math.inf)
        miou = _number(row, "miou", place, most=1.0)
        if math.isnan(clicks):
            raise DataError(f"{place}: clicks_per_image is empty")
        point = {"split": split, "round": number, "clicks_per_image": clicks, "miou": miou}
        points.setdefault((suite, member, seed), []).append(point)
    if not points:
        raise DataError(f"{where} has no row below its header")
    suites: dict[str, list[RunResult]] = {}
    for (suite, member, seed), rounds in points.items():
        metrics, is_reference = pd.DataFrame(rounds), roles[suite, member, seed] == "reference"
        suites.setdefault(suite, []).append(RunResult(member, seed, where, is_reference, metrics))
    return {suite: Results(runs, baselines.get(suite)) for suite, runs in suites.items()}


def _text(row: Mapping[str, str | None], name: str, place: str) -> str:
    if not row[name]:
        raise DataError(f"{place}: {name} is empty")
    return plain_cell(str(row[name]))


def _whole(row: Mapping[str, str | None], name: str, place: str) -> int:
    cell = row[name] or ""
    if not (cell.isascii() and cell.isdigit() and len(cell) < 19):
        raise DataError(f"{place}: {name} is {row[name]!r}; expected a whole number from 0")
    return int(cell)


def _number(row: Mapping[str, str | None], name: str, place: str, *, most: float) -> float:
    """Return a cell; an empty one is NaN: a round without a mIoU."""
    if not row[name]:
        return math.nan
    try:
        number = float(row[name] or "")
    except ValueError:
        number = math.nan
    if not 0 <= number <= most or math.isinf(number):
        expected = "a number from 0" + (f" to {most:g}" if most < math.inf else "")
        raise DataError(f"{place}: {name} is {row[name]!r}; expected {expected}")
    return number
