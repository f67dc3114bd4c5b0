"""Strategies that rank the superpixels of an image and ask for their most doubtful pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from madbal_ray.config.asking import BudgetConfig
from madbal_ray.config.schema import Config
from madbal_ray.config.section import Section
from madbal_ray.selection.asking import Asking, label_digests
from madbal_ray.selection.breakdown_jobs import AllocateBudgets
from madbal_ray.selection.chosen_job import QueryChosen
from madbal_ray.selection.diverse_job import QueryDiverse
from madbal_ray.state.stage_dir import StageDir, digests
from madbal_ray.strategies.strategy import Strategy


class DiverseOptions(Section):
    """Options of ``diverse_uncertain``."""

    candidates: Annotated[int, Field(ge=1)] = Field(
        default=50, description="superpixels of an image that herding leaves to choose from"
    )


@dataclass(frozen=True, kw_only=True)
class DiverseUncertain(Strategy):
    """Superpixels that stand for the image's looks; of those, the most doubtful pixels.

    Attributes:
        goes_on: superpixels that were asked stand for looks, too, and are not chosen again.
    """

    goes_on: bool = False

    rows: ClassVar = "superpixels"
    read_options: ClassVar = ("pixel_share",)
    options_model: ClassVar = DiverseOptions

    def run(self, asking: Asking) -> StageDir:
        """Return the queries, image by image."""
        config, features = asking.config, asking.pool.superpixel_features
        assert features is not None
        options = DiverseOptions.model_validate(config.strategy.options)
        labels = asking.labels if self.goes_on else ()
        output = asking.stages.plan(
            "select",
            {"candidates": options.candidates},
            digests(asking.scored, features) | label_digests(labels),
        )
        asking.stages.map(
            QueryDiverse(
                output=output,
                score=asking.scored,
                features=features,
                labels=labels,
                candidates=options.candidates,
                per_image=config.budget.pixels_per_image,
                round_index=asking.round_index,
            )
        )
        asking.report_missing(output, config.budget.total(asking.pool.num_images), self.unit)
        return output


class RarityOptions(Section):
    """Options of ``bvsb_power``."""

    rarity: Annotated[float, Field(ge=0)] = Field(
        default=12.0, description="gamma of (1 + gamma p_c)^-2; 12 was best on VOC"
    )


@dataclass(frozen=True)
class ByRarity:
    """Ranks superpixels by their mean score, the rarer their class in the pool the higher.

    Attributes:
        factor: float64 [C], what the scores of superpixels of a class are multiplied by.
    """

    factor: np.ndarray

    def __call__(
        self,
        rows: pa.Table,
        *,
        count: int,
        options: Mapping[str, Any],
        generator: np.random.Generator,
    ) -> Sequence[int]:
        """Return the `count` highest rows; ties go to the lower superpixel."""
        mean, dominant = rows["mean_score"].to_numpy(), rows["dominant_class"].to_numpy()
        return np.argsort(-mean * self.factor[dominant], kind="stable")[:count].tolist()


@dataclass(frozen=True, kw_only=True)
class BestVersusSecondByRarity(Strategy):
    """Superpixels where the second class comes close to the first, rare classes first."""

    rows: ClassVar = "superpixels"
    read_options: ClassVar = ("pixel_share",)
    options_model: ClassVar = RarityOptions

    def num_clusters(self, config: Config) -> int:
        """Return 1: shares of classes are those of the whole pool."""
        return 1

    def run(self, asking: Asking) -> StageDir:
        """Return the queries, image by image, after the pool's classes were counted."""
        config, stages = asking.config, asking.stages
        options = RarityOptions.model_validate(config.strategy.options)
        shares = stages.plan("allocate", {}, digests(asking.scored))
        stages.call(
            AllocateBudgets(
                output=shares,
                score=asking.scored,
                round_index=asking.round_index,
                num_clusters=1,
                num_classes=asking.pool.num_classes,
                total=config.budget.pixels_per_image,
                config=BudgetConfig(),
                options=config.strategy,
            )
        )
        (share,) = shares.read_table("cluster_budgets")["class_share"].to_pylist()
        settings = {"rarity": options.rarity, "seed": config.seed}
        output = stages.plan("select", settings, digests(asking.scored, shares))
        stages.map(
            QueryChosen(
                output=output,
                score=asking.scored,
                choose=ByRarity((1.0 + options.rarity * np.array(share)) ** -2),
                rows="superpixels",
                unit=self.unit,
                options={},
                per_image=config.budget.pixels_per_image,
                round_index=asking.round_index,
                seed=config.seed,
            )
        )
        asking.report_missing(output, config.budget.total(asking.pool.num_images), self.unit)
        return output


DIVERSE_UNCERTAIN = DiverseUncertain(
    name="diverse_uncertain",
    source="two-stage selection (arXiv 2510.22229), its structure alone: no diffusion features",
    pixel_score="margin",
)
HERDED_MARGIN = DiverseUncertain(
    name="herded_margin",
    source="ours: diverse_uncertain, whose herding goes on from what was asked",
    pixel_score="margin",
    goes_on=True,
)
BVSB_POWER = BestVersusSecondByRarity(
    name="bvsb_power",
    source="MulActSeg (Hwang et al. 2023), with the superpixel's class for the pixel's, and its "
    "share of superpixels for the mean softmax",
    pixel_score="best_versus_second_best",
)
