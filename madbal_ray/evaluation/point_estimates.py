"""Accuracy and IoU estimated from points, with intervals: measuring where there are no masks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from madbal_ray.evaluation.metrics import summarize_confusion

LEVEL = 0.95
RESAMPLES = 2000
NORMAL = 1.959963984540054
"""Standard normal quantile of `LEVEL`, two-sided."""


@dataclass(frozen=True)
class Estimate:
    """A share, 0..1, and its 95 % interval.

    NaN where the points say nothing. The interval alone is NaN where all images say the same, as
    they do when every point is right: how much they differ is what an interval comes from.
    """

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Return the larger distance from the value to an end."""
        return max(self.value - self.low, self.high - self.value)


@dataclass(frozen=True)
class PointEstimates:
    """What points say about a network.

    Attributes:
        confusion: [C, C] points by true and predicted class.
        class_iou: of each class; NaN for classes that no point is of or is predicted as.
    """

    confusion: Int64[np.ndarray, "C C"]
    pixel_accuracy: Estimate
    miou: Estimate
    class_iou: tuple[Estimate, ...]


def estimate_from_points(
    image: Int64[np.ndarray, "P"],
    truth: Int64[np.ndarray, "P"],
    predicted: Int64[np.ndarray, "P"],
    *,
    num_classes: int,
    generator: np.random.Generator,
) -> PointEstimates:
    """Estimate pixel accuracy, mIoU and IoU by class from points drawn evenly over all pixels.

    The intervals come from `RESAMPLES` bootstrap samples of images, each with all of its points:
    points of one image are alike. A mean over classes that few points know is biased by the
    sample, and a resample of it is biased once more, by about as much; so the ends of the interval
    are moved back by twice what the mean of the resamples differs from the value.

    Args:
        image: of each point, any number; void points are left out.
        truth, predicted: class ids.

    Returns:
        Without any point NaN throughout.

    Source: Efron and Tibshirani 1993, chapters 10 and 13.
    """
    cells = np.bincount(truth * num_classes + predicted, minlength=num_classes**2)
    total = cells.reshape(num_classes, num_classes)
    measured = summarize_confusion(total)
    known_images, index = np.unique(image, return_inverse=True)
    images = len(known_images)
    if not images:
        unknown = Estimate(math.nan, math.nan, math.nan)
        return PointEstimates(total, unknown, unknown, (unknown,) * num_classes)
    times = generator.multinomial(images, np.full(images, 1 / images), size=RESAMPLES)

    def drawn(of_class: np.ndarray, kept: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return how many points of each class every resample holds, [B, C]."""
        places = index[kept] * num_classes + of_class[kept]
        counts = np.bincount(places, minlength=images * num_classes)
        return times @ counts.reshape(images, num_classes).astype(np.float64)

    of_truth, hit = drawn(truth), drawn(truth, truth == predicted)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = hit / (of_truth + drawn(predicted) - hit)
        accuracy = hit.sum(axis=1) / of_truth.sum(axis=1)
    # A class that a resample misses keeps the whole sample's IoU: it would else leave the mean.
    filled = np.where(np.isnan(iou), measured.class_iou, iou)
    known = ~np.isnan(measured.class_iou)
    return PointEstimates(
        confusion=total,
        pixel_accuracy=_interval(measured.pixel_accuracy, accuracy),
        miou=_interval(measured.miou, filled[:, known].mean(axis=1)),
        class_iou=tuple(
            _interval(float(value), iou[:, class_id])
            for class_id, value in enumerate(measured.class_iou)
        ),
    )


def points_needed(half_width: float, *, share: float = 0.5) -> int:
    """Return the points that put an interval of +- `half_width` around a pixel accuracy.

    Args:
        half_width: 0.02 for two percent points.
        share: the accuracy expected; one half needs the most.

    >>> points_needed(0.02), points_needed(0.02, share=0.8)
    (2401, 1537)
    """
    return math.ceil(round(NORMAL**2 * share * (1 - share) / half_width**2, 6))


def points_for(estimate: Estimate, num_points: int, half_width: float) -> int | None:
    """Return about how many points would narrow an estimate to +- `half_width`.

    An interval shrinks with the root of the points; None where there is no interval.
    """
    if math.isnan(estimate.half_width):
        return None
    return math.ceil(num_points * (estimate.half_width / half_width) ** 2)


def _interval(value: float, resampled: Float64[np.ndarray, "B"]) -> Estimate:
    known = resampled[~np.isnan(resampled)]
    if math.isnan(value) or not len(known) or known.min() == known.max():
        return Estimate(value, math.nan, math.nan)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(known, [tail, 100 - tail])
    shift = 2 * (float(known.mean()) - value)
    low, high = min(float(low) - shift, value), max(float(high) - shift, value)
    return Estimate(value, max(0.0, low), min(1.0, high))
