"""Class-stratified power sampling of one image's superpixels (ClaSP-PE)."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float32, Integer
from torch import Tensor

from madbal_ray.scoring.candidates import Candidates


def class_power_candidates(
    *,
    score: Float32[Tensor, "H W"],
    log_probabilities: Float32[Tensor, "C H W"],
    prediction: Integer[Tensor, "H W"],
    is_asked: Bool[Tensor, "H W"],
    superpixel_ids: Integer[Tensor, "H W"],
    count: int,
    class_share: float,
    power: float,
    pixel_share: float,
    generator: np.random.Generator,
) -> Candidates:
    """Return `count` pixels, one of a superpixel until all have given one, then once more.

    round(class_share * count) of them go to the classes in turn, in random order: class c takes
    the superpixel of the highest log s_c + Gumbel(0, 1 / power), with s_c the mean of H p_c over
    its unasked pixels; the rest by s, the mean of H. Of a superpixel a random pixel is asked, among
    its `pixel_share` of highest H.

    Args:
        score: H, the entropy.
        log_probabilities: of the main head, on the working grid.
        superpixel_ids: 0..S-1, each of which has a pixel.
        power: beta; the higher, the less is left to chance.

    Source: ClaSP-PE (arXiv 2601.13677), which asks for 3-D patches; here superpixels.
    """
    classes = len(log_probabilities)
    asked = is_asked.cpu().numpy().reshape(-1)
    unasked = np.flatnonzero(~asked)
    ids = superpixel_ids.cpu().numpy().reshape(-1)[unasked].astype(np.int64)
    values = score.cpu().numpy().reshape(-1)[unasked].astype(np.float64)
    number = int(superpixel_ids.max()) + 1
    pixels = np.bincount(ids, minlength=number)

    def keys(weights: np.ndarray) -> np.ndarray:
        """Return the key of each superpixel: the logarithm of a mean, and noise."""
        total = np.bincount(ids, weights, number)
        mean = np.maximum(total / np.maximum(pixels, 1), np.finfo(np.float64).tiny)
        return np.log(mean) + generator.gumbel(size=number) / power

    turns = generator.permutation(classes)
    of_class = round(class_share * count)
    rows = []
    for one in turns[:of_class]:
        likely = log_probabilities[int(one)].exp().cpu().numpy().reshape(-1)[unasked]
        rows.append(keys(values * likely))
    ranked = [*(rows[turn % classes] for turn in range(of_class))]
    ranked += [keys(values)] * (count - of_class)

    noise = generator.random(len(ids))
    taken = np.zeros(number, np.int64)
    chosen = []
    for row in ranked[: len(unasked)]:
        left = pixels > taken
        lap = taken[left].min()
        superpixel = int(np.argmax(np.where(left & (taken == lap), row, -np.inf)))
        order = _pixels_of(np.flatnonzero(ids == superpixel), values, noise, pixel_share)
        chosen.append(unasked[order[taken[superpixel]]])
        taken[superpixel] += 1
    position = torch.tensor(np.array(chosen, np.int64), device=score.device)
    return Candidates(
        position=position,
        score=score.reshape(-1)[position],
        predicted_class=prediction.reshape(-1)[position].long(),
    )


def _pixels_of(rows: np.ndarray, values: np.ndarray, noise: np.ndarray, share: float) -> np.ndarray:
    """Return a superpixel's pixels in the order in which they are asked.

    Random ones among the share of highest values (one pixel at least), then the others at random.
    """
    is_lower = np.zeros(len(rows), bool)
    most = max(1, math.floor(share * len(rows)))
    is_lower[np.argsort(-values[rows], kind="stable")[most:]] = True
    ordered: np.ndarray = rows[np.lexsort((noise[rows], is_lower))]
    return ordered
