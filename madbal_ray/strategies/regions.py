"""Strategies of others that ask for whole superpixels; `madbal` has Cai et al.'s."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from madbal_ray.config.schema import Config
from madbal_ray.strategies.chosen import ChosenRows
from madbal_ray.strategies.madbal import SuperpixelBreakdown
from madbal_ray.strategies.strategy import dropout_problems


@dataclass(frozen=True, kw_only=True)
class HighestRegions(ChosenRows):
    """Image by image, the superpixels of the highest mean score."""

    unit: ClassVar = "superpixel"

    def choose(
        self,
        rows: pa.Table,
        *,
        count: int,
        options: Mapping[str, Any],
        generator: np.random.Generator,
    ) -> Sequence[int]:
        """Return the `count` highest; ties go to the lower superpixel."""
        return np.argsort(-rows["mean_score"].to_numpy(), kind="stable")[:count].tolist()


class DropoutRegions(SuperpixelBreakdown):
    """Whole superpixels balanced over the predicted classes, scored by several dropout passes."""

    read_options: ClassVar = ("mc_samples",)

    def problems(self, config: Config) -> Iterator[str]:
        """Yield what is wrong with the options; a network without dropout is."""
        yield from super().problems(config)
        yield from dropout_problems(self.name, config)


CEREALS = HighestRegions(
    name="cereals",
    source="CEREALS (Mackowiak et al. 2018), information over clicks, which are estimated from the "
    "contours of the prediction, not learned",
    pixel_score="information_by_clicks",
)
CPRAL = DropoutRegions(
    name="cpral",
    source="CPRAL (Qiao et al. 2022), its choice of regions: vote entropy under Gaussian "
    "attention, rare classes first; no panoptic matching, no extension of labels",
    pixel_score="attended_votes",
)
