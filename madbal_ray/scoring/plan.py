"""What the scorer computes of an image and keeps; declared by a strategy, needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from madbal_ray.config.asking import StrategyConfig

Rows = Literal["superpixels", "candidates", "images"]
CandidateRule = Literal["top", "random_of_top", "class_balanced"]


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
