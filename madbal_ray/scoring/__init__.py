"""The uncertainty of a pixel, u(x) (paper Eq. 4). Change the score here."""

from madbal_ray.scoring.pixel_scores import (
    PixelScores,
    entropy,
    jensen_shannon_divergence,
    pixel_scores,
)
from madbal_ray.scoring.registry import SCORES, ScoreOptions, Views

__all__ = [
    "SCORES",
    "PixelScores",
    "ScoreOptions",
    "Views",
    "entropy",
    "jensen_shannon_divergence",
    "pixel_scores",
]
