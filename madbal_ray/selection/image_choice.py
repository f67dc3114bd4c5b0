"""Which whole images to ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Bool, Float, Int64


def top_images(
    score: Float[np.ndarray, "N"], is_asked: Bool[np.ndarray, "N"], count: int
) -> Int64[np.ndarray, "Q"]:
    """Return the positions of the `count` unasked images with the highest scores.

    Ties go to the lower position.
    """
    unasked = np.flatnonzero(~is_asked)
    return unasked[np.argsort(-score[unasked], kind="stable")[:count]]


def core_set(
    chunks: Callable[[], Iterable[Float[np.ndarray, "n D"]]],
    is_asked: Bool[np.ndarray, "N"],
    count: int,
) -> Int64[np.ndarray, "Q"]:
    """Return `count` images by greedy k-center: each is farthest from all asked and chosen.

    Features come in chunks and are read once per chosen image, so that memory holds one
    chunk and one distance per image. Where nothing was asked yet, the first image is the
    one nearest to the mean feature. Ties go to the lower position.

    Args:
        chunks: returns the features in order, [n, D] at a time; called again and again.
        is_asked: images that are labelled already.

    Source: Sener and Savarese 2018, Algorithm 1.
    """
    unasked = ~is_asked
    count = min(count, int(unasked.sum()))
    if not count:
        return np.zeros(0, np.int64)
    distance = np.full(len(is_asked), np.inf)
    chosen: list[int] = []
    for center in _rows(chunks, np.flatnonzero(is_asked)):
        _shrink(distance, chunks, center)
    if not is_asked.any():
        chosen.append(_nearest_to_mean(chunks))
        _shrink(distance, chunks, next(iter(_rows(chunks, np.array(chosen)))))
    while len(chosen) < count:
        open_distance = np.where(unasked, distance, -np.inf)
        open_distance[chosen] = -np.inf
        chosen.append(int(open_distance.argmax()))
        _shrink(distance, chunks, next(iter(_rows(chunks, np.array(chosen[-1:])))))
    return np.array(chosen, np.int64)


def _rows(
    chunks: Callable[[], Iterable[np.ndarray]], positions: np.ndarray
) -> Iterable[np.ndarray]:
    """Yield the features at rising positions."""
    start = 0
    for chunk in chunks():
        inside = positions[(positions >= start) & (positions < start + len(chunk))]
        for position in inside:
            yield chunk[position - start].astype(np.float64)
        start += len(chunk)


def _shrink(
    distance: np.ndarray, chunks: Callable[[], Iterable[np.ndarray]], center: np.ndarray
) -> None:
    """Lower every image's squared distance to its nearest center."""
    start = 0
    for chunk in chunks():
        here = slice(start, start + len(chunk))
        squared = ((chunk.astype(np.float64) - center) ** 2).sum(axis=1)
        distance[here] = np.minimum(distance[here], squared)
        start += len(chunk)


def _nearest_to_mean(chunks: Callable[[], Iterable[np.ndarray]]) -> int:
    total, count = np.float64(0.0), 0
    for chunk in chunks():
        total = total + chunk.astype(np.float64).sum(axis=0)
        count += len(chunk)
    distance = np.full(count, np.inf)
    _shrink(distance, chunks, np.asarray(total / count))
    return int(distance.argmin())
