"""Pixels of one image that a pixel-level strategy asks for, drawn where the scores are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, Integer
from torch import Tensor


@dataclass(frozen=True)
class Candidates:
    """Chosen pixels, in order of choice.

    Attributes:
        position: y * W + x.
        score: their scores.
        predicted_class: their predicted classes.
    """

    position: Int64[Tensor, "Q"]
    score: Float32[Tensor, "Q"]
    predicted_class: Int64[Tensor, "Q"]


def top_candidates(
    *,
    score: Float32[Tensor, "H W"],
    prediction: Integer[Tensor, "H W"],
    is_asked: Bool[Tensor, "H W"],
    count: int,
) -> Candidates:
    """Return the `count` unasked pixels with the highest scores (ties: lower y, then x)."""
    return _take(score, prediction, _ranked(score, is_asked)[:count])


def random_of_top_candidates(
    *,
    score: Float32[Tensor, "H W"],
    prediction: Integer[Tensor, "H W"],
    is_asked: Bool[Tensor, "H W"],
    count: int,
    top_share: float,
    generator: np.random.Generator,
) -> Candidates:
    """Return `count` pixels at random from the floor(p * H * W) most uncertain unasked ones.

    At least `count` pixels are drawn from, where there are so many.

    Source: PixelPick (Shin et al. 2021), its default "top 5 %".
    """
    size = max(count, math.floor(top_share * score.numel()))
    ranked = _ranked(score, is_asked)[:size]
    chosen = generator.choice(len(ranked), size=min(count, len(ranked)), replace=False)
    return _take(score, prediction, ranked[torch.from_numpy(chosen).to(ranked.device)])


def class_balanced_candidates(
    *,
    score: Float32[Tensor, "H W"],
    prediction: Integer[Tensor, "H W"],
    is_asked: Bool[Tensor, "H W"],
    count: int,
    generator: np.random.Generator,
) -> Candidates:
    """Return `count` random unasked pixels, the predicted classes taking turns.

    Classes take turns in random order, each turn a pixel of the class at random; a class
    that has none left drops out.
    """
    unasked = np.flatnonzero(~is_asked.cpu().numpy().reshape(-1))
    classes = prediction.cpu().numpy().reshape(-1)[unasked]
    shuffled = generator.permutation(len(unasked))
    order = shuffled[np.argsort(classes[shuffled], kind="stable")]  # by class, random within
    sizes = np.bincount(classes)
    turn = np.concatenate([np.arange(size) for size in sizes]) if len(sizes) else order
    rank_of_class = generator.permutation(len(sizes))[classes[order]]
    first = order[np.lexsort((rank_of_class, turn))][:count]
    positions = torch.from_numpy(unasked[first]).to(score.device)
    return _take(score, prediction, positions)


def _ranked(score: Tensor, is_asked: Tensor) -> Tensor:
    """Return the positions of unasked pixels by falling score, ties by position."""
    unasked = torch.nonzero(~is_asked.reshape(-1)).squeeze(1)
    order = torch.sort(score.reshape(-1)[unasked], descending=True, stable=True).indices
    return unasked[order]


def _take(score: Tensor, prediction: Tensor, position: Tensor) -> Candidates:
    return Candidates(
        position=position,
        score=score.reshape(-1)[position],
        predicted_class=prediction.reshape(-1)[position].long(),
    )
