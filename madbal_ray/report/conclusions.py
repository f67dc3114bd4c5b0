"""What may be concluded from runs beside each other, and what to mind, in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from madbal_ray.report.results import Results
from madbal_ray.report.statistics import ENOUGH_SEEDS, Comparison

NAMED = 5
"""Runs that a sentence names."""

FEW_PASSES = 10
"""A head that sees its labels less often is trained too short (experiments/LOG.md)."""

WORTH_A_WORD = 0.001
"""Differences of mIoU below this are not worth a sentence where splits disagree."""


def verdict(results: Results, split: str) -> list[str]:
    """Return the comparisons with the baseline, in sentences."""
    return [
        f"{split}, {_seeds(one.difference.count)}: {in_words(one)}."
        for one in results.comparisons(split)
    ]


def in_words(one: Comparison) -> str:
    """Return a difference with what speaks for and against chance, without a full stop."""
    difference, count = one.difference, one.difference.count
    text = f"{one.first} − {one.second} is {100 * difference.mean:+.2f} mIoU points over the curve"
    if count == 1:
        return text + ", from one seed: how much of it is chance is not known"
    text += f" [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}], ahead in "
    text += f"{one.wins} of {count} seeds, "
    text += "hardly chance" if one.is_clear else "may be chance"
    if one.p_value is not None:
        text += f": p = {one.p_value:.2g} (paired t-test, Holm)"
    return text + f"; {count} seeds find {100 * one.smallest_visible:.2f} in 80 % of trials"


def doubts(results: Results, split: str) -> list[str]:
    """Return what to mind where members are compared, in sentences."""
    of_split = {name: results.comparisons(name) for name in results.splits}
    comparisons = of_split.get(split, [])
    lines = [*unfinished(results, split), *short_trainings(results)]
    seeds = min((one.difference.count for one in comparisons), default=ENOUGH_SEEDS)
    if seeds < ENOUGH_SEEDS:
        lines.append(
            f"{_seeds(seeds)} {'is' if seeds == 1 else 'are'} too few for a test ({ENOUGH_SEEDS} "
            "are needed): read the intervals, and take a difference whose interval holds 0 for "
            "noise."
        )
    return lines + disagreements(split, of_split)


def not_compared(results: Results, split: str) -> str:
    """Return why there is no comparison at all, in a sentence."""
    curves = {name: results.curves(name, split) for name in results.members}
    if results.baseline not in curves:
        return "No member is the baseline, so their curves are not compared."
    of_baseline = curves.pop(results.baseline)
    if not any(of_baseline.keys() & own.keys() for own in curves.values()):
        return (
            f"No member has a seed that {results.baseline}, the baseline, has as well, so their "
            "curves are not compared."
        )
    return "They share no range of clicks, so their curves are not compared."


def unfinished(results: Results, split: str) -> list[str]:
    """Return sentences where runs or members ended before others, with what that means."""
    lines = []
    points = {
        name: {run.seed: len(run.curve(split)) for run in results.of(name)}
        for name in results.members
    }
    usual = {
        name: max((len(curve) for curve in results.curves(name, split).values()), default=0)
        for name in results.members
    }
    total = sum(map(len, points.values()))
    for what, meaning, odd in (
        ("fewer", "are left out until they finish", lambda count, most: count < most),
        ("more", "count as far as the others", lambda count, most: count > most),
    ):
        named = [
            f"{name}, seed {seed}: {count}"
            for name, of_seed in points.items()
            for seed, count in of_seed.items()
            if odd(count, usual[name])
        ]
        if named:
            lines.append(
                f"{split}: {len(named)} of {total} runs have {what} rounds than the others of "
                f"their member ({_named(named)}) and {meaning}."
            )
    group = results.on_one_range(split)
    most = max((usual[name] for name in group), default=0)
    early = [f"{name}: {usual[name]}" for name in group if usual[name] < most]
    if early:
        lines.append(
            f"{split}: {len(early)} of {len(group)} members have fewer than {most} rounds "
            f"({_named(early)}), so all are compared over the first "
            f"{len(results.shared_clicks(group, split))} alone: finish them, or leave them out."
        )
    alone = [name for name, count in usual.items() if count < 2]
    if alone and most > 1:
        lines.append(
            f"{split}: {_named(alone)}: fewer than two rounds that were measured, so no curve to "
            "compare."
        )
    return lines


def short_trainings(results: Results) -> list[str]:
    """Return a sentence where a fixed number of steps is too small for the last labels."""
    passes: dict[str, float] = {}
    for run in results.runs:
        if (seen := run.facts.passes) is not None:
            passes[run.member] = min(seen, passes.get(run.member, seen))
    short = [f"{name}: {seen:.3g}" for name, seen in passes.items() if seen < FEW_PASSES]
    if not short:
        return []
    return [
        f"train.phase1.steps saw the labels of the last round less than {FEW_PASSES} times "
        f"({_named(short)}), often too seldom for what they are worth: mIoU there, or the full "
        "supervision that shares refer to, may be too low. Take more steps, or "
        "train.phase1.epochs in their place."
    ]


def disagreements(headline: str, of_split: Mapping[str, Sequence[Comparison]]) -> list[str]:
    """Return where another split says the contrary of the headline's, in sentences."""
    return [
        f"The splits disagree on {one.first} − {one.second}: "
        f"{100 * one.difference.mean:+.2f} mIoU points on {headline}, {mean} on {split}."
        for split in of_split
        for one in of_split.get(headline, ())
        if (mean := contrary(one, of_split[split])) is not None
    ]


def contrary(one: Comparison, others: Sequence[Comparison]) -> str | None:
    """Return the same difference on another split in points, where it says the contrary."""
    for twin in others:
        means = (one.difference.mean, twin.difference.mean)
        if (
            twin.first == one.first
            and math.prod(means) < 0
            and min(map(abs, means)) >= WORTH_A_WORD
        ):
            return f"{100 * twin.difference.mean:+.2f}"
    return None


def _seeds(count: int) -> str:
    return f"{count} seed" + "s" * (count != 1)


def _named(items: Sequence[str]) -> str:
    """Return the first few of them in a row."""
    return "; ".join(items[:NAMED]) + ("; …" if len(items) > NAMED else "")
