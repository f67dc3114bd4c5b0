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
    top_share: float | None = None,
) -> Candidates:
    """Return `count` random unasked pixels, the predicted classes taking turns.

    Classes take turns in random order, each turn a pixel of the class at random; a class
    that has none left drops out.

    Args:
        top_share: the class's pixels are drawn from this share of them, those of the highest
            scores, one at least, before the others; None: from all alike.
    """
    unasked = np.flatnonzero(~is_asked.cpu().numpy().reshape(-1))
    classes = prediction.cpu().numpy().reshape(-1)[unasked].astype(np.int16)
    shuffled = generator.permutation(len(unasked))
    sizes = np.bincount(classes)
    is_lower = np.zeros(len(unasked), bool)
    if top_share is not None:
        values = score.cpu().numpy().reshape(-1)[unasked]
        by_score = np.argsort(-values, kind="stable")
        by_score = by_score[np.argsort(classes[by_score], kind="stable")]
        rank = np.arange(len(unasked)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        most = np.maximum(1, np.floor(top_share * sizes))
        is_lower[by_score] = rank >= most[classes[by_score]]
    # By class, random within; those that are doubtful enough come first.
    rank_of = (2 * classes + is_lower).astype(np.int16)  # sorted by radix
    order = shuffled[np.argsort(rank_of[shuffled], kind="stable")]
    turn = np.concatenate([np.arange(size) for size in sizes]) if len(sizes) else order
    rank_of_class = generator.permutation(len(sizes))[classes[order]]
    first = order[np.lexsort((rank_of_class, turn))][:count]
    positions = torch.from_numpy(unasked[first]).to(score.device)
    return _take(score, prediction, positions)


def power_candidates(
    *,
    score: Float32[Tensor, "H W"],
    prediction: Integer[Tensor, "H W"],
    is_asked: Bool[Tensor, "H W"],
    count: int,
    power: float,
    radius: int,
    generator: np.random.Generator,
) -> Candidates:
    """Draw `count` unasked pixels one after another, with chances proportional to score^power.

    After each, the square of `radius` around it is left out, until nothing else is left. Pixels
    of score 0 come last. The draw is that of the highest ``power * log(score) + Gumbel noise``.

    Source: Kirsch et al. 2023 (power acquisition); the square: RIPU (Xie et al. 2022).
    """
    height, width = score.shape
    unasked = ~is_asked.cpu().numpy()
    values = np.maximum(score.cpu().numpy().astype(np.float64), np.finfo(np.float64).tiny)
    keys = power * np.log(values) + generator.gumbel(size=(height, width))
    is_free = unasked.copy()
    chosen: list[int] = []
    for _ in range(min(count, int(unasked.sum()))):
        if not is_free.any():
            is_free = unasked.copy()
        position = int(np.argmax(np.where(is_free, keys, -np.inf)))
        y, x = divmod(position, width)
        chosen.append(position)
        unasked[y, x] = False
        is_free[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1] = False
    positions = torch.tensor(chosen, dtype=torch.int64, device=score.device)
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
