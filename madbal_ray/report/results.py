"""Runs beside each other: one value per seed, means with intervals, shares of full supervision.

Longer than others: all that the page compares is asked of one class.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from madbal_ray.report.ranks import Ranks, mean_ranks
from madbal_ray.report.run_result import RunResult, counted_curves
from madbal_ray.report.statistics import (
    Comparison,
    area_under_curve,
    clicks_to_reach,
    compare_with,
    equivalent_clicks,
    mean_interval,
    win_matrix,
)

HEADLINE = "test"

SHARES = (0.8, 0.9, 0.95)
"""Shares of full supervision that `labels_needed` asks for."""


@dataclass(frozen=True)
class Results:
    """Runs on one axis.

    Attributes:
        baseline: member that the others are compared with; None: no comparison.
    """

    runs: Sequence[RunResult]
    baseline: str | None = None
    _counted: dict[tuple[str, str], dict[int, pd.DataFrame]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def members(self) -> list[str]:
        """Return the compared members in order."""
        return list(dict.fromkeys(run.member for run in self.runs if not run.is_reference))

    @property
    def splits(self) -> list[str]:
        """Return the evaluation splits, the headline last: ``test`` where there is one."""
        names = {split for run in self.runs for split in run.metrics["split"]}
        return sorted(names, key=lambda name: (name == HEADLINE, name))

    def of(self, member: str) -> list[RunResult]:
        """Return a member's runs by seed."""
        runs = [run for run in self.runs if run.member == member and not run.is_reference]
        return sorted(runs, key=lambda run: run.seed)

    def curves(self, member: str, split: str) -> dict[int, pd.DataFrame]:
        """Return seed -> curve of a member's runs that count, see `counted_curves`."""
        if (member, split) not in self._counted:
            self._counted[member, split] = counted_curves(self.of(member), split)
        return self._counted[member, split]

    def full_supervision(self, split: str) -> dict[int, float]:
        """Return seed -> mIoU of the fully supervised run."""
        return {
            run.seed: float(run.curve(split)["miou"].iloc[-1])
            for run in self.runs
            if run.is_reference and len(run.curve(split))
        }

    def curve_table(self, split: str) -> pd.DataFrame:
        """Return member, clicks_per_image, mean, low, high, seeds: a row per point.

        A point is a round of all seeds, at their mean clicks: whole images differ in size.
        Rounds of members that spend differently are not lined up with each other.
        """
        rows: list[dict[str, Any]] = []
        for member in self.members:
            curves = list(self.curves(member, split).values())
            if not curves:
                continue
            for _, part in pd.concat(curves).groupby(level=0):
                interval = mean_interval(part["miou"].tolist())
                rows.append(
                    {
                        "member": member,
                        "clicks_per_image": float(part["clicks_per_image"].mean()),
                        "mean": interval.mean,
                        "low": interval.low,
                        "high": interval.high,
                        "seeds": interval.count,
                    }
                )
        columns = ["member", "clicks_per_image", "mean", "low", "high", "seeds"]
        return pd.DataFrame(rows, columns=columns)

    def minute_curves(self, split: str) -> list[tuple[str, pd.DataFrame]]:
        """Return (member, curve) of every run whose people's time is known.

        No two runs took the same minutes, so that there is no mean over seeds.
        """
        curves = [(run.member, run.curve(split)) for name in self.members for run in self.of(name)]
        known = [(member, curve.dropna(subset=["minutes", "miou"])) for member, curve in curves]
        return [(member, curve) for member, curve in known if len(curve)]

    def shared_clicks(self, members: Sequence[str], split: str) -> list[float]:
        """Return the clicks per image at which all runs of some members were measured."""
        curves = [self.curves(name, split) for name in members]
        if not all(curves):
            return []
        seen = [set(one["clicks_per_image"]) for of_seed in curves for one in of_seed.values()]
        return sorted(set.intersection(*seen)) if seen else []

    def areas(self, members: Sequence[str], split: str) -> dict[str, dict[int, float]]:
        """Return member -> seed -> area under its curve, over the clicks that all of them share.

        Empty where they share fewer than two points: pixels and whole images have no range
        in common to compare.
        """
        shared = self.shared_clicks(members, split)
        if len(shared) < 2:
            return {}
        areas: dict[str, dict[int, float]] = {}
        for name in members:
            for seed, heights in self._heights(name, split, shared).items():
                areas.setdefault(name, {})[seed] = area_under_curve(shared, heights)
        return areas

    def on_one_range(self, split: str) -> list[str]:
        """Return the most members that share at least two points with one of them."""
        clicks = {name: set(self.shared_clicks([name], split)) for name in self.members}
        groups = [
            [name for name, own in clicks.items() if name == one or len(own & clicks[one]) > 1]
            for one in clicks
        ]
        return max(groups, key=len, default=[])

    def _heights(self, member: str, split: str, clicks: Sequence[float]) -> dict[int, list[float]]:
        """Return seed -> mIoU at some clicks, which all of them share."""
        found = {}
        for seed, curve in self.curves(member, split).items():
            miou = curve.set_index("clicks_per_image")["miou"]
            found[seed] = [float(miou[one]) for one in clicks]
        return found

    def summary_table(self, split: str) -> pd.DataFrame:
        """Return one row per member: final mIoU, area, share of full supervision, labels needed.

        Labels needed are clicks per image until the mean curve reaches a share of the mean
        full supervision; NaN: never.
        """
        full = self.full_supervision(split)
        mean_full = sum(full.values()) / len(full) if full else math.nan
        areas, curves = self.areas(self.on_one_range(split), split), self.curve_table(split)
        rows = []
        for member in self.members:
            curve = curves[curves["member"] == member]
            ends = [one.iloc[-1] for one in self.curves(member, split).values()]
            last = mean_interval([float(end["miou"]) for end in ends])
            clicks = [float(end["clicks_per_image"]) for end in ends]
            row: dict[str, Any] = {
                "member": member,
                "seeds": len(ends),
                "clicks_per_image": mean_interval(clicks).mean,
                "miou": last.mean,
                "miou_low": last.low,
                "miou_high": last.high,
            }
            row |= _area_columns(areas.get(member))
            row["share_of_full"] = last.mean / mean_full
            for share in SHARES:
                needed = clicks_to_reach(
                    curve["clicks_per_image"].tolist(), curve["mean"].tolist(), share * mean_full
                )
                row[f"clicks_to_{share:.0%}"] = math.nan if needed is None else needed
            rows.append(row)
        return pd.DataFrame(rows)

    def comparisons(self, split: str) -> list[Comparison]:
        """Compare every member with the baseline, on areas paired by seed.

        All over the range that they share; those off it over what they share with the baseline,
        and where that is nothing they are left out.
        """
        if self.baseline is None or self.baseline not in self.members:
            return []
        group = self.on_one_range(split)
        of_group = self.areas(group, split)
        pairs = {
            name: of_group
            if of_group and {name, self.baseline} <= set(group)
            else self.areas([name, self.baseline], split)
            for name in self.members
            if name != self.baseline
        }
        return compare_with(
            {name: (areas[name], areas[self.baseline]) for name, areas in pairs.items() if areas},
            self.baseline,
        )

    def label_efficiency(self, split: str) -> pd.DataFrame:
        """Return a row a member: its clicks and the baseline's that lead equally far.

        One way what its last clicks are worth in clicks of the baseline (infinity: more than
        the baseline's curve has; minus infinity: fewer), the other way with how many clicks it is
        where the baseline ends (infinity: never).
        """
        rows: list[dict[str, Any]] = []
        for name in self.members:
            if self.baseline not in self.members or name == self.baseline:
                continue
            shared = self.shared_clicks([name, self.baseline], split)
            if len(shared) < 2:
                continue
            curves = [self._heights(one, split, shared) for one in (name, self.baseline)]
            if not curves[0].keys() & curves[1].keys():
                continue
            worth = equivalent_clicks(shared, *curves)
            needed = equivalent_clicks(shared, *reversed(curves))
            rows.append(
                {
                    "member": name,
                    "clicks_per_image": shared[-1],
                    "equivalent_clicks": worth.mean,
                    "equivalent_low": worth.low,
                    "equivalent_high": worth.high,
                    "clicks_to_baseline": needed.mean,
                    "clicks_to_baseline_low": needed.low,
                    "clicks_to_baseline_high": needed.high,
                    "seeds": worth.count,
                }
            )
        return pd.DataFrame(rows)

    def ranks(self, split: str) -> Ranks | None:
        """Return mean ranks by area, seed by seed; None: too few members or seeds."""
        of_seed: dict[Hashable, dict[str, float]] = {}
        for name, areas in self.areas(self.on_one_range(split), split).items():
            for seed, area in areas.items():
                of_seed.setdefault(seed, {})[name] = area
        most = max((len(one) for one in of_seed.values()), default=0)
        return mean_ranks({seed: one for seed, one in of_seed.items() if len(one) == most})

    def wins(self, split: str) -> pd.DataFrame:
        """Return in how many seeds the row's area beats the column's."""
        return win_matrix(self.areas(self.on_one_range(split), split))

    def class_iou(self, member: str, split: str) -> pd.DataFrame:
        """Return clicks_per_image x class: mean IoU over seeds, NaN where absent."""
        curves = self.curves(member, split)
        of_seeds = []
        for run in self.of(member):
            if run.seed not in curves:
                continue
            rows = run.metrics[run.metrics["split"] == split].set_index("round")
            rows = rows.loc[curves[run.seed]["round"]]
            iou = pd.DataFrame(rows["class_iou"].tolist(), dtype=float)
            of_seeds.append(iou.assign(clicks_per_image=rows["clicks_per_image"].to_numpy()))
        if not of_seeds:
            return pd.DataFrame()
        mean = pd.concat(of_seeds).groupby(level=0).mean().set_index("clicks_per_image")
        mean.columns = list(self.class_names)[: mean.shape[1]]
        return mean

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes."""
        return self.runs[0].class_names

    @property
    def colors(self) -> tuple[tuple[int, int, int], ...]:
        """Return the data set's colours of the classes, RGB, 0..255."""
        return self.runs[0].colors

    def asked_class_shares(self) -> pd.DataFrame:
        """Return member x class: share of the answers after round 0; void last.

        The row ``random start`` holds round 0 of all runs: how often each class occurs.
        """
        rows, names = {}, {**dict(enumerate(self.class_names)), -1: "void"}
        compared = [run for run in self.runs if not run.is_reference]
        starts = [run.asked_classes.query("round == 0") for run in compared]
        if not starts:
            return pd.DataFrame(columns=list(names.values()))
        rows["random start"] = _shares(starts, "class_id")
        for member in self.members:
            later = [run.asked_classes.query("round > 0") for run in self.of(member)]
            if sum(len(asked) for asked in later):
                rows[member] = _shares(later, "class_id")
        table = pd.DataFrame(rows).T.reindex(columns=list(names)).fillna(0.0)
        return table.rename(columns=names)

    def asked_cluster_shares(self) -> pd.DataFrame:
        """Return member x cluster: share of the queries after round 0.

        Members whose budget was one cluster's alone have no share to show.
        """
        rows = {}
        for member in self.members:
            if any(len(run.cluster_budgets) and not run.shares_out for run in self.of(member)):
                continue
            later = [run.asked_clusters.query("round > 0") for run in self.of(member)]
            if sum(len(asked) for asked in later):
                rows[member] = _shares(later, "cluster_id")
        table = pd.DataFrame(rows).T.fillna(0.0)
        return table.reindex(columns=sorted(table.columns))

    def ledger(self) -> pd.DataFrame:
        """Return what every run spent, as its last round counts it."""
        rows = []
        for run in self.runs:
            last = run.metrics.sort_values("round").iloc[-1]
            wanted = (
                "labels_per_image",
                "clicks_per_image",
                "percent_labelled",
                "num_labels",
                "num_regions",
                "num_clicks",
                "num_void",
            )
            row = {"member": run.member, "seed": run.seed, "rounds": int(last["round"]) + 1}
            rows.append(row | {name: last[name] for name in wanted})
            if run.minutes:
                rows[-1]["minutes_of_people"] = run.minutes[int(last["round"])]
        return pd.DataFrame(rows)

    def stage_costs(self) -> pd.DataFrame:
        """Return seconds (mean over seeds, all rounds) and peak memory by member and stage."""
        timings = [run.timings.assign(member=run.member, seed=run.seed) for run in self.runs]
        rows = pd.concat(timings)
        sums = rows.groupby(["member", "stage", "seed"], sort=False).agg(
            seconds=("seconds", "sum"), peak_memory=("peak_memory", "max")
        )
        means = sums.groupby(["member", "stage"], sort=False).agg(
            seconds=("seconds", "mean"), peak_memory=("peak_memory", "max")
        )
        means["peak_gib"] = means.pop("peak_memory") / 2**30
        return means.reset_index()


def _area_columns(areas: dict[int, float] | None) -> dict[str, float]:
    if areas is None:
        return dict.fromkeys(("area", "area_low", "area_high"), math.nan)
    interval = mean_interval(list(areas.values()))
    return {"area": interval.mean, "area_low": interval.low, "area_high": interval.high}


def _shares(asked: list[pd.DataFrame], key: str) -> pd.Series:
    counts = pd.concat(asked).groupby(key)["count"].sum()
    return counts / counts.sum()
