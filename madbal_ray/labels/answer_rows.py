"""Rows of the store of answers, and what they add up to."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from madbal_ray.labels.settle import Settled, Vote

IDENTITY = ("round", "image_id", "y", "x", "unit")
"""Columns of a query that, with the run, say which one it is."""

MOST_NAME = 200
"""Characters of an annotator's name."""

USABLE_NAME = f"1 to {MOST_NAME} printable characters, none of the ends blank"
"""Names that look the same are the same: a blank that nobody sees would make a second person."""


def name_problem(annotator: str) -> str | None:
    """Return what is wrong with an annotator's name, None where nothing is."""
    is_usable = 0 < len(annotator) <= MOST_NAME and annotator.isprintable()
    if is_usable and annotator == annotator.strip():
        return None
    return f"annotator {annotator[:40]!r}; expected {USABLE_NAME}"


Purpose = Literal["training", "evaluation"]
"""What an answer is for: points of `evaluation.points` are never trained on."""


@dataclass(frozen=True, kw_only=True)
class StoredQuery:
    """A question.

    Attributes:
        query_id: identifies run, round and pixel (`madbal_ray.labels.requests.query_id`).
        round: that asked; -1 for `evaluation.points`.
        image_uri: relative to the data root.
        y, x: on the working grid.
        image_y, image_x: the same place on the original image.
        unit: ``pixel`` or ``superpixel``, which is asked at one of its pixels.
        rank: order within the image, from 0.
    """

    query_id: str
    round: int
    purpose: Purpose
    image_id: str
    image_uri: str
    y: int
    x: int
    image_y: int
    image_x: int
    unit: str
    superpixel_id: int | None
    rank: int


@dataclass(frozen=True, kw_only=True)
class NewAnswer:
    """A word of an annotator, to be added.

    Attributes:
        status: ``labelled``, ``void``, ``skipped``, ``unsure``, or ``undone``: the annotator takes
            the last one back and the query waits again.
        class_name: exactly where the status is ``labelled``.
        milliseconds: that the query was visible; None: not known.
        prediction: class that the annotator was shown; None: none was.
        source: ``page``, ``csv``, ``cvat``, ...: how it came in.
        uuid: of this very word; the same one again changes nothing.
    """

    query_id: str
    annotator: str
    status: str
    class_name: str | None = None
    milliseconds: int | None = None
    prediction: str | None = None
    source: str
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, kw_only=True)
class StoredAnswer(NewAnswer):
    """A row of `answers`.

    Attributes:
        revision: of the query, from 1, whoever spoke.
        time: seconds since 1970 at which it was stored.
    """

    revision: int
    time: float


@dataclass(frozen=True)
class QueryState:
    """Where a query stands.

    Attributes:
        revision: rows stored for it.
        seconds: that all its answers took together; None: no time is known.
        settled: what they come to; None: it waits.
    """

    votes: tuple[Vote, ...] = ()
    revision: int = 0
    seconds: float | None = None
    settled: Settled | None = None

    @property
    def is_disputed(self) -> bool:
        """Tell whether opinions differ and a third one is awaited."""
        return self.settled is None and bool(_spoken(self))


def how_to_settle(run: str) -> str:
    """Return what ends a dispute: those two are not asked again, so that nothing comes by itself.

    >>> how_to_settle("runs/a")  # doctest: +ELLIPSIS
    'a third annotator settles them (`madbal annotate runs/a --annotator NAME`), or one of ...'
    """
    return (
        f"a third annotator settles them (`madbal annotate {run} --annotator NAME`), or one of the "
        "two who changes their answer"
    )


@dataclass(frozen=True)
class RoundProgress:
    """Queries of a round.

    Attributes:
        disputed: of those that wait, how many have opinions that differ.
    """

    asked: int = 0
    answered: int = 0
    disputed: int = 0


@dataclass(frozen=True)
class AnnotatorProgress:
    """What one annotator did.

    Attributes:
        answered: queries, undone ones left out.
        waiting: queries that wait and that this annotator has not answered.
        seconds: of all answers, undone ones included.
    """

    answered: int
    waiting: int
    seconds: float


@dataclass(frozen=True)
class AnswerProgress:
    """Where a run's queries stand, by round (-1: evaluation points) and by annotator."""

    rounds: Mapping[int, RoundProgress]
    annotators: Mapping[str, AnnotatorProgress]


def count_progress(
    states: Mapping[str, QueryState], round_of: Mapping[str, int], seconds: Mapping[str, float]
) -> AnswerProgress:
    """Return how many queries are answered and wait.

    Args:
        round_of: query_id -> round.
        seconds: annotator -> time spent.
    """
    rounds: dict[int, RoundProgress] = {}
    waiting: list[list[str]] = []
    answered: Counter[str] = Counter()
    for query_id in sorted(states, key=lambda name: round_of[name]):
        state, index = states[query_id], round_of[query_id]
        old, spoken = rounds.get(index, RoundProgress()), _spoken(state)
        is_open = state.settled is None
        rounds[index] = RoundProgress(
            old.asked + 1, old.answered + (not is_open), old.disputed + state.is_disputed
        )
        answered.update(spoken)
        if is_open:
            waiting.append(spoken)
    return AnswerProgress(
        rounds,
        {
            name: AnnotatorProgress(
                answered[name], sum(name not in spoken for spoken in waiting), total
            )
            for name, total in seconds.items()
        },
    )


def _spoken(state: QueryState) -> list[str]:
    return [vote.annotator for vote in state.votes if vote.status != "undone"]


def seconds_per_click(
    answers: Iterable[NewAnswer], by: Literal["annotator", "class_name"]
) -> dict[str, float]:
    """Return the median seconds of an annotator's clicks, or of those that gave a class, by name.

    Answers that were taken back later count, the click that took them back does not.
    """
    grouped: dict[str, list[int]] = {}
    for answer in answers:
        key = getattr(answer, by)
        if answer.status != "undone" and answer.milliseconds is not None and key is not None:
            grouped.setdefault(key, []).append(answer.milliseconds)
    return {key: median(values) / 1000 for key, values in sorted(grouped.items())}
