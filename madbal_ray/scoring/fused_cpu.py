"""Eq. 4 in one pass over tiles of the working grid, compiled for CPUs.

From low-resolution logits straight to u(x) and the predicted class: a tile's logits are
interpolated into buffers of C x 128 columns and used up there, so no full-resolution map with C
channels ever exists. Same results as the plain torch code in `pixel_scores`, to what float32
leaves of either.

Between two rows of a low-resolution map logits are linear in y, so their exponentials are a
geometric sequence: two exponentials a class and column give those of all rows between, by a
product each. Where logits lie so far apart that a product would leave float32's range, every
row's exponentials are computed.

Longer than others: one kernel and the steps that it is made of, which numba compiles together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from madbal_ray.compiled import SMALLEST, compiled, exp32, log32, log32_of_normal

TILE = 128
"""Columns of a tile; the last ones of a row are computed in vain."""

MOST_ROWS, FEWEST_ROWS = 32, 8
"""Rows of a tile; fewer where there are many classes, so that a tile stays in the cache."""

VALUES_PER_COLUMN = 1024
"""Classes x rows of a tile, about."""

LONGEST_STEP = np.float32(0.5)
"""From a row to the next, in cells, with which a geometric sequence is cheaper."""

MOST_SPREAD = np.float32(58.0)
"""Of one pixel's logits in a geometric sequence. It begins half a cell before its first row at
most, so 1.5 times as low, which is as low as `exp32` goes."""


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
            `pixel_scores`, finite, on the CPU; any strides.
    """
    batch, num_classes = logits.shape[:2]
    height, width = is_boundary.shape[-2:]
    has_heads = bool(head_logits) and maturity_weights is not None
    nothing = logits.new_zeros((batch, 1, 1, 1))
    maps = [logits, *(head_logits if has_heads else ())]
    maps.append(maturity_weights if has_heads and maturity_weights is not None else nothing)
    maps.append(nothing if error_logits is None else error_logits)
    sources = [_source(one, height, width) for one in maps]
    score = np.empty((batch, height, width), np.float32)
    prediction = np.empty((batch, height, width), np.int64)
    rows = min(max(VALUES_PER_COLUMN // num_classes, FEWEST_ROWS), MOST_ROWS)
    shared = (
        tuple(values for values, *_ in sources),
        *(np.stack(parts) for parts in zip(*(rest for _, *rest in sources), strict=True)),
        is_boundary.contiguous().numpy(),
        num_classes,
        len(head_logits) if has_heads else 0,
        error_logits is not None,
        np.float32(entropy_factor),
        np.float32(disagreement_factor),
        use_margin,
        np.float32(math.log(num_classes)),
        rows,
        score,
        prediction,
    )
    in_parts(lambda start, stop: _score_tiles(start, stop, *shared), batch * -(-height // rows))
    return torch.from_numpy(score), torch.from_numpy(prediction)


def in_parts(work: Callable[[int, int], None], count: int) -> None:
    """Call work(start, stop) for parts of 0..count, by as many threads as torch was given.

    Threads of Python's own: compiled loops leave others free, several callers may be at work,
    and numba's pool bears one and spins while it waits.
    """
    threads = min(torch.get_num_threads(), count)
    cuts = [count * part // threads for part in range(threads + 1)]
    if threads == 1:
        work(0, count)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, cuts[:-1], cuts[1:]))


def _source(maps: Tensor, height: int, width: int) -> tuple[Any, ...]:
    """Return maps [B, C, h, w] as a flat array, and how its values become H x W.

    Returns:
        The values as they lie in memory, not copied where they are float32; strides of image
        and class; of each row of the grid the cell it lies in, where the source rows above and
        below begin, and the share of the one below; the places of the source columns left and
        right of each column, in tiles, and the share of the one on the right; how far a row is
        from the next, in cells.
    """
    maps = maps.detach().float()
    of_image, of_class, of_y, of_x = maps.stride()
    extent = 1 + sum(
        (size - 1) * stride for size, stride in zip(maps.shape, maps.stride(), strict=True)
    )
    values = maps.as_strided((extent,), (1,)).numpy()
    rows = _taps(maps.shape[2], height, height)
    columns = _taps(maps.shape[3], width, -(-width // TILE) * TILE)
    return (
        values,
        np.array([of_image, of_class]),
        rows.cell,
        rows.sources * of_y,
        rows.share,
        np.ascontiguousarray(columns.sources.reshape(2, -1, TILE).swapaxes(0, 1)) * of_x,
        columns.share.reshape(-1, TILE),
        np.float32(maps.shape[2] / height),
    )


class Taps(NamedTuple):
    """Bilinear interpolation along one axis: what every new position is made of.

    Attributes:
        cell: int64 [N]: i where it lies between sources i and i + 1, -1 before the first.
        sources: int64 [2, N], the two beside it.
        share: float32 [N], weight of the second.
    """

    cell: np.ndarray
    sources: np.ndarray
    share: np.ndarray


@lru_cache(maxsize=64)
def _taps(old: int, new: int, padded: int) -> Taps:
    """Return the taps that bring `old` values to `new` ones, pixel centres at (i + 1/2) / n.

    The last is repeated up to `padded` of them.
    """
    place = (np.minimum(np.arange(padded), new - 1) + 0.5) * (old / new) - 0.5
    cell = np.floor(place).astype(np.int64)
    sources = np.stack([np.clip(cell, 0, old - 1), np.clip(cell + 1, 0, old - 1)])
    return Taps(cell, sources, (place - cell).astype(np.float32))


def _expanded(values, start, of_class, columns, across, out):
    """Write a source row of all classes [C, X], interpolated to the columns of a tile."""
    for c in range(out.shape[0]):
        base = start + c * of_class
        for x in range(TILE):
            low = values[base + columns[0, x]]
            out[c, x] = low + across[x] * (values[base + columns[1, x]] - low)


_expand = compiled()(_expanded)


def _loaded(values, start, of_class, tops, y, held, columns, across, lines):
    """Bring the two source rows of grid row y into `lines` [2, C, X]; return which is above.

    `held` [2]: where the rows lie that `lines` holds, -1: nowhere.
    """
    above = 1 if held[1] == tops[0, y] else 0
    for part in range(2):
        slot = above if part == 0 else 1 - above
        if held[slot] != tops[part, y]:
            _expand(values, start + tops[part, y], of_class, columns, across, lines[slot])
            held[slot] = tops[part, y]
    return above


_load = compiled()(_loaded)


def _extremes(line, highest):
    """Write the highest logit of each column; return how far a column's logits lie apart."""
    lowest = np.empty(TILE, np.float32)
    for x in range(TILE):
        highest[x] = line[0, x]
        lowest[x] = line[0, x]
    for c in range(1, line.shape[0]):
        for x in range(TILE):
            highest[x] = max(highest[x], line[c, x])
            lowest[x] = min(lowest[x], line[c, x])
    spread = np.float32(0.0)
    for x in range(TILE):
        spread = max(spread, highest[x] - lowest[x])
    return spread


_find_extremes = compiled()(_extremes)


def _sequence(upper, lower, above, below, share, step, first, slope, exps, ratio):
    """Start the geometric sequence of a cell: exponentials at its first row, and their ratio.

    Logits are taken from a line between the highest ones above and below, so none is positive.
    """
    for c in range(upper.shape[0]):
        for x in range(TILE):
            start = upper[c, x] - above[x]
            rise = (lower[c, x] - below[x]) - start
            first[c, x] = start
            slope[c, x] = rise
            exps[c, x] = exp32(start + (share - step) * rise)
            ratio[c, x] = exp32(step * rise)


_start = compiled()(_sequence)


def _next_of_sequence(share, first, slope, exps, ratio, total, entropy):
    """Write exponentials of the next row; their sum, and minus the sum of e**z z."""
    classes = exps.shape[0]
    for x in range(TILE):
        total[x] = np.float32(0.0)
        entropy[x] = np.float32(0.0)
    for c in range(0, classes - 1, 2):  # two at a time: sums are loaded and stored half as often
        for x in range(TILE):
            e = exps[c, x] * ratio[c, x]
            f = exps[c + 1, x] * ratio[c + 1, x]
            exps[c, x] = e
            exps[c + 1, x] = f
            total[x] += e + f
            entropy[x] -= e * (first[c, x] + share * slope[c, x]) + f * (
                first[c + 1, x] + share * slope[c + 1, x]
            )
    if classes % 2:
        c = classes - 1
        for x in range(TILE):
            e = exps[c, x] * ratio[c, x]
            exps[c, x] = e
            total[x] += e
            entropy[x] -= e * (first[c, x] + share * slope[c, x])


_step = compiled()(_next_of_sequence)


def _row_by_itself(upper, lower, share, logits, highest, exps, total, entropy):
    """Write logits and exponentials of a row whatever its logits are; sums as `_step` does."""
    for x in range(TILE):
        highest[x] = upper[0, x] + share * (lower[0, x] - upper[0, x])
        total[x] = np.float32(0.0)
        entropy[x] = np.float32(0.0)
    for c in range(exps.shape[0]):
        for x in range(TILE):
            value = upper[c, x] + share * (lower[c, x] - upper[c, x])
            logits[c, x] = value
            highest[x] = max(highest[x], value)
    for c in range(exps.shape[0]):
        for x in range(TILE):
            shifted = logits[c, x] - highest[x]
            e = exp32(shifted)
            exps[c, x] = e
            total[x] += e
            entropy[x] -= e * shifted


_single = compiled()(_row_by_itself)


def _best_class(first, slope, share, top, best):
    """Write the lowest class of the highest logit first + share slope."""
    for x in range(TILE):
        top[x] = first[0, x] + share * slope[0, x]
        best[x] = 0
    for c in range(1, first.shape[0]):
        for x in range(TILE):
            value = first[c, x] + share * slope[c, x]
            if value > top[x]:
                top[x] = value
                best[x] = c


_find_best = compiled()(_best_class)


def _mixture(half_main, exps, inverse, mixed):
    """Write the entropy of (P + Q) / 2 of a row, of P / 2 and exponentials of Q."""
    classes = exps.shape[0]
    for x in range(TILE):
        mixed[x] = np.float32(0.0)
        inverse[x] *= np.float32(0.5)
    for c in range(0, classes - 1, 2):
        for x in range(TILE):
            m = half_main[c, x] + exps[c, x] * inverse[x]
            n = half_main[c + 1, x] + exps[c + 1, x] * inverse[x]
            mixed[x] -= m * log32_of_normal(m) + n * log32_of_normal(n)
    if classes % 2:
        c = classes - 1
        for x in range(TILE):
            m = half_main[c, x] + exps[c, x] * inverse[x]
            mixed[x] -= m * log32_of_normal(m)


_mix = compiled()(_mixture)


def _margin_of(main, result):
    """Write 1 - (p1 - p2) of the two likeliest classes of a row."""
    for x in range(TILE):
        highest = np.float32(0.0)
        second = np.float32(0.0)
        for c in range(main.shape[0]):
            p = main[c, x]
            if p > highest:
                second = highest
                highest = p
            elif p > second:
                second = p
        margin = np.float32(1.0) - np.float32(2.0) * (highest - second)
        result[x] = min(max(margin, np.float32(0.0)), np.float32(1.0))


_margin = compiled()(_margin_of)


def _kernel(
    from_band, to_band, values, strides, cells, tops, downs, sides, acrosses, steps,
    is_boundary, classes, heads, has_errors, entropy_factor, disagreement_factor, use_margin, limit,
    rows, score, prediction,
):  # fmt: skip
    height, width = score.shape[1:]
    ln2 = np.float32(0.6931472)
    half = np.float32(0.5)
    zero = np.float32(0.0)
    tiles = (width + TILE - 1) // TILE
    bands = (height + rows - 1) // rows
    for task in range(from_band * tiles, to_band * tiles):
        b = task // (bands * tiles)
        y0 = task // tiles % bands * rows
        y1 = min(y0 + rows, height)
        tile = task % tiles
        x0 = tile * TILE
        inside = min(TILE, width - x0)
        lines = np.empty((2, classes, TILE), np.float32)
        first = np.empty((classes, TILE), np.float32)
        slope = np.empty((classes, TILE), np.float32)
        exps = np.empty((classes, TILE), np.float32)
        ratio = np.empty((classes, TILE), np.float32)
        main = np.empty((rows, classes, TILE), np.float32)
        main_entropy = np.empty((rows, TILE), np.float32)
        result = np.empty((rows, TILE), np.float32)
        extremes = np.empty((2, TILE), np.float32)
        total = np.empty(TILE, np.float32)
        entropy = np.empty(TILE, np.float32)
        mixed = np.empty(TILE, np.float32)
        best = np.empty(TILE, np.int32)
        few = np.empty((2, 2, TILE), np.float32)
        few_one = np.empty((2, 1, TILE), np.float32)
        held = np.empty(2, np.int64)
        few_held = np.empty(2, np.int64)
        spread = np.empty(2, np.float32)
        few_held[0] = -1
        few_held[1] = -1
        weights = heads + 1
        for k in range(heads + 1):
            flat = values[k]
            start = b * strides[k, 0]
            of_class = strides[k, 1]
            columns = sides[k, tile]
            across = acrosses[k, tile]
            held[0] = -1
            held[1] = -1
            above = 0
            is_coarse = steps[k] <= LONGEST_STEP
            is_sequence = False
            for y in range(y0, y1):
                share = downs[k, y]
                is_new = y == y0 or cells[k, y] != cells[k, y - 1]
                if is_new:
                    before0, before1 = held[0], held[1]
                    above = _load(flat, start, of_class, tops[k], y, held,
                                  columns, across, lines)  # fmt: skip
                    if is_coarse and before0 != held[0]:
                        spread[0] = _find_extremes(lines[0], extremes[0])
                    if is_coarse and before1 != held[1]:
                        spread[1] = _find_extremes(lines[1], extremes[1])
                    is_sequence = is_coarse and max(spread[0], spread[1]) < MOST_SPREAD
                    if is_sequence:
                        _start(lines[above], lines[1 - above], extremes[above],
                               extremes[1 - above], share, steps[k], first, slope, exps,
                               ratio)  # fmt: skip
                if is_sequence:
                    _step(share, first, slope, exps, ratio, total, entropy)
                else:
                    _single(lines[above], lines[1 - above], share, first, mixed, exps, total,
                            entropy)  # fmt: skip
                for x in range(TILE):
                    inverse = np.float32(1.0) / total[x]
                    h = entropy[x] * inverse + log32(total[x])
                    entropy[x] = min(max(h, zero), limit)
                    total[x] = inverse
                row = y - y0
                if k == 0:
                    if is_sequence:
                        _find_best(first, slope, share, mixed, best)
                    else:
                        _find_best(first, first, zero, mixed, best)
                    for x in range(inside):
                        prediction[b, y, x0 + x] = best[x]
                    for c in range(classes):
                        for x in range(TILE):
                            main[row, c, x] = max(half * exps[c, x] * total[x], SMALLEST)
                    for x in range(TILE):
                        main_entropy[row, x] = entropy[x]
                        result[row, x] = entropy_factor * entropy[x]
                    if use_margin:
                        _margin(main[row], result[row])
                else:
                    _mix(main[row], exps, total, mixed)
                    w = k - 1
                    if y == y0 or cells[weights, y] != cells[weights, y - 1]:
                        _load(values[weights], b * strides[weights, 0] + w * strides[weights, 1],
                              0, tops[weights], y, few_held,
                              sides[weights, tile], acrosses[weights, tile], few_one)  # fmt: skip
                    at = 1 if few_held[1] == tops[weights, 0, y] else 0
                    down = downs[weights, y]
                    for x in range(TILE):
                        js = mixed[x] - half * (main_entropy[row, x] + entropy[x])
                        js = min(max(js, zero), ln2)
                        upper = few_one[at, 0, x]
                        weight = upper + down * (few_one[1 - at, 0, x] - upper)
                        result[row, x] += disagreement_factor * weight * js
            few_held[0] = -1
            few_held[1] = -1
        for y in range(y0, y1):
            row = y - y0
            if has_errors:
                at = 0
                e = heads + 2
                at = _load(values[e], b * strides[e, 0], strides[e, 1], tops[e], y,
                           few_held, sides[e, tile], acrosses[e, tile], few)  # fmt: skip
                down = downs[e, y]
                for x in range(inside):
                    mixed[x] = np.float32(0.0) if is_boundary[b, y, x0 + x] else np.float32(1.0)
                for x in range(TILE):
                    edge = few[at, 0, x] + down * (few[1 - at, 0, x] - few[at, 0, x])
                    centre = few[at, 1, x] + down * (few[1 - at, 1, x] - few[at, 1, x])
                    z = edge if mixed[x] == zero else centre
                    power = exp32(-abs(z))
                    sigmoid = (np.float32(1.0) if z >= 0 else power) / (np.float32(1.0) + power)
                    result[row, x] *= exp32(sigmoid)
            for x in range(inside):
                score[b, y, x0 + x] = result[row, x]


_score_tiles = compiled()(_kernel)
