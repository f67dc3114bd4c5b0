"""Members over several suites, of different data sets say: each seed of each is a block."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from itertools import combinations

import pandas as pd

from madbal_ray.report.ranks import Ranks, mean_ranks
from madbal_ray.report.results import Results


def ranked_members(suites: Mapping[str, Results], split: str) -> list[str]:
    """Return the members whose curves can be compared in every suite."""
    of_suite = [results.on_one_range(split) for results in suites.values()]
    return [name for name in of_suite[0] if all(name in other for other in of_suite)]


def rank_over(suites: Mapping[str, Results], split: str) -> Ranks | None:
    """Return mean ranks by area; None: too few members or blocks.

    Args:
        suites: name -> results; members that one of them lacks are left out, and seeds that one
            of the others lacks (`left_out` says which).
    """
    members = ranked_members(suites, split)
    blocks: dict[Hashable, dict[str, float]] = {}
    for name, results in suites.items():
        for member, areas in results.areas(members, split).items():
            for seed, area in areas.items():
                blocks.setdefault((name, seed), {})[member] = area
    return mean_ranks({block: one for block, one in blocks.items() if len(one) == len(members)})


def left_out(suites: Mapping[str, Results], split: str) -> list[str]:
    """Return who and which seeds ranks leave out, in sentences."""
    members, lines = ranked_members(suites, split), []
    for name, results in suites.items():
        absent = [member for member in results.members if member not in members]
        if absent:
            lines.append(
                f"{name}: {', '.join(absent)}: not ranked, since not every suite has a curve of "
                "them on the range of the others"
            )
        areas = results.areas(members, split)
        seeds = set().union(*areas.values())
        lacking = [
            f"seed {seed} ({', '.join(member for member in members if seed not in areas[member])})"
            for seed in sorted(seeds)
            if any(seed not in areas[member] for member in members)
        ]
        if lacking:
            lines.append(
                f"{name}: {len(seeds) - len(lacking)} of {len(seeds)} seeds are ranked; not all "
                f"members have {', '.join(lacking)}"
            )
    return lines


def same_runs(suites: Mapping[str, Results]) -> tuple[str, str] | None:
    """Return two suites whose common members and seeds have the very same curves, if any.

    The same runs twice would count twice: more blocks than there are, and a smaller p.
    """
    found: dict[str, dict[tuple[str, int, str], list[float]]] = {
        name: {
            (run.member, run.seed, split): run.curve(split)["miou"].tolist()
            for run in results.runs
            for split in results.splits
            if len(run.curve(split))
        }
        for name, results in suites.items()
    }
    for first, second in combinations(found, 2):
        common = found[first].keys() & found[second].keys()
        if common and all(found[first][key] == found[second][key] for key in common):
            return first, second
    return None


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
