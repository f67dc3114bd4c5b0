"""The first screen of a report: what was run and what came out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import pandas as pd

from madbal_ray.report.conclusions import contrary, in_words, not_compared
from madbal_ray.report.results import Results
from madbal_ray.report.statistics import Comparison


def facts(results: Results, command: str | None) -> list[tuple[str, str]]:
    """Return what was run, on what, when and by which command, as terms and values.

    Args:
        command: that ran all of it; None: not recorded, and each run's own counts.
    """
    compared = [run for run in results.runs if not run.is_reference] or list(results.runs)
    first = results.runs[0].facts
    seeds = sorted({run.seed for run in compared})
    rounds = sorted({int(run.metrics["round"].max()) + 1 for run in compared})
    what = f"{', '.join(results.members or [first.strategy])}; {_spread(rounds)} rounds, "
    what += f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
    if any(run.is_reference for run in results.runs):
        what += "; beside it every pixel labelled"
    if len(compared) == 1 and first.strategy not in results.members:
        what = f"strategy {first.strategy}; " + what.partition("; ")[2]
    rows = [("Run", what)]
    if first.data:
        rows.append(("Data", first.data))
    times = [run.facts for run in results.runs if run.facts.started is not None]
    if times:
        start = min(one.started for one in times if one.started is not None)
        end = max(one.ended for one in times if one.ended is not None)
        rows.append(("When", _period(start, end)))
    if command or (len(results.runs) == 1 and first.command):
        rows.append(("Command", command or first.command))
    else:
        rows.append(("Repeats it", f"madbal run {results.runs[0].folder}/config.json"))
    return rows


def answer(results: Results, split: str) -> list[str]:
    """Return what came out: two sentences, with what is known of their uncertainty."""
    table = results.summary_table(split)
    if table.empty:
        (reference,) = [results.full_supervision(split)]
        value = sum(reference.values()) / len(reference)
        return [f"Trained on every pixel, the network reaches mIoU {value:.4f} on {split}."]
    by_member = table.set_index("member")
    if by_member["miou"].isna().all():
        return [f"Nothing that was measured on {split} has a class, so there is no mIoU."]
    has_area = by_member["area"].notna()
    judged = by_member.loc[has_area, "area"] if has_area.any() else by_member["miou"]
    best = str(judged.idxmax())
    comparisons = {one.first: one for one in results.comparisons(split)}
    if len(by_member) == 1:
        return [_one_end(results, split, best), _one_doubt(results, split, best)]
    measured = by_member.index[by_member["miou"].notna()]
    against = results.baseline if results.baseline in measured else None
    named = [best] if against in (None, best) else [best, str(against)]
    ends = "; ".join(_end(by_member, name, is_baseline=name == against) for name in named)
    seeds = int(by_member.loc[judged.index, "seeds"].min())
    how = f"{seeds} seeds, 95 % interval of the mean" if seeds > 1 else "one seed"
    where = "over the curve" if has_area.any() else "in the end"
    lines = [f"On {split} ({how}), the best of {len(judged)} members {where}: {ends}."]
    rival = comparisons.get(best) or max(
        comparisons.values(), key=lambda one: one.difference.mean, default=None
    )
    if rival is None:
        return [*lines, not_compared(results, split)]
    return [*lines, _judged(rival, results, split)]


def _one_end(results: Results, split: str, member: str) -> str:
    curves = results.curves(member, split).values()
    row = results.summary_table(split).iloc[0]
    starts = [float(curve["miou"].iloc[0]) for curve in curves]
    rounds = max(map(len, curves))
    text = f"After {rounds} round{'s' * (rounds > 1)} and {row['clicks_per_image']:g} clicks per "
    text += f"image, mIoU on {split} is {row['miou']:.4f}"
    if row["seeds"] > 1:
        text += f" [{row['miou_low']:.4f}, {row['miou_high']:.4f}]"
    if rounds > 1:
        gain = 100 * (row["miou"] - sum(starts) / len(starts))
        text += f", {gain:+.1f} points on the random start"
    if not math.isnan(row["share_of_full"]):
        text += f" and {100 * row['share_of_full']:.0f} % of full supervision"
    return text + "."


def _one_doubt(results: Results, split: str, member: str) -> str:
    runs = results.of(member)
    if len(runs) > 1:
        return f"The interval is of the mean over {len(runs)} seeds, with 95 % confidence."
    points = runs[0].point_metrics
    if len(points):
        points = points[(points["measure"] == "miou") & (points["split"] == split)]
        for one in points[points["round"] == points["round"].max()].to_dict("records"):
            if math.isnan(one["low"]):
                continue
            return (
                f"It was measured on {one['num_points']:.0f} points: with 95 % confidence it lies "
                f"between {one['low']:.4f} and {one['high']:.4f}."
            )
    return "It is one seed: how much of it is chance is not known."


def _end(table: pd.DataFrame, name: str, *, is_baseline: bool) -> str:
    row = table.loc[[name]].to_dict("records")[0]
    interval = f" [{row['miou_low']:.4f}, {row['miou_high']:.4f}]" if row["seeds"] > 1 else ""
    role = ", the baseline," if is_baseline else ""
    return f"{name}{role} ends at mIoU {row['miou']:.4f}{interval} after " + (
        f"{row['clicks_per_image']:g} clicks per image"
    )


def _judged(one: Comparison, results: Results, split: str) -> str:
    others = [(name, results.comparisons(name)) for name in results.splits if name != split]
    opposite = [
        f"{mean} on {name}" for name, found in others if (mean := contrary(one, found)) is not None
    ]
    return in_words(one) + (f"; but {', '.join(opposite)}." if opposite else ".")


def _spread(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _period(start: float, end: float) -> str:
    first, last = datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC)
    text = f"{first.day} {first:%B %Y, %H:%M} to "
    if first.date() != last.date():
        text += f"{last.day} {last:%B %Y, }"
    return f"{text}{last:%H:%M} UTC"
