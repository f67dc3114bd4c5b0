"""From suite folders to ranks over all of them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from madbal_ray.errors import ConfigError, DataError
from madbal_ray.report.conclusions import unfinished
from madbal_ray.report.curves import curve_rows, read_curves
from madbal_ray.report.figures import rank_figure
from madbal_ray.report.over_suites import (
    left_out,
    rank_over,
    ranked_members,
    same_runs,
    table_over,
)
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
        warn: told which runs ended before others, and which members and seeds are left out.

    Raises:
        ConfigError: too few members or seeds to rank, a suite without the split or given twice, or
            the baseline is no member.
        DataError: a table of curves cannot be read.
        RunDirError: a folder is neither a run nor a suite.
    """
    suites: dict[str, Results] = {}
    for path in paths:
        for title, results in _suites_of(path, baseline).items():
            name = path if title in suites else title
            suites[name if name not in suites else f"{path}, {title}"] = results
    for name, results in suites.items():
        if split not in results.splits:
            raise ConfigError(
                f"{name} was not measured on split {split!r}, but on "
                f"{', '.join(results.splits)}: choose one by --split, or leave the suite out"
            )
    if (twins := same_runs(suites)) is not None:
        raise ConfigError(
            f"{twins[0]} and {twins[1]} hold the same runs, which would count twice: leave one out"
        )
    for name, results in suites.items():
        for line in unfinished(results, split):
            warn(f"{name}, {line}")
    for line in left_out(suites, split):
        warn(line)
    ranks = rank_over(suites, split)
    if ranks is None:
        shared = ranked_members(suites, split)
        raise ConfigError(
            f"nothing to rank on split {split!r}: {len(shared)} members have curves in all suites "
            f"({', '.join(shared) or 'none'}); expected {FEWEST_MEMBERS} or more, with "
            f"{FEWEST_BLOCKS} or more seeds that all of them finished"
        )
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
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table of curves: {error}") from error
