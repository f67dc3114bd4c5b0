"""What a strategy is: one class that declares what it needs and says how queries come about."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from madbal_ray.config.asking import StrategyConfig
from madbal_ray.config.schema import Config
from madbal_ray.config.training import Supports
from madbal_ray.errors import ConfigError
from madbal_ray.scoring.plan import CandidateRule, Rows, ScoringPlan
from madbal_ray.seams import STRATEGIES
from madbal_ray.selection.asking import Asking
from madbal_ray.selection.query_rows import Unit
from madbal_ray.state.stage_dir import StageDir

ALWAYS_READ = ("name", "options")
"""Fields of `StrategyConfig` that are no option of one strategy."""

NO_DROPOUT = ("lraspp", "hypercolumn")
"""Heads whose one dropout is `model.dropout`."""


@dataclass(frozen=True, kw_only=True)
class Strategy(abc.ABC):
    """How the queries of a round come about; register one with `STRATEGIES.add`.

    Attributes:
        source: where the method comes from.
        supports: active-learning parts of the network, trained in phase II.
        pixel_score: name in `madbal_ray.seams.SCORES`; None: the network is not asked.
        unit: what one query is.
        rows: what the scorer keeps of an image; None with `pixel_score` None.
        read_options: fields of `StrategyConfig` that have an effect; setting another is refused.
        scopes: values of `budget.scope` that it can follow.
        options_model: pydantic model of `strategy.options`, for a plug-in's own; None: none.
    """

    name: str
    source: str
    supports: Supports = "none"
    pixel_score: str | None = None
    unit: ClassVar[Unit] = "pixel"
    rows: ClassVar[Rows | None] = None
    read_options: ClassVar[tuple[str, ...]] = ()
    scopes: ClassVar[tuple[str, ...]] = ("image",)
    options_model: ClassVar[Any] = None

    @property
    def scores_pool(self) -> bool:
        """Tell whether a round needs a pass of the network over the pool."""
        return self.pixel_score is not None

    @property
    def has_phase2(self) -> bool:
        """Tell whether there is anything for phase II to train."""
        return self.supports != "none"

    def num_clusters(self, config: Config) -> int:
        """Return K of the statistics that the scorer keeps."""
        return config.clustering.num_clusters

    def problems(self, config: Config) -> Iterator[str]:
        """Yield what is wrong with the options, a line each."""
        for option, field in StrategyConfig.model_fields.items():
            is_changed = getattr(config.strategy, option) != field.get_default(
                call_default_factory=True
            )
            if is_changed and option not in (*ALWAYS_READ, *self.read_options):
                yield (
                    f"strategy.{option} is not read by {self.name}; it is for "
                    f"{', '.join(strategies_with(option)) or 'no strategy'}"
                )
        if config.budget.scope not in self.scopes:
            able = (name for name in STRATEGIES if config.budget.scope in STRATEGIES[name].scopes)
            yield (
                f"budget.scope = {config.budget.scope} is for {', '.join(able)}, not for "
                f"{self.name}, which asks image by image"
            )
        yield from self._own_options(config.strategy)

    def comparing_steps(self, config: Config) -> int | None:
        """Return how long to learn what labelled images look like; None: it is not asked.

        Else every image's score is how little it looks like them (stage `familiarity`).
        """
        return None

    def remarks(self, config: Config) -> Iterator[str]:
        """Yield what may go together and hardly does what is wanted, a line each."""
        yield from ()

    def _own_options(self, config: StrategyConfig) -> Iterator[str]:
        if self.options_model is None:
            if config.options:
                yield f"strategy.options: {self.name} has none; given: {', '.join(config.options)}"
            return
        try:
            self.options_model.model_validate(config.options)
        except ValueError as error:
            yield f"strategy.options of {self.name}: {error}"

    def plan(self, config: Config, *, num_classes: int, round_index: int) -> ScoringPlan:
        """Return what the scorer computes of an image and keeps."""
        assert self.pixel_score is not None
        assert self.rows is not None
        return ScoringPlan(
            pixel_score=self.pixel_score,
            rows=self.rows,
            candidate_rule=self.candidate_rule(config.strategy),
            num_classes=num_classes,
            budget=config.budget.most_per_image,
            asks_regions=self.unit == "superpixel",
            options=config.strategy,
            seed=config.seed,
            round_index=round_index,
        )

    def candidate_rule(self, options: StrategyConfig) -> CandidateRule:
        """Return which pixels the scorer draws, for rows ``candidates``."""
        return "top"

    def group(self, asking: Asking) -> StageDir:
        """Return the clusters that superpixels are scored under."""
        return asking.pool.clusters

    @abc.abstractmethod
    def run(self, asking: Asking) -> StageDir:
        """Return stage `select` with the queries of a round.

        What it completes through `asking.stages` is computed again and compared by
        `madbal verify`, so the same inputs must give the same rows.
        """


def resolve(config: StrategyConfig) -> Strategy:
    """Return the strategy that a configuration names.

    Raises:
        ConfigError: no such strategy, or what stands under the name is none.
    """
    strategy = STRATEGIES[config.name]
    if not isinstance(strategy, Strategy):
        raise ConfigError(
            f"strategy {config.name!r} is {strategy!r}; expected an instance of "
            "madbal_ray.strategies.strategy.Strategy"
        )
    return strategy


def dropout_problems(name: str, config: Config) -> Iterator[str]:
    """Yield what is wrong for a strategy of several dropout passes: a network without dropout."""
    if not config.model.dropout and config.model.head in NO_DROPOUT:
        yield f"strategy {name} needs dropout: set model.dropout (0.5 is usual)"


def strategies_with(option: str) -> Sequence[str]:
    """Return the names of the strategies that read an option."""
    return [name for name in STRATEGIES if option in STRATEGIES[name].read_options]
