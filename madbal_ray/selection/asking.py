"""One round's selection as a strategy sees it: what it reads, and where its stages go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from madbal_ray.config.schema import Config
from madbal_ray.engine.contract import ShardJob, TableJob
from madbal_ray.pool.prepared import Pool
from madbal_ray.state.stage_dir import StageDir, total_of


@runtime_checkable
class Stages(Protocol):
    """Completes the stages of a selection, or computes them again (`madbal verify`)."""

    def plan(self, name: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> StageDir:
        """Return the folder of a stage; settings and inputs are what its result depends on."""
        ...

    def map(self, job: ShardJob, shard_ids: Sequence[int] | None = None, /) -> None:
        """Complete a stage over some shards of the pool; None: all of them."""
        ...

    def call(self, job: TableJob, /) -> None:
        """Complete a stage that one process does as a whole."""
        ...

    def say(self, text: str, /) -> None:
        """Tell people one line."""
        ...


@dataclass(frozen=True, kw_only=True)
class Asking:
    """What a strategy works with in one round.

    Attributes:
        labels: stages of the rounds before; what they cover is not asked again.
        score: what the network left of the pool; None: it was not asked.
        stages: where the strategy's own stages go.
    """

    config: Config
    pool: Pool
    round_index: int
    labels: tuple[StageDir, ...]
    score: StageDir | None
    stages: Stages

    @property
    def scored(self) -> StageDir:
        """Return the stage `score` of a strategy that has a pixel score."""
        assert self.score is not None
        return self.score

    def report_missing(self, queries: StageDir, budget: int, unit: str) -> None:
        """Tell people when the pool gave fewer queries than the round's budget over the pool."""
        missing = budget - total_of(queries, "asked")
        if missing:
            why = "some images have none left to ask for"
            if not self.round_index:
                why = "the pool offers no more; lower budget.initial_pixels_per_image"
            elif self.config.budget.max_per_image:
                why = "the pool offers no more; raise budget.max_per_image"
            elif self.config.budget.total_pixels:
                why = "the pool offers no more; raise budget.pixels_per_image"
            elif self.config.budget.scope == "pool" and unit == "pixel":
                why = (
                    "an image offers no more pixels of a superpixel than its own share needs; set "
                    "budget.total_pixels and a larger budget.pixels_per_image"
                )
            self.stages.say(
                f"round {self.round_index}: {missing} {unit}s fewer than the budget, since {why}"
            )

    def report_further_pixels(self, cuts: pa.Table) -> None:
        """Tell people when some superpixels of the pool are asked twice, and why not all can be.

        How many superpixels other images have is not known where an image is scored, so each
        offers as many pixels of a superpixel as its own `budget.pixels_per_image` needs.

        Args:
            cuts: table `pool_cuts`.
        """
        further = int(cuts["take"].to_numpy()[cuts["lap"].to_numpy() > 0].sum())
        budget = self.config.budget
        if further and budget.max_per_image is None:
            self.stages.say(
                f"round {self.round_index}: {further} queries are further pixels of superpixels "
                f"that gave one, of images with fewer than {budget.pixels_per_image} open "
                "superpixels; other images offered one pixel of each. For second pixels of all: "
                f"budget.total_pixels = {budget.total(self.pool.num_images)} and a larger "
                "budget.pixels_per_image"
            )


def label_digests(labels: tuple[StageDir, ...]) -> dict[str, str]:
    """Return what a stage that reads the labels of several rounds puts into its key."""
    return {f"labels_{round_index:03d}": stage.digest() for round_index, stage in enumerate(labels)}
