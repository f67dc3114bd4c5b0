"""Strategies that score single pixels and draw from them where the scores are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from madbal_ray.config.asking import StrategyConfig
from madbal_ray.config.schema import Config
from madbal_ray.scoring.plan import CandidateRule, ClassPowerOptions, PowerOptions
from madbal_ray.selection.asking import Asking
from madbal_ray.selection.candidates_job import QueryCandidates
from madbal_ray.state.stage_dir import StageDir, digests
from madbal_ray.strategies.madbal import ABLATION, SCORE_OPTIONS
from madbal_ray.strategies.strategy import Strategy, dropout_problems


@dataclass(frozen=True, kw_only=True)
class Candidates(Strategy):
    """The most uncertain pixels of each image, or some among a share of them."""

    rows: ClassVar = "candidates"
    read_options: ClassVar = ("top_share",)

    def candidate_rule(self, options: StrategyConfig) -> CandidateRule:
        """Return ``random_of_top`` where a share is given (PixelPick)."""
        return "top" if options.top_share is None else "random_of_top"

    def run(self, asking: Asking) -> StageDir:
        """Return the pixels that the scorer drew."""
        queries = asking.stages.plan("select", {}, digests(asking.scored))
        asking.stages.map(
            QueryCandidates(output=queries, score=asking.scored, round_index=asking.round_index)
        )
        budget = asking.config.budget.total(asking.pool.num_images)
        asking.report_missing(queries, budget, self.unit)
        return queries


class MadbalCandidates(Candidates):
    """MADBAL's score without its breakdown."""

    read_options: ClassVar = ("top_share", *SCORE_OPTIONS)


class DropoutCandidates(Candidates):
    """Scores of several passes with dropout."""

    read_options: ClassVar = ("top_share", "mc_samples")

    def problems(self, config: Config) -> Iterator[str]:
        """Yield what is wrong with the options; a network without dropout is."""
        yield from super().problems(config)
        yield from dropout_problems(self.name, config)


class ClassAware(Candidates):
    """Random pixels, the predicted classes taking turns."""

    read_options: ClassVar = ()

    def candidate_rule(self, options: StrategyConfig) -> CandidateRule:
        """Return ``class_balanced``."""
        return "class_balanced"


class ClassAwareUncertain(ClassAware):
    """The predicted classes take turns, each with doubtful pixels: among its `top_share`."""

    read_options: ClassVar = ("top_share",)

    def problems(self, config: Config) -> Iterator[str]:
        """Yield what is wrong with the options; without a share it would be random."""
        yield from super().problems(config)
        if config.strategy.top_share is None:
            yield (
                f"strategy {self.name} needs strategy.top_share, the share of each class's most "
                "doubtful pixels that are drawn from: 0.25 is a start; for all of them there is "
                "class_aware_random"
            )


class ClassPower(Candidates):
    """Superpixels by class and by doubt, with noise that fades over the rounds."""

    read_options: ClassVar = ()
    options_model: ClassVar = ClassPowerOptions

    def candidate_rule(self, options: StrategyConfig) -> CandidateRule:
        """Return ``class_power``."""
        return "class_power"


class PowerDraw(Candidates):
    """Pixels at random, the uncertain ones with higher chances, apart from each other."""

    read_options: ClassVar = ()
    options_model: ClassVar = PowerOptions

    def candidate_rule(self, options: StrategyConfig) -> CandidateRule:
        """Return ``power``."""
        return "power"


NO_BREAKDOWN = MadbalCandidates(
    name="no_breakdown", source=ABLATION, supports="full", pixel_score="madbal"
)
CLASS_AWARE_RANDOM = ClassAware(
    name="class_aware_random",
    source="nnActive's class-aware random baseline",
    pixel_score="entropy",
)
ENTROPY = Candidates(name="entropy", source="baseline; PixelPick", pixel_score="entropy")
MARGIN = Candidates(name="margin", source="baseline; PixelPick", pixel_score="margin")
LEAST_CONFIDENCE = Candidates(
    name="least_confidence", source="PixelPick", pixel_score="least_confidence"
)
BALD = DropoutCandidates(name="bald", source="Gal et al. 2017", pixel_score="bald")
BALENT = DropoutCandidates(name="balent", source="Woo 2022", pixel_score="balent")
CLASS_AWARE_MARGIN = ClassAwareUncertain(
    name="class_aware_margin",
    source="class-aware random and PixelPick's top share, together",
    pixel_score="margin",
)
CLASS_POWER = ClassPower(
    name="class_power", source="ClaSP-PE (arXiv 2601.13677), on superpixels", pixel_score="entropy"
)
SELF_CONSISTENCY = Candidates(
    name="self_consistency", source="EquAL (2020)", pixel_score="self_consistency"
)
POWER_MARGIN = PowerDraw(
    name="power_margin", source="Kirsch et al. 2023, on margins", pixel_score="margin"
)
