"""What a report needs to know of one run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd


@dataclass(frozen=True)
class RunFacts:
    """What a run was, for people.

    Attributes:
        data: data set, where it lies, its splits.
        command: as it was typed; empty: not recorded.
        started, ended: seconds since 1970, UTC; None: not recorded.
        scope: of the budget, ``image`` or ``pool``.
        oracle: name of what answered.
        passes: how often phase I saw each label of the last round; None: its steps grow with them.
    """

    strategy: str = ""
    data: str = ""
    command: str = ""
    started: float | None = None
    ended: float | None = None
    scope: str = "image"
    oracle: str = "simulated"
    passes: float | None = None


@dataclass(frozen=True)
class RunResult:
    """What a report needs to know of one run.

    Attributes:
        member: name of what is compared; its seeds are averaged.
        is_reference: fully supervised; no curve of its own.
        metrics: one row per round and split, as `Run.metrics` returns.
        class_names, colors: of the data set, by class id; RGB, 0..255.
        asked_classes: round, class_id (-1: void), count of answers.
        asked_clusters: round, cluster_id, count of queries.
        cluster_budgets: table `cluster_budgets` of all rounds, budgets as pixels per image (a
            mean in scope pool); empty without breakdown.
        point_metrics: as `Run.point_metrics` returns it; empty where masks are measured on.
        minutes: round -> minutes that people had spent on answers by then; empty where unknown.
        timings: table `timings`.
        protocol: lines of `describe_protocol`.
        versions: package -> version, as recorded when the run was started.
        facts: what the run was, for people.
    """

    member: str
    seed: int
    folder: str
    is_reference: bool
    metrics: pd.DataFrame
    class_names: tuple[str, ...] = ()
    colors: tuple[tuple[int, int, int], ...] = ()
    asked_classes: pd.DataFrame = field(default_factory=pd.DataFrame)
    asked_clusters: pd.DataFrame = field(default_factory=pd.DataFrame)
    cluster_budgets: pd.DataFrame = field(default_factory=pd.DataFrame)
    point_metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    minutes: Mapping[int, float] = field(default_factory=dict)
    timings: pd.DataFrame = field(default_factory=pd.DataFrame)
    protocol: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    facts: RunFacts = field(default_factory=RunFacts)
    _curves: dict[str, pd.DataFrame] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def shares_out(self) -> bool:
        """Tell whether a budget was shared out over several clusters."""
        rows = self.cluster_budgets
        return bool(len(rows)) and rows["cluster_id"].nunique() > 1

    def curve(self, split: str) -> pd.DataFrame:
        """Return round, clicks_per_image, minutes (NaN: unknown) and miou on one split.

        Rounds without a mIoU (nothing with a class was measured on) are left out; of rounds that
        asked for nothing more than the one before, the last counts.

        One table for all who ask (thousands of times in the report of a suite): not to be changed.
        """
        if split not in self._curves:
            rows = self.metrics[self.metrics["split"] == split].sort_values("round")
            minutes = [self.minutes.get(index, math.nan) for index in rows["round"]]
            rows = rows.assign(minutes=minutes)[["round", "clicks_per_image", "minutes", "miou"]]
            rows = rows.dropna(subset="miou").drop_duplicates("clicks_per_image", keep="last")
            self._curves[split] = rows.reset_index(drop=True)
        return self._curves[split]


def counted_curves(runs: Iterable[RunResult], split: str) -> dict[int, pd.DataFrame]:
    """Return seed -> curve of the runs of one member that count where members are compared.

    Those that came as far as the others, and of those that went on as far as the others did.
    """
    curves = {run.seed: run.curve(split) for run in runs}
    length = usual_length([len(curve) for curve in curves.values()])
    return {seed: curve[:length] for seed, curve in curves.items() if 0 < length <= len(curve)}


def usual_length(lengths: Sequence[int]) -> int:
    """Return how many points the curves of a member have: the most frequent number of them.

    One point is round 0 alone: a suite trains it for all seeds before it finishes any, so it
    counts only where nobody has more. Of numbers as frequent the largest.

    >>> usual_length([6, 6, 3]), usual_length([6, 3]), usual_length([1, 1, 1, 6]), usual_length([])
    (6, 6, 6, 0)
    """
    counts = Counter(length for length in lengths if length > 1) or Counter(lengths)
    return max(counts, key=lambda length: (counts[length], length), default=0)
