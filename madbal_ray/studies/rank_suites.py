"""From suite folders to ranks over all of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from madbal_ray.errors import ConfigError
from madbal_ray.report.figures import rank_figure
from madbal_ray.report.over_suites import rank_over, table_over
from madbal_ray.report.ranks import FEWEST_BLOCKS, FEWEST_MEMBERS, Ranks
from madbal_ray.report.results import Results
from madbal_ray.studies.report_runs import compare, open_runs


def rank_suites(
    paths: Sequence[str],
    *,
    split: str,
    baseline: str | None,
    out: str | os.PathLike[str] | None,
) -> tuple[Ranks, pd.DataFrame]:
    """Rank members over suites and write ``ranks.csv`` and ``ranks.png`` to `out`.

    Args:
        baseline: member that the others are compared with; None: each suite's own.

    Raises:
        ConfigError: too few members or seeds to rank, or the baseline is no member.
        RunDirError: a folder is neither a run nor a suite.
    """
    suites: dict[str, Results] = {}
    for path in paths:
        opened = open_runs([path])
        name = path if opened.title in suites else opened.title
        suites[name] = compare(
            opened.runs, baseline=baseline or opened.baseline, is_known=baseline is None
        )
    ranks = rank_over(suites, split)
    if ranks is None:
        shared = set.intersection(*(set(results.members) for results in suites.values()))
        raise ConfigError(
            f"nothing to rank on split {split!r}: {len(shared)} members are in all suites "
            f"({', '.join(sorted(shared)) or 'none'}); expected {FEWEST_MEMBERS} or more, with "
            f"{FEWEST_BLOCKS} or more seeds that all of them finished"
        )
    table = table_over(suites, ranks, split)
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        table.to_csv(folder / "ranks.csv", index=False)
        rank_figure(ranks).savefig(folder / "ranks.png", dpi=150)
    return ranks, table
