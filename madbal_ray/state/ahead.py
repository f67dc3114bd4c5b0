"""Work ahead of the one who waits for it: reading and decoding in threads, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any, TypeVar

Item = TypeVar("Item")
Fetched = TypeVar("Fetched")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Iterator[Result]:
    """Yield function(item) in order, computed by threads up to `ahead` items early."""
    pool = ThreadPoolExecutor(threads)
    try:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def fetch_ahead(
    fetch: Callable[[Item], Fetched],
    function: Callable[[Item, Fetched], Result],
    items: Iterable[Item],
    *,
    fetches: int,
    threads: int,
    ahead: int,
) -> Iterator[Result]:
    """Yield function(item, fetch(item)) in order; waiting for bytes holds up no thread that works.

    Args:
        fetches: bytes asked for at once, each by a thread of its own, before those that
            `function` is at.
        threads, ahead: of `function`, see `map_ahead`.
    """
    pool = ThreadPoolExecutor(fetches)

    def fetched() -> Iterator[tuple[Item, Future[Fetched]]]:
        waiting: deque[tuple[Item, Future[Fetched]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(fetch, item)))
            if len(waiting) > fetches:
                yield waiting.popleft()
        yield from waiting

    try:
        yield from map_ahead(
            lambda pair: function(pair[0], pair[1].result()),
            fetched(),
            threads=threads,
            ahead=ahead,
        )
    finally:
        pool.shutdown(cancel_futures=True)


def begun(results: Iterator[Result]) -> Iterator[Result]:
    """Wait for the first result, so that the work ahead of it has begun; return all of them."""
    return chain([first for first in [next(results, _NOTHING)] if first is not _NOTHING], results)


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Return what calls give, each made by a thread of its own: for reads that wait."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


_NOTHING: Any = object()
