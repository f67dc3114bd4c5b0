"""Strategies that ask for whole images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from madbal_ray.config.schema import Config
from madbal_ray.config.section import Section
from madbal_ray.selection.asking import Asking, label_digests
from madbal_ray.selection.whole_images import ImageRule, SelectImages
from madbal_ray.state.stage_dir import StageDir, digests
from madbal_ray.strategies.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class WholeImages(Strategy):
    """A few images a round, chosen over the whole pool."""

    rule: ImageRule
    rows: ClassVar = "images"
    unit: ClassVar = "image"

    def run(self, asking: Asking) -> StageDir:
        """Return `budget.images_per_round` images."""
        count = asking.config.budget.images_per_round
        output = asking.stages.plan(
            "select",
            {"rule": self.rule, "count": count},
            digests(asking.scored) | label_digests(asking.labels),
        )
        asking.stages.call(
            SelectImages(
                output=output,
                score=asking.scored,
                labels=asking.labels,
                shard_ids=asking.pool.shard_ids,
                round_index=asking.round_index,
                rule=self.rule,
                count=count,
            )
        )
        asking.report_missing(output, count, self.unit)
        return output


class UnfamiliarOptions(Section):
    """Options of ``vaal``."""

    steps: Annotated[int, Field(ge=1)] = Field(
        default=300, description="training steps of the autoencoder and its judge, every round"
    )


class UnfamiliarImages(WholeImages):
    """The images that look least like those that are labelled; the network is not asked."""

    rows: ClassVar = None
    options_model: ClassVar = UnfamiliarOptions

    def comparing_steps(self, config: Config) -> int | None:
        """Return the option."""
        return UnfamiliarOptions.model_validate(config.strategy.options).steps


CORE_SET = WholeImages(
    name="core_set", source="Sener and Savarese 2018", pixel_score="entropy", rule="core_set"
)
IMAGE_ENTROPY = WholeImages(
    name="image_entropy", source="baseline", pixel_score="entropy", rule="top"
)
DEAL = WholeImages(
    name="deal",
    source="DEAL (Xie et al. 2020), its difficulty-aware uncertainty, with our loss prediction "
    "module in place of its difficulty branch",
    supports="no_maturity",
    pixel_score="difficulty_entropy",
    rule="top",
)
VAAL = UnfamiliarImages(
    name="vaal",
    source="VAAL (Sinha et al. 2019), its autoencoder and discriminator, on thumbnails",
    rule="top",
)
