"""What to do next after some runs: rules on what stands out, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from madbal_ray.report.conclusions import short_trainings
from madbal_ray.report.results import Results
from madbal_ray.report.run_result import RunResult
from madbal_ray.report.statistics import ENOUGH_SEEDS

FLAT = 0.005
"""Gain of a round, in mIoU, below which more labels of the same kind are hardly worth a click."""

MANY_VOID = 0.05
"""Share of void answers above which it is worth asking where they lie."""

WEAK = 0.05
"""IoU below which a class counts as hardly recognised."""

NEARLY_FULL = 0.95
"""Share of full supervision beyond which little is left to gain."""


@dataclass(frozen=True)
class Advice:
    """What was seen, and what to do about it."""

    finding: str
    action: str


def advice(results: Results, split: str) -> list[Advice]:
    """Return what to do next, the most urgent first; empty where nothing stands out."""
    runs = [run for run in results.runs if not run.is_reference]
    if not runs:
        return []
    return [
        *_unseen_classes(runs),
        *_hardly_recognized(results, split),
        *_void_clicks(runs),
        *_narrow_budget(runs),
        *_curve(results, split),
        *_seeds(results),
    ]


def _unseen_classes(runs: Sequence[RunResult]) -> Iterator[Advice]:
    """Yield the classes that no answer of some run named."""
    for names, members in _grouped((run, _missing(run)) for run in runs):
        yield Advice(
            f"Classes without labels{_of(members, runs)}: {', '.join(names)}.",
            "The network cannot learn what nobody named. Ask more at the start "
            "(budget.initial_pixels_per_image), or check that the masks hold these classes "
            "at all.",
        )


def _hardly_recognized(results: Results, split: str) -> Iterator[Advice]:
    """Yield the classes that were labelled, occur and are not found, with their answers."""
    for names, members in _grouped(
        (run, _weak(results, run.member, split)) for run in results.runs if not run.is_reference
    ):
        yield Advice(
            f"Hardly recognised on {split}{_of(members, results.runs)}: {', '.join(names)}.",
            f"Each has an IoU below {WEAK:g}. See below how often each was asked; rare classes "
            "need more answers, small ones a finer grid.",
        )


def _void_clicks(runs: Sequence[RunResult]) -> Iterator[Advice]:
    clicks = void = 0
    for run in runs:
        last = run.metrics.sort_values("round").iloc[-1]
        if {"num_clicks", "num_void"} <= set(last.index):
            clicks, void = clicks + int(last["num_clicks"]), void + int(last["num_void"])
    if clicks and void / clicks >= MANY_VOID:
        people = any(run.facts.oracle == "people" for run in runs)
        yield Advice(
            f"{100 * void / clicks:.0f} % of clicks were void ({void:,} of {clicks:,}).",
            "Each cost a click and taught nothing. "
            + (
                "Tell annotators which class borders and reflections are of, or add a class."
                if people
                else "See below where they lie; oracle.skip_void: true shows what the strategy "
                "does without them."
            ),
        )


def _narrow_budget(runs: Sequence[RunResult]) -> Iterator[Advice]:
    for (budget, clusters), members in _grouped(
        (run, _budget_and_clusters(run)) for run in runs if len(run.cluster_budgets)
    ):
        yield Advice(
            f"{budget} pixels per image are shared out over {clusters} clusters"
            f"{_of(members, runs)}.",
            "That leaves hardly anything to allocate: most clusters get about one. Take fewer "
            "clusters (clustering.num_clusters), more pixels a round (budget.pixels_per_image), "
            "or the whole pool at once (budget.scope: pool).",
        )


def _curve(results: Results, split: str) -> Iterator[Advice]:
    table = results.summary_table(split)
    full, falling, flat, rising = [], [], [], []
    for row in table.to_dict("records"):
        member = str(row["member"])
        if row["share_of_full"] >= NEARLY_FULL:
            full.append(f"{member} {100 * row['share_of_full']:.0f} %")
            continue
        gains = [
            float(curve["miou"].iloc[-1] - curve["miou"].iloc[-2])
            for curve in results.curves(member, split).values()
            if len(curve) > 1
        ]
        if gains:
            mean = sum(gains) / len(gains)
            kind = falling if mean <= -FLAT else flat if mean < FLAT else rising
            kind.append(f"{member} {100 * mean:+.2f}")
    if full:
        yield Advice(
            f"Close to full supervision: {', '.join(full)}.",
            "That says little where full supervision saw its labels too seldom: train it longer."
            if short_trainings(results)
            else "Little is left to gain from labels: stop, or change network or grid.",
        )
    if falling:
        yield Advice(
            f"The curve falls (last round, mIoU points: {', '.join(falling)}).",
            "The last answers did harm, or the training does not suit so many: look below at what "
            "was asked, and train by passes over the labels (train.phase1.epochs).",
        )
    if flat:
        yield Advice(
            f"The curve is flat (last round, mIoU points: {', '.join(flat)}).",
            "Stop asking, or change what learns from the answers: longer training, a stronger "
            "backbone, a finer grid.",
        )
    if rising:
        yield Advice(
            f"The curve still rises (last round, mIoU points: {', '.join(rising)}).",
            "More rounds pay: start the same command again with a larger num_rounds.",
        )


def _seeds(results: Results) -> Iterator[Advice]:
    counts = [len(results.of(member)) for member in results.members]
    fewest = min(counts, default=ENOUGH_SEEDS)
    if len(counts) > 1 and fewest < ENOUGH_SEEDS:
        yield Advice(
            f"{fewest} seed{'s' * (fewest > 1)} a member {'are' if fewest > 1 else 'is'} too few "
            f"for a test ({ENOUGH_SEEDS} are needed).",
            "Read the intervals; add seeds to the suite where a difference matters.",
        )
    elif fewest == 1:
        yield Advice(
            "One seed tells nothing of chance.",
            "Repeat with another seed (--set seed=1 --run-dir …) before you quote a difference.",
        )


def _missing(run: RunResult) -> tuple[str, ...]:
    if not len(run.asked_classes):
        return ()
    seen = set(run.asked_classes["class_id"])
    return tuple(name for index, name in enumerate(run.class_names) if index not in seen)


def _weak(results: Results, member: str, split: str) -> tuple[str, ...]:
    table = results.class_iou(member, split)
    if table.empty:
        return ()
    missing = {name for run in results.of(member) for name in _missing(run)}
    return tuple(
        str(name) for name, iou in table.iloc[-1].items() if iou < WEAK and name not in missing
    )


def _budget_and_clusters(run: RunResult) -> tuple[int, int] | tuple[()]:
    """Return B and the clusters that share it, where B is less than two a cluster."""
    rows = run.cluster_budgets
    last = rows[rows["round"] == rows["round"].max()]
    budget, clusters = float(last["budget"].sum()), int((last["num_superpixels"] > 0).sum())
    is_narrow = run.facts.scope == "image" and budget < 2 * clusters
    return (round(budget), clusters) if is_narrow else ()


def _grouped(found: Iterable[tuple[RunResult, tuple[Any, ...]]]) -> list[tuple[Any, list[str]]]:
    """Return what was found, with the members that it was found of; nothing found is left out."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for run, what in found:
        if what and run.member not in groups.setdefault(what, []):
            groups[what].append(run.member)
    return list(groups.items())


def _of(members: Sequence[str], runs: Sequence[RunResult]) -> str:
    everybody = {run.member for run in runs if not run.is_reference}
    return "" if set(members) == everybody else f" in {', '.join(members)}"
