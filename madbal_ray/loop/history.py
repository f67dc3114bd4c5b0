"""What the rounds so far left behind: handed from round to round."""

from __future__ import annotations

from dataclasses import dataclass

from madbal_ray.labels.ledger import Ledger
from madbal_ray.models.trained import TrainedPhases
from madbal_ray.pool.prepared import Pool
from madbal_ray.state.stage_dir import StageDir


@dataclass(frozen=True, kw_only=True)
class History:
    """What the rounds so far left behind.

    Attributes:
        labels: stages by round.
        points: stages `point_features` by round, where the head learns from points.
        ledger: what they cost.
        network: of the last round; None before the first.
    """

    ledger: Ledger
    labels: tuple[StageDir, ...] = ()
    points: tuple[StageDir, ...] = ()
    network: TrainedPhases | None = None

    @staticmethod
    def before(pool: Pool) -> History:
        """Return the history of no rounds."""
        return History(ledger=Ledger(num_images=pool.num_images, num_pixels=pool.num_pixels))
