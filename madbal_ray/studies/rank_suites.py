"""From suite folders to ranks over all of them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from madbal_ray.errors import ConfigError, DataError
from madbal_ray.report.curves import curve_rows, read_curves
from madbal_ray.report.figures import rank_figure
from madbal_ray.report.over_suites import rank_over, table_over
from madbal_ray.report.ranks import FEWEST_BLOCKS, FEWEST_MEMBERS, Ranks
from madbal_ray.report.results import Results
from madbal_ray.report.spreadsheet import csv_bytes
from madbal_ray.state.storage import Folder
from madbal_ray.studies.report_runs import compare, open_runs


def rank_suites(
    paths: Sequence[str],
    *,
    split: str,
    baseline: str | None,
    out: str | os.PathLike[str] | None,
    warn: Callable[[str], None],
) -> tuple[Ranks, pd.DataFrame]:
    """Rank members over suites; write ``ranks.csv``, ``ranks.png``, ``curves.csv`` to `out`.

    Args:
        paths: folders of suites, or ``.csv``: curves that an earlier call wrote, taken at their
            word.
        baseline: member that the others are compared with; None: each suite's own.
        warn: told which suites have runs that ended before others.

    Raises:
        ConfigError: too few members or seeds to rank, or the baseline is no member.
        DataError: a table of curves cannot be read.
        RunDirError: a folder is neither a run nor a suite.
    """
    suites: dict[str, Results] = {}
    for path in paths:
        for title, results in _suites_of(path, baseline).items():
            name = path if title in suites else title
            suites[name if name not in suites else f"{path}, {title}"] = results
    ranks = rank_over(suites, split)
    if ranks is None:
        shared = set.intersection(*(set(results.members) for results in suites.values()))
        raise ConfigError(
            f"nothing to rank on split {split!r}: {len(shared)} members are in all suites "
            f"({', '.join(sorted(shared)) or 'none'}); expected {FEWEST_MEMBERS} or more, with "
            f"{FEWEST_BLOCKS} or more seeds that all of them finished"
        )
    for name, results in suites.items():
        for line in results.unfinished(split):
            warn(f"{name}, {line}")
    table = table_over(suites, ranks, split)
    if out is not None:
        picture = io.BytesIO()
        rank_figure(ranks).savefig(picture, dpi=150)
        Path(out).mkdir(parents=True, exist_ok=True)
        folder = Folder(out)
        folder.write("ranks.csv", csv_bytes(table))
        folder.write("ranks.png", picture.getvalue())
        folder.write("curves.csv", csv_bytes(curve_rows(suites)))
    return ranks, table


def _suites_of(path: str, baseline: str | None) -> dict[str, Results]:
    if path.endswith(".csv"):
        return {
            title: _with_baseline(results, baseline, f"{path}, {title}")
            for title, results in read_curves(_text_of(path), path).items()
        }
    opened = open_runs([path])
    known = baseline or opened.baseline
    results = compare(opened.runs, baseline=known, is_known=baseline is None, varies=opened.varies)
    return {opened.title: results}


def _with_baseline(results: Results, baseline: str | None, where: str) -> Results:
    if baseline is None:
        return results
    if baseline not in results.members:
        raise ConfigError(
            f"{where}: baseline {baseline!r} is none of the members: {', '.join(results.members)}"
        )
    return Results(results.runs, baseline)


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table of curves: {error}") from error
