"""What the scorer computes of an image and keeps; declared by a strategy, needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from madbal_ray.config.asking import StrategyConfig
from madbal_ray.config.section import Section

Rows = Literal["superpixels", "candidates", "images"]
CandidateRule = Literal["top", "random_of_top", "class_balanced", "power", "class_power"]


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


class ClassPowerOptions(Section):
    """Options of ``class_power``: a share for the classes in turn, noise that fades."""

    class_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.66, description="of an image's budget, shared equally by the classes"
    )
    first_power: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="beta of round 1; the noise is Gumbel(0, 1 / beta)"
    )
    last_power: Annotated[float, Field(gt=0)] = Field(
        default=100.0, description="beta from `ramp_rounds` on"
    )
    ramp_rounds: Annotated[int, Field(ge=2)] = Field(
        default=5, description="the round in which beta, growing geometrically, reaches last_power"
    )
    pixel_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.25,
        description="a random pixel among this share of the chosen superpixel's most uncertain",
    )

    def power(self, round_index: int) -> float:
        """Return beta of a round: not of `num_rounds`, which may grow."""
        done = min(max(round_index - 1, 0) / (self.ramp_rounds - 1), 1.0)
        return self.first_power * (self.last_power / self.first_power) ** done


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
