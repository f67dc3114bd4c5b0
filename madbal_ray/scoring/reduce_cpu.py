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


def draw_on_cpu(
    score: np.ndarray,
    is_asked: np.ndarray,
    superpixel_ids: np.ndarray,
    *,
    num_superpixels: int,
    top: int,
    share: float,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return position (flat) and score [S, top] of random ones among each superpixel's best.

    The same draws as the torch code of `reduce.random_top_pixels`; each superpixel is sorted
    by itself, where that code sorts all pixels of the image three times.

    Args:
        score: float32 [H, W]; other maps of the same shape, integers and bool.
    """
    values = np.ascontiguousarray(score, np.float32).ravel()
    pixels, count = _grouped(
        np.ascontiguousarray(is_asked).ravel(),
        np.ascontiguousarray(superpixel_ids).ravel(),
        num_superpixels,
    )
    drawn_from = np.maximum(np.ceil(share * count.astype(np.float64)), top).astype(np.int64)
    kept = np.minimum(count, drawn_from)
    keys = generator.random(int(kept.sum()))
    position = np.full((num_superpixels, top), -1, np.int64)
    drawn_score = np.full((num_superpixels, top), -np.inf, np.float32)
    _draw(values, pixels, count, kept, keys, position, drawn_score)
    return position, drawn_score


def _group(asked, ids, num_superpixels):
    """Return unasked pixels superpixel by superpixel, each in rising order, and their numbers."""
    count = np.zeros(num_superpixels, np.int64)
    for pixel in range(ids.shape[0]):
        if not asked[pixel]:
            count[ids[pixel]] += 1
    place = np.cumsum(count) - count
    pixels = np.empty(count.sum(), np.int64)
    for pixel in range(ids.shape[0]):
        if not asked[pixel]:
            pixels[place[ids[pixel]]] = pixel
            place[ids[pixel]] += 1
    return pixels, count


def _draw_each(values, pixels, count, kept, keys, position, drawn_score):
    top = position.shape[1]
    start, first_key = 0, 0
    for s in range(count.shape[0]):
        own = pixels[start : start + count[s]]
        best_first = np.argsort(-values[own], kind="mergesort")
        own_keys = keys[first_key : first_key + kept[s]]
        drawn = np.argsort(own_keys, kind="mergesort")[:top]
        drawn.sort()  # best first again
        for column in range(drawn.shape[0]):
            pixel = own[best_first[drawn[column]]]
            position[s, column] = pixel
            drawn_score[s, column] = values[pixel]
        start += count[s]
        first_key += kept[s]


_grouped = compiled()(_group)
_draw = compiled()(_draw_each)
