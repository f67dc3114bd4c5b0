"""What the scorer computes of an image and keeps; declared by a strategy, needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from madbal_ray.config.asking import StrategyConfig
from madbal_ray.config.section import Section

Rows = Literal["superpixels", "candidates", "images"]
CandidateRule = Literal["top", "random_of_top", "class_balanced", "power"]


class PowerOptions(Section):
    """Options of a draw with chances that grow with the score."""

    power: Annotated[float, Field(ge=0)] = Field(
        default=4.0, description="beta: chances are score^beta; 0: all pixels alike"
    )
    exclusion_radius: Annotated[int, Field(ge=0)] = Field(
        default=8,
        description="pixels of the working grid; no two queries of a round lie in one square of "
        "this half side, unless an image has no other pixel",
    )


@dataclass(frozen=True)
class ScoringPlan:
    """What to compute of an image.

    Attributes:
        pixel_score: name in `madbal_ray.seams.SCORES`.
        rows: which rows come out.
        budget: B; decides how many pixels of a superpixel or image are kept.
        asks_regions: a superpixel is asked as a whole, so one pixel of it is enough.
        options: of the strategy.
        seed, round_index: key of the random streams.
    """

    pixel_score: str
    rows: Rows
    candidate_rule: CandidateRule
    num_classes: int
    budget: int
    asks_regions: bool
    options: StrategyConfig
    seed: int
    round_index: int
