"""What a report needs to know of one run."""

from __future__ import annotations

import math
from collections.abc import Mapping
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

        One table for all who ask (thousands of times in the report of a suite): not to be changed.
        """
        if split not in self._curves:
            rows = self.metrics[self.metrics["split"] == split].sort_values("round")
            minutes = [self.minutes.get(index, math.nan) for index in rows["round"]]
            rows = rows.assign(minutes=minutes)[["round", "clicks_per_image", "minutes", "miou"]]
            self._curves[split] = rows.reset_index(drop=True)
        return self._curves[split]
