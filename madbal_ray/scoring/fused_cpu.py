"""Eq. 4 in one pass over the rows of the working grid, compiled for CPUs.

From low-resolution logits straight to u(x) and the predicted class: a row's logits are
interpolated into a buffer of C x W values per head and used up there, so no
full-resolution map with C channels ever exists. Same results as the plain torch code in
`pixel_scores`, to about 1e-6.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numba
import numpy as np
import torch
from torch import Tensor

from madbal_ray.compiled import compiled, exp32, log32

MOST_THREADS = numba.get_num_threads()

_lock = threading.Lock()


def fused_scores(
    *,
    logits: Tensor,
    head_logits: tuple[Tensor, ...],
    maturity_weights: Tensor | None,
    error_logits: Tensor | None,
    is_boundary: Tensor,
    entropy_factor: float,
    disagreement_factor: float,
    use_margin: bool,
) -> tuple[Tensor, Tensor]:
    """Return u(x) float32 [B, H, W] and the predicted class int64 [B, H, W].

    u = (entropy_factor H + disagreement_factor sum W JS) exp(predicted error), with the
    margin in place of the first term where `use_margin`.

    Args:
        logits, head_logits, maturity_weights, error_logits, is_boundary: as in
            `pixel_scores`, on the CPU.
    """
    batch, num_classes = logits.shape[:2]
    height, width = is_boundary.shape[-2:]
    has_heads = bool(head_logits) and maturity_weights is not None
    maps = [logits, *head_logits] if has_heads else [logits]
    stacked, taps = _stack(maps, height, width)
    nothing = np.zeros((batch, 1, 1, 1), np.float32)
    weights = _numpy(maturity_weights) if has_heads else nothing
    errors = nothing if error_logits is None else _numpy(error_logits)
    score = np.empty((batch, height, width), np.float32)
    prediction = np.empty((batch, height, width), np.int64)
    limit = math.log(num_classes)
    with _threads():
        _score_rows(
            stacked,
            *taps,
            weights,
            *_all_taps(weights.shape, height, width),
            errors,
            *_all_taps(errors.shape, height, width),
            is_boundary.contiguous().numpy(),
            error_logits is not None,
            np.float32(entropy_factor),
            np.float32(disagreement_factor),
            use_margin,
            np.float32(limit),
            score,
            prediction,
        )
    return torch.from_numpy(score), torch.from_numpy(prediction)


@contextmanager
def _threads() -> Iterator[None]:
    """Use as many threads as torch was given; one caller at a time, as numba's pool asks."""
    with _lock:
        before = numba.get_num_threads()
        numba.set_num_threads(min(torch.get_num_threads(), MOST_THREADS))
        try:
            yield
        finally:
            numba.set_num_threads(before)


def _numpy(maps: Tensor | None) -> np.ndarray:
    assert maps is not None
    return maps.detach().float().contiguous().numpy()


def _stack(maps: list[Tensor], height: int, width: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return all heads in one zero-padded array, and the taps of each."""
    arrays = [_numpy(logits) for logits in maps]
    shape = np.max([array.shape for array in arrays], axis=0)
    stacked = np.zeros((len(arrays), *shape), np.float32)
    taps: list[list[np.ndarray]] = [[] for _ in range(6)]
    for index, array in enumerate(arrays):
        stacked[index, :, :, : array.shape[2], : array.shape[3]] = array
        for of_heads, tap in zip(taps, _all_taps(array.shape, height, width), strict=True):
            of_heads.append(tap)
    return stacked, [np.stack(of_heads) for of_heads in taps]


def _all_taps(shape: tuple[int, ...], height: int, width: int) -> tuple[np.ndarray, ...]:
    """Return rows below, above and weight, then columns left, right and weight."""
    return (*_taps(shape[2], height), *_taps(shape[3], width))


def _taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two sources and the weight of the second for bilinear, pixel centres."""
    place = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0.0)
    first = np.minimum(np.floor(place).astype(np.int64), old - 1)
    second = np.minimum(first + 1, old - 1)
    return first, second, (place - first).astype(np.float32)


def _interpolate_row(source, top, bottom, share, left, right, across, column, out):
    """Write one interpolated row of one channel; `column` is a buffer of source width."""
    for i in range(source.shape[1]):
        column[i] = source[top, i] + share * (source[bottom, i] - source[top, i])
    for x in range(out.shape[0]):
        low = column[left[x]]
        out[x] = low + across[x] * (column[right[x]] - low)


_interpolate = compiled()(_interpolate_row)


def _softmax_rows(values, top, total, entropy):
    """Turn logits [C, W] into probabilities; `entropy` [W] holds H in nats."""
    classes, width = values.shape
    for x in range(width):
        top[x] = values[0, x]
        total[x] = np.float32(0.0)
        entropy[x] = np.float32(0.0)
    for c in range(1, classes):
        for x in range(width):
            top[x] = max(top[x], values[c, x])
    for c in range(classes):
        for x in range(width):
            shifted = values[c, x] - top[x]
            e = exp32(shifted)
            values[c, x] = e
            total[x] += e
            entropy[x] -= e * shifted
    for x in range(width):
        inverse = np.float32(1.0) / total[x]
        entropy[x] = entropy[x] * inverse + log32(total[x])
        total[x] = inverse
    for c in range(classes):
        for x in range(width):
            values[c, x] *= total[x]


_softmax = compiled()(_softmax_rows)


def _kernel(
    stacked, row_low, row_high, row_share, left, right, across,
    weights, w_low, w_high, w_share, w_left, w_right, w_across,
    errors, e_low, e_high, e_share, e_left, e_right, e_across,
    is_boundary, has_errors, entropy_factor, disagreement_factor, use_margin, limit,
    score, prediction,
):  # fmt: skip
    heads, batch, classes = stacked.shape[:3]
    height, width = score.shape[1:]
    ln2 = np.float32(0.6931472)
    half = np.float32(0.5)
    for task in numba.prange(batch * height):
        b = task // height
        y = task % height
        column = np.empty(max(stacked.shape[4], weights.shape[3], errors.shape[3]), np.float32)
        main = np.empty((classes, width), np.float32)
        other = np.empty((classes, width), np.float32)
        top = np.empty(width, np.float32)
        total = np.empty(width, np.float32)
        first_entropy = np.empty(width, np.float32)
        other_entropy = np.empty(width, np.float32)
        mixed = np.empty(width, np.float32)
        line = np.empty(width, np.float32)
        best = np.empty(width, np.int64)
        for c in range(classes):
            _interpolate(stacked[0, b, c], row_low[0, y], row_high[0, y], row_share[0, y],
                         left[0], right[0], across[0], column, main[c])  # fmt: skip
        for x in range(width):
            top[x] = main[0, x]
            best[x] = 0
        for c in range(1, classes):
            for x in range(width):
                if main[c, x] > top[x]:
                    top[x] = main[c, x]
                    best[x] = c
        for x in range(width):
            prediction[b, y, x] = best[x]
        _softmax(main, top, total, first_entropy)
        for x in range(width):
            first_entropy[x] = min(max(first_entropy[x], np.float32(0.0)), limit)
            score[b, y, x] = entropy_factor * first_entropy[x]
        if use_margin:
            for x in range(width):
                highest = np.float32(0.0)
                second = np.float32(0.0)
                for c in range(classes):
                    p = main[c, x]
                    if p > highest:
                        second = highest
                        highest = p
                    elif p > second:
                        second = p
                margin = np.float32(1.0) - (highest - second)
                score[b, y, x] = min(max(margin, np.float32(0.0)), np.float32(1.0))
        for k in range(1, heads):
            for c in range(classes):
                _interpolate(stacked[k, b, c], row_low[k, y], row_high[k, y], row_share[k, y],
                             left[k], right[k], across[k], column, other[c])  # fmt: skip
            _softmax(other, top, total, other_entropy)
            for x in range(width):
                mixed[x] = np.float32(0.0)
                other_entropy[x] = min(max(other_entropy[x], np.float32(0.0)), limit)
            for c in range(classes):
                for x in range(width):
                    m = half * (main[c, x] + other[c, x])
                    mixed[x] -= m * log32(m)
            _interpolate(weights[b, k - 1], w_low[y], w_high[y], w_share[y],
                         w_left, w_right, w_across, column, line)  # fmt: skip
            for x in range(width):
                js = mixed[x] - half * (first_entropy[x] + other_entropy[x])
                js = min(max(js, np.float32(0.0)), ln2)
                score[b, y, x] += disagreement_factor * line[x] * js
        if has_errors:
            _interpolate(errors[b, 0], e_low[y], e_high[y], e_share[y],
                         e_left, e_right, e_across, column, line)  # fmt: skip
            _interpolate(errors[b, 1], e_low[y], e_high[y], e_share[y],
                         e_left, e_right, e_across, column, mixed)  # fmt: skip
            for x in range(width):
                z = line[x] if is_boundary[b, y, x] else mixed[x]
                e = exp32(-abs(z))
                sigmoid = (np.float32(1.0) if z >= 0 else e) / (np.float32(1.0) + e)
                # exp32 wants x <= 0: e**s = e * e**(s - 1)
                score[b, y, x] *= np.float32(2.7182817) * exp32(sigmoid - np.float32(1.0))


_score_rows = compiled(parallel=True)(_kernel)
