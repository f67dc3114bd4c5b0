"""The declaration of a strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from madbal_ray.config.schema import Supports

Unit = Literal["pixel", "superpixel", "image"]
Selector = Literal["breakdown", "candidates", "random_pixels", "core_set", "top_images"]
Clusters = Literal["features", "random", "one"]
CandidateRule = Literal["top", "random_of_top", "class_balanced"]


@dataclass(frozen=True)
class Strategy:
    """How queries come about.

    Attributes:
        unit: what one query is.
        supports: active-learning parts of the network, trained in phase II.
        pixel_score: name in `madbal_ray.scoring.SCORES`; None: the network is not asked.
        selector: how rows become queries.
            ``breakdown``: table `superpixel_scores`, budgets over clusters (Eq. 5-8);
            ``candidates``: table `pixel_candidates`, drawn in the scorer;
            ``random_pixels``: no table;
            ``core_set``, ``top_images``: table `image_scores`.
        clusters: what superpixels are grouped by, for ``breakdown``.
        candidate_rule: which pixels the scorer draws, for ``candidates``.
        source: where the method comes from.
    """

    name: str
    unit: Unit
    supports: Supports
    pixel_score: str | None
    selector: Selector
    source: str
    clusters: Clusters = "features"
    candidate_rule: CandidateRule = "top"

    @property
    def scores_pool(self) -> bool:
        """Tell whether a round needs a pass of the network over the pool."""
        return self.pixel_score is not None

    @property
    def has_phase2(self) -> bool:
        """Tell whether there is anything for phase II to train."""
        return self.supports != "none"
