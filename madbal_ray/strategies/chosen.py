"""The shortest way to a strategy of one's own: say which rows of an image are chosen."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from madbal_ray.scoring.plan import Rows
from madbal_ray.selection.asking import Asking
from madbal_ray.selection.chosen_job import QueryChosen
from madbal_ray.state.stage_dir import StageDir, digests
from madbal_ray.strategies.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class ChosenRows(Strategy):
    """Image by image, the rows that `choose` returns; subclass it and write that.

    Attributes:
        rows: ``superpixels`` (table `superpixel_scores`: each is asked at its best unasked
            pixel) or ``candidates`` (table `pixel_candidates`: the B most uncertain pixels).
    """

    rows: ClassVar[Rows | None] = "superpixels"

    @abc.abstractmethod
    def choose(
        self,
        rows: pa.Table,
        *,
        count: int,
        options: Mapping[str, Any],
        generator: np.random.Generator,
    ) -> Sequence[int]:
        """Return up to `count` different positions in `rows`, in the order of choice.

        Args:
            rows: of one image, in order of superpixel_id or rank; what was asked is left out.
            options: `strategy.options`, as `options_model` has checked them.
            generator: of this image and round; the only source of chance.
        """

    def run(self, asking: Asking) -> StageDir:
        """Return the chosen rows as queries."""
        config = asking.config
        assert self.rows is not None
        settings = {"strategy": config.strategy.result_settings(), "seed": config.seed}
        queries = asking.stages.plan("select", settings, digests(asking.scored))
        asking.stages.map(
            QueryChosen(
                output=queries,
                score=asking.scored,
                choose=self.choose,
                rows=self.rows,
                unit=self.unit,
                options=config.strategy.options,
                per_image=config.budget.pixels_per_image,
                round_index=asking.round_index,
                seed=config.seed,
            )
        )
        asking.report_missing(queries, config.budget.total(asking.pool.num_images), self.unit)
        return queries
