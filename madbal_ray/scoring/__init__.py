"""The uncertainty of a pixel, u(x) (paper Eq. 4). Change the score here."""

from madbal_ray.scoring.pixel_scores import (
    PixelScores,
    entropy,
    jensen_shannon_divergence,
    pixel_scores,
)

__all__ = ["PixelScores", "entropy", "jensen_shannon_divergence", "pixel_scores"]
