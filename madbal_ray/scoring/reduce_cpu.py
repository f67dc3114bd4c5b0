"""Reduction of pixel maps to superpixels in one pass over the pixels, compiled for CPUs."""

from __future__ import annotations

import math

import numpy as np

from madbal_ray.compiled import compiled


def reduce_on_cpu(
    score: np.ndarray,
    prediction: np.ndarray,
    is_asked: np.ndarray,
    superpixel_ids: np.ndarray,
    *,
    num_superpixels: int,
    num_classes: int,
    top: int,
    fixed_point_bits: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return pixels, mean score and dominant class [S], best pixels' position and score [S, top].

    The same bytes as the torch code in `reduce`; positions are flat.

    Args:
        score: float32 [H, W]; other maps of the same shape, integers and bool.
        fixed_point_bits: of the integer sums.
    """
    values = np.ascontiguousarray(score, np.float32).ravel()
    asked = np.ascontiguousarray(is_asked).ravel()
    unasked = int(asked.size - np.count_nonzero(asked))
    highest = float(np.abs(values[~asked]).max()) if unasked else 0.0
    exponent = math.frexp(highest)[1]
    scale = 2.0 ** (fixed_point_bits - exponent - unasked.bit_length())
    count = np.zeros(num_superpixels, np.int64)
    total = np.zeros(num_superpixels, np.int64)
    votes = np.zeros((num_superpixels, num_classes), np.int32)
    position = np.full((num_superpixels, top), -1, np.int64)
    best = np.full((num_superpixels, top), -np.inf, np.float32)
    _pass(
        values,
        np.ascontiguousarray(prediction).ravel(),
        asked,
        np.ascontiguousarray(superpixel_ids).ravel(),
        scale,
        count,
        total,
        votes,
        position,
        best,
    )
    mean = total / scale / np.maximum(count, 1)
    dominant = np.where(count > 0, votes.argmax(axis=1), -1)
    return count, mean, dominant, position, best


def _one_pass(values, classes, asked, ids, scale, count, total, votes, position, best):
    top = best.shape[1]
    for pixel in range(values.shape[0]):
        if asked[pixel]:
            continue
        s = ids[pixel]
        value = values[pixel]
        count[s] += 1
        total[s] += np.int64(np.rint(np.float64(value) * scale))
        votes[s, classes[pixel]] += 1
        # pixels come in rising order, so an equal score never displaces an earlier one
        if value > best[s, top - 1] or position[s, top - 1] < 0:
            place = top - 1
            while place > 0 and (position[s, place - 1] < 0 or value > best[s, place - 1]):
                best[s, place] = best[s, place - 1]
                position[s, place] = position[s, place - 1]
                place -= 1
            best[s, place] = value
            position[s, place] = pixel


_pass = compiled()(_one_pass)
