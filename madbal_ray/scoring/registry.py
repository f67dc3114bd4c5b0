"""Pixel scores by name, and the passes of the network each of them needs.

To change MADBAL's score, change `pixel_scores`; to add a score, write a function from
`Views` to `PixelScores`, wrap it in a `ScoreSpec` and name it in `madbal_ray.seams.SCORES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from madbal_ray.scoring.pixel_scores import (
    PixelScores,
    entropy,
    jensen_shannon_divergence,
    pixel_scores,
    predicted_error,
    to_size,
)
from madbal_ray.scoring.region_scores import attended, information_by_clicks, vote_entropy

Passes = Literal["single", "dropout", "flip"]

BLOCK_ROWS = 24
"""Rows that balanced entropy takes at once: its float64 maps then stay in a core's cache."""


@dataclass(frozen=True)
class Views:
    """What the network said of a batch, on its own grids.

    Attributes:
        logits: main head [B, C, h, w].
        head_logits, maturity_weights, error_logits: supports, as in `pixel_scores`.
        more_logits: main head of further passes: dropout samples, or the flipped image
            flipped back.
        is_boundary: delta on the working grid, whose size the scores have.
    """

    logits: Tensor
    is_boundary: Bool[Tensor, "B H W"]
    head_logits: tuple[Tensor, ...] = ()
    maturity_weights: Tensor | None = None
    error_logits: Tensor | None = None
    more_logits: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class ScoreOptions:
    """Options of the MADBAL score (docs/strategies.md).

    Attributes:
        normalize_terms: H / ln C + sum of W JS / ln 2, so that H does not drown JS.
        uncertainty: what stands in the place of H.
    """

    normalize_terms: bool = False
    uncertainty: Literal["entropy", "margin"] = "entropy"


@dataclass(frozen=True)
class ScoreSpec:
    """A pixel score and the passes it needs."""

    function: Callable[[Views, ScoreOptions], PixelScores]
    passes: Passes = "single"
    uses_supports: bool = False


def _madbal(views: Views, options: ScoreOptions) -> PixelScores:
    return pixel_scores(
        logits=views.logits,
        head_logits=views.head_logits,
        maturity_weights=views.maturity_weights,
        error_logits=views.error_logits,
        is_boundary=views.is_boundary,
        normalize_terms=options.normalize_terms,
        uncertainty=options.uncertainty,
    )


def _full_log_probabilities(views: Views) -> Float32[Tensor, "B C H W"]:
    height, width = views.is_boundary.shape[-2:]
    return torch.log_softmax(to_size(views.logits, height, width), dim=1)


def _entropy(views: Views, options: ScoreOptions) -> PixelScores:
    return _unsupported(views, "entropy")


def _unsupported(views: Views, uncertainty: Literal["entropy", "margin"]) -> PixelScores:
    """Return a score of the main head alone: Eq. 4 without its other terms."""
    return pixel_scores(
        logits=views.logits,
        head_logits=(),
        maturity_weights=None,
        error_logits=None,
        is_boundary=views.is_boundary,
        uncertainty=uncertainty,
    )


def _two_best(views: Views) -> tuple[Tensor, Tensor, Tensor]:
    probabilities = _full_log_probabilities(views).exp()
    best, second = probabilities.topk(2, dim=1).values.unbind(dim=1)
    return best, second, probabilities.argmax(dim=1)


def _margin(views: Views, options: ScoreOptions) -> PixelScores:
    return _unsupported(views, "margin")


def _least_confidence(views: Views, options: ScoreOptions) -> PixelScores:
    best, _, prediction = _two_best(views)
    return PixelScores(1.0 - best, prediction)


def _best_versus_second_best(views: Views, options: ScoreOptions) -> PixelScores:
    best, second, prediction = _two_best(views)
    return PixelScores(second / best, prediction)


def _bald(views: Views, options: ScoreOptions) -> PixelScores:
    """Mutual information between prediction and weights: H(mean p) - mean H(p)."""
    height, width = views.is_boundary.shape[-2:]
    mean, mean_entropy = None, None
    for logits in views.more_logits:
        log_probabilities = torch.log_softmax(to_size(logits, height, width), dim=1)
        sample, sample_entropy = log_probabilities.exp(), entropy(log_probabilities)
        mean = sample if mean is None else mean + sample
        mean_entropy = sample_entropy if mean_entropy is None else mean_entropy + sample_entropy
    assert mean is not None
    assert mean_entropy is not None
    count = len(views.more_logits)
    mean, mean_entropy = mean / count, mean_entropy / count
    information = -torch.special.xlogy(mean, mean).sum(dim=1) - mean_entropy
    return PixelScores(information.clamp(0.0, math.log(mean.shape[1])), views_prediction(views))


def _balanced_entropy(views: Views, options: ScoreOptions) -> PixelScores:
    """Return Woo's acquisition: BalEnt where it is negative, else its inverse.

    BalEnt = (sum_i E[P_i] h(P_i+) + H(E[P])) / (H(E[P]) + ln 2). P_i is taken for
    Beta(a_i, b_i) of the mean and variance of the passes, P_i+ for Beta(a_i + 1, b_i), h is the
    differential entropy. Values are bounded: a variance of at least 1e-8, |1 / BalEnt| <= 1e6.
    """
    height, width = views.is_boundary.shape[-2:]
    passes = [to_size(logits, height, width) for logits in views.more_logits]
    blocks = zip(*(one.split(BLOCK_ROWS, dim=2) for one in passes), strict=True)
    score = torch.cat([_balanced_entropy_of(block) for block in blocks], dim=1)
    return PixelScores(score, views_prediction(views))


def _balanced_entropy_of(passes: Sequence[Float32[Tensor, "B C h W"]]) -> Float32[Tensor, "B h W"]:
    total, squares = None, None
    for logits in passes:
        # In float64: of a narrow distribution float32 keeps neither variance nor entropy.
        sample = torch.softmax(logits.double(), dim=1)
        total = sample if total is None else total + sample
        squares = sample**2 if squares is None else squares + sample**2
    assert total is not None
    assert squares is not None
    count = len(passes)
    mean = (total / count).clamp(1e-6, 1 - 1e-6)
    variance = (squares / count - (total / count) ** 2) * (count / (count - 1))
    # A Beta distribution has a variance below m (1 - m).
    variance = torch.minimum(variance.clamp(min=1e-8), 0.99 * mean * (1 - mean))
    strength = mean * (1 - mean) / variance - 1
    first, second = mean * strength + 1, (1 - mean) * strength
    both = first + second
    differential = (
        torch.lgamma(first) + torch.lgamma(second) - torch.lgamma(both)
        - (first - 1) * torch.digamma(first)
        - (second - 1) * torch.digamma(second)
        + (both - 2) * torch.digamma(both)
    )  # fmt: skip
    of_mean = -torch.special.xlogy(mean, mean).sum(dim=1)
    balanced = ((mean * differential).sum(dim=1) + of_mean) / (of_mean + math.log(2.0))
    return torch.where(balanced >= 0, 1 / balanced.clamp(min=1e-6), balanced).float()


def _self_consistency(views: Views, options: ScoreOptions) -> PixelScores:
    """Disagreement (Jensen-Shannon) of an image and its mirror image, in nats."""
    height, width = views.is_boundary.shape[-2:]
    first = _full_log_probabilities(views)
    mirrored = torch.log_softmax(to_size(views.more_logits[0], height, width), dim=1)
    return PixelScores(jensen_shannon_divergence(first, mirrored), first.argmax(dim=1))


def _difficulty_entropy(views: Views, options: ScoreOptions) -> PixelScores:
    """H times the loss prediction module's probability of an error, 0..ln C."""
    assert views.error_logits is not None
    plain = _entropy(views, options)
    difficulty = predicted_error(views.error_logits, views.is_boundary)
    return PixelScores(plain.score * difficulty, plain.prediction)


def _information_by_clicks(views: Views, options: ScoreOptions) -> PixelScores:
    plain = _entropy(views, options)
    return PixelScores(information_by_clicks(plain.score, plain.prediction), plain.prediction)


def _attended_votes(views: Views, options: ScoreOptions) -> PixelScores:
    """Vote entropy of the dropout passes, as a Gaussian around the pixel sees it."""
    height, width = views.is_boundary.shape[-2:]
    score = attended(vote_entropy(views.more_logits, height, width))
    return PixelScores(score, views_prediction(views))


def views_prediction(views: Views) -> Tensor:
    """Return the class predicted by the plain pass."""
    return _full_log_probabilities(views).argmax(dim=1)


MADBAL = ScoreSpec(_madbal, uses_supports=True)
ENTROPY = ScoreSpec(_entropy)
MARGIN = ScoreSpec(_margin)
LEAST_CONFIDENCE = ScoreSpec(_least_confidence)
BEST_VERSUS_SECOND_BEST = ScoreSpec(_best_versus_second_best)
BALD = ScoreSpec(_bald, passes="dropout")
BALENT = ScoreSpec(_balanced_entropy, passes="dropout")
DIFFICULTY_ENTROPY = ScoreSpec(_difficulty_entropy, uses_supports=True)
SELF_CONSISTENCY = ScoreSpec(_self_consistency, passes="flip")
INFORMATION_BY_CLICKS = ScoreSpec(_information_by_clicks)
ATTENDED_VOTES = ScoreSpec(_attended_votes, passes="dropout")
