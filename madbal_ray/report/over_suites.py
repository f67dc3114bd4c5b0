"""Members over several suites, of different data sets say: each seed of each is a block."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

import pandas as pd

from madbal_ray.report.ranks import Ranks, mean_ranks
from madbal_ray.report.results import Results


def rank_over(suites: Mapping[str, Results], split: str) -> Ranks | None:
    """Return mean ranks by area; None: too few members or blocks.

    Args:
        suites: name -> results; members that one of them lacks are left out, and seeds that a
            member lacks.
    """
    blocks: dict[Hashable, dict[str, float]] = {}
    shared = set.intersection(*(set(results.members) for results in suites.values()))
    for name, results in suites.items():
        members = [member for member in results.on_one_range(split) if member in shared]
        for member, areas in results.areas(members, split).items():
            for seed, area in areas.items():
                blocks.setdefault((name, seed), {})[member] = area
    most = max((len(one) for one in blocks.values()), default=0)
    return mean_ranks({block: one for block, one in blocks.items() if len(one) == most})


def table_over(suites: Mapping[str, Results], ranks: Ranks, split: str) -> pd.DataFrame:
    """Return one row per ranked member, the best first.

    For each suite the mean difference from its baseline in mIoU points over the curve, and the
    p-value of the paired t-test with Holm's correction over the suite's members.
    """
    rows: list[dict[str, object]] = [
        {"member": member, "mean_rank": rank} for member, rank in ranks.mean.items()
    ]
    for name, results in suites.items():
        found = {one.first: one for one in results.comparisons(split)}
        for row in rows:
            one = found.get(str(row["member"]))
            row[f"{name}: points"] = math.nan if one is None else 100 * one.difference.mean
            p_value = None if one is None else one.p_value
            row[f"{name}: p"] = math.nan if p_value is None else p_value
    return pd.DataFrame(rows)
