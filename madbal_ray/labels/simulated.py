"""The simulated oracle: answers read off the ground truth, with an annotator's mistakes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer

from madbal_ray.arrays import IGNORE_INDEX, Mask

BOUNDARY_RADIUS = 2
"""An answer lies on a boundary when another class is within 5 x 5 pixels."""


@dataclass(frozen=True)
class AnnotatorNoise:
    """How often and in which way an annotator errs.

    Attributes:
        share: of answers that are wrong, away from boundaries.
        boundary_share: of answers that are wrong next to another class.
        confusion: [C, C] weights; row c is what class c is mistaken for. The diagonal is
            not used; a row without other weight makes no mistakes.
    """

    share: float
    boundary_share: float
    confusion: Float64[np.ndarray, "C C"]

    @staticmethod
    def uniform(num_classes: int, share: float, boundary_share: float) -> AnnotatorNoise:
        """Return noise that mistakes a class for every other one alike."""
        return AnnotatorNoise(share, boundary_share, np.ones((num_classes, num_classes)))


def answer_pixels(
    *, mask: Mask, y: Integer[np.ndarray, "Q"], x: Integer[np.ndarray, "Q"]
) -> tuple[Int64[np.ndarray, "Q"], Bool[np.ndarray, "Q"]]:
    """Return the class ids at pixels of a mask, and which of them are void.

    Args:
        mask: class ids on the grid of `y`, `x`; void is `IGNORE_INDEX`.

    Returns:
        class_id (meaningless where void) and is_void.
    """
    class_id = mask[y, x].astype(np.int64)
    return class_id, class_id == IGNORE_INDEX


def answer_region(*, mask: Mask, inside: Bool[np.ndarray, "H W"]) -> int:
    """Return the most frequent true class of a region (ties: lower id), or `IGNORE_INDEX`.

    Void pixels do not vote; a region of void pixels is void.

    Source: Cai et al. 2021, dominant labelling.
    """
    votes = np.bincount(mask[inside], minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    return int(votes.argmax()) if votes.any() else IGNORE_INDEX


def on_boundary(
    *, mask: Mask, y: Integer[np.ndarray, "Q"], x: Integer[np.ndarray, "Q"]
) -> Bool[np.ndarray, "Q"]:
    """Tell which pixels have another true class within 5 x 5 pixels; void does not count."""
    height, width = mask.shape
    offsets = np.arange(-BOUNDARY_RADIUS, BOUNDARY_RADIUS + 1)
    rows = np.clip(y[:, None, None] + offsets[None, :, None], 0, height - 1)
    columns = np.clip(x[:, None, None] + offsets[None, None, :], 0, width - 1)
    around = mask[rows, columns]
    own = mask[y, x][:, None, None]
    return ((around != own) & (around != IGNORE_INDEX)).any(axis=(1, 2))


def make_mistakes(
    *,
    class_id: Int64[np.ndarray, "Q"],
    is_void: Bool[np.ndarray, "Q"],
    is_boundary: Bool[np.ndarray, "Q"],
    noise: AnnotatorNoise,
    generator: np.random.Generator,
) -> Int64[np.ndarray, "Q"]:
    """Return the answers of an annotator who errs; void is always seen.

    The same number of random values is drawn whatever the shares, so that two runs that
    differ in noise err on nested sets of pixels.
    """
    chance, choice = generator.random((2, len(class_id)))
    wrong = ~is_void & (chance < np.where(is_boundary, noise.boundary_share, noise.share))
    weights = noise.confusion.copy()
    np.fill_diagonal(weights, 0.0)
    total = weights.sum(axis=1)
    cumulative = np.cumsum(weights, axis=1)
    answers = class_id.copy()
    for index in np.flatnonzero(wrong):
        true = class_id[index]
        if total[true] > 0:
            answers[index] = np.searchsorted(
                cumulative[true], choice[index] * total[true], side="right"
            )
    return answers
