"""Strategies that ask for whole images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

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
        return output


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
