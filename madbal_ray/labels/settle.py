"""What several people's answers to one query come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ENOUGH = 3
"""Opinions after which a query without a majority is given up: nobody else is asked."""

OPINIONS = ("labelled", "void")
"""Statuses that say something about the pixel; ``skipped`` and ``unsure`` do not."""


@dataclass(frozen=True)
class Vote:
    """The latest answer of one annotator to one query.

    Attributes:
        status: ``labelled``, ``void``, ``skipped``, ``unsure``; ``undone``: taken back.
        class_name: where the status is ``labelled``, else None.
    """

    annotator: str
    status: str
    class_name: str | None = None


@dataclass(frozen=True)
class Settled:
    """What a query was answered with.

    Attributes:
        annotators: who said so, sorted.
    """

    status: str
    class_name: str | None
    annotators: tuple[str, ...]


def settle(votes: Sequence[Vote]) -> Settled | None:
    """Return what votes come to; None: the query waits for somebody, first or further.

    One opinion is enough; two that differ wait for a third; more than half of them win. Three or
    more without a majority are ``unsure``. Without any opinion, the query is ``unsure`` where
    somebody was, else ``skipped``.

    >>> settle([Vote("ada", "labelled", "sky"), Vote("bob", "void")]) is None
    True
    """
    given = [vote for vote in votes if vote.status != "undone"]
    if not given:
        return None
    opinions = [vote for vote in given if vote.status in OPINIONS]
    if not opinions:
        status = "unsure" if any(vote.status == "unsure" for vote in given) else "skipped"
        return Settled(status, None, _names(vote for vote in given if vote.status == status))
    counts = Counter((vote.status, vote.class_name) for vote in opinions)
    (status, class_name), most = counts.most_common(1)[0]
    if 2 * most > len(opinions):
        return Settled(
            status,
            class_name,
            _names(v for v in opinions if (v.status, v.class_name) == (status, class_name)),
        )
    if len(opinions) < ENOUGH:
        return None
    return Settled("unsure", None, _names(opinions))


def _names(votes: Iterable[Vote]) -> tuple[str, ...]:
    return tuple(sorted(vote.annotator for vote in votes))
