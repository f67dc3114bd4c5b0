"""Answers from other tools: each is taken or refused on its own, and those taken go in as one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from madbal_ray.errors import ConfigError
from madbal_ray.labels.answer_rows import USABLE_NAME, NewAnswer, StoredQuery, name_problem
from madbal_ray.labels.answer_store import AnswerStore
from madbal_ray.labels.request_format import Refusal, Reply
from madbal_ray.labels.settle import Vote

GIVEN = ("labelled", "void", "skipped", "unsure")
MOST_SECONDS = 86_400.0
"""More is no time that anybody looked; it is stored as unknown, as the page's is."""


@dataclass(frozen=True)
class ImportReport:
    """What became of a file.

    Attributes:
        taken: answers that are new.
        unchanged: that the store held already.
        unanswered: queries that the file leaves open.
        replaced: of those taken, how many their annotator had answered otherwise before.
        unnamed: of those taken, how many the file does not say whose they are.
        annotators: whose the answers taken are, sorted.
    """

    taken: int
    unchanged: int
    unanswered: int
    refused: tuple[Refusal, ...]
    replaced: int = 0
    unnamed: int = 0
    annotators: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what a person reads: the counts, then refusals, those alike in one line."""
        names = f" ({', '.join(self.annotators)})" if self.annotators else ""
        again = (
            f", {self.replaced} of them in place of an earlier one of the same annotator"
            if self.replaced
            else ""
        )
        counts = (
            f"{self.taken} answers taken{names}{again}, {self.unchanged} known already, "
            f"{self.unanswered} rows without an answer, {len(self.refused)} refused"
        )
        alike: dict[tuple[str, str], list[Refusal]] = {}
        for refusal in self.refused:
            alike.setdefault((refusal.got, refusal.expected), []).append(refusal)
        return [
            counts,
            *(
                f"refused: {first}" + (f"; and {len(more)} more rows alike" if more else "")
                for first, *more in alike.values()
            ),
        ]


def import_replies(
    store: AnswerStore, replies: Iterable[Reply | Refusal], *, annotator: str, source: str
) -> ImportReport:
    """Add what fits to the store, in one transaction.

    What an annotator's latest answer to a query says already is not added again. So a file that
    is imported twice in a row changes nothing the second time, and an older file after a corrected
    one takes the corrections back, by a revision.

    Args:
        annotator: of replies that name none.
        source: name of the format.

    Raises:
        ConfigError: the annotator's name cannot be used.
    """
    problem = name_problem(annotator)
    if problem is not None:
        raise ConfigError(problem)
    queries = {query.query_id: query for query in store.queries()}
    votes = {name: state.votes for name, state in store.states().items()}
    classes = store.class_names
    accepted: dict[tuple[str, str], tuple[str, NewAnswer]] = {}
    unnamed: set[tuple[str, str]] = set()
    refused: list[Refusal] = []
    unchanged = unanswered = 0
    for reply in replies:
        if isinstance(reply, Refusal):
            refused.append(reply)
            continue
        name = annotator if reply.annotator is None else reply.annotator
        problem = _problem(reply, queries, classes, name)
        if problem is not None:
            refused.append(problem)
            continue
        if not reply.status:
            unanswered += 1
            continue
        vote = Vote(name, reply.status, reply.class_name or None)
        key = (reply.query_id, name)
        earlier = accepted.get(key)
        if earlier is not None:
            where, answer = earlier
            if (answer.status, answer.class_name) == (vote.status, vote.class_name):
                unchanged += 1
            else:
                refused.append(
                    Refusal(
                        reply.where,
                        f"{_said(vote)} for a query that {where} answers with "
                        f"{_said(Vote(name, answer.status, answer.class_name))}",
                        "one answer a query and annotator",
                    )
                )
            continue
        if reply.annotator is None:
            unnamed.add(key)
        accepted[key] = (
            reply.where,
            NewAnswer(
                query_id=reply.query_id,
                annotator=name,
                status=vote.status,
                class_name=vote.class_name,
                milliseconds=_milliseconds(reply.seconds),
                source=source,
            ),
        )
    new = [
        answer
        for _, answer in accepted.values()
        if Vote(answer.annotator, answer.status, answer.class_name) not in votes[answer.query_id]
    ]
    store.append(new)
    said = {
        (query_id, vote.annotator)
        for query_id, before in votes.items()
        for vote in before
        if vote.status != "undone"
    }
    keys = [(answer.query_id, answer.annotator) for answer in new]
    return ImportReport(
        taken=len(new),
        unchanged=unchanged + len(accepted) - len(new),
        unanswered=unanswered,
        refused=tuple(refused),
        replaced=len(said.intersection(keys)),
        unnamed=len(unnamed.intersection(keys)),
        annotators=tuple(sorted({answer.annotator for answer in new})),
    )


def _milliseconds(seconds: float | None) -> int | None:
    """Return the time that counts."""
    return None if seconds is None or seconds > MOST_SECONDS else round(1000 * seconds)


def _problem(
    reply: Reply, queries: Mapping[str, StoredQuery], classes: tuple[str, ...], annotator: str
) -> Refusal | None:
    """Return why a reply does not fit, None where it does."""
    where = reply.where
    query = queries.get(reply.query_id)
    if query is None:
        got = f"query {reply.query_id[:40]!r}"
        return Refusal(where, got, "one that this run asks; it may be another run's")
    if reply.image_id is not None and reply.image_id != query.image_id:
        return Refusal(where, f"image {reply.image_id[:80]!r}", repr(query.image_id))
    if reply.x is not None and reply.y is not None and not _is_at(query, reply.x, reply.y):
        return Refusal(
            where,
            f"a point at x {reply.x:g}, y {reply.y:g}",
            f"x {query.image_x + 0.5}, y {query.image_y + 0.5}: it was moved",
        )
    if name_problem(annotator) is not None:
        return Refusal(where, f"annotator {annotator[:40]!r}", USABLE_NAME)
    if reply.seconds is not None and reply.seconds < 0:
        return Refusal(where, f"{reply.seconds:g} seconds", "0 or more")
    if reply.status not in ("", *GIVEN):
        return Refusal(where, f"status {reply.status[:40]!r}", f"{', '.join(GIVEN)}, or nothing")
    if reply.status != "labelled":
        if reply.class_name:
            return Refusal(
                where,
                f"class {reply.class_name[:40]!r} with status {reply.status!r}",
                "status labelled, or no class",
            )
        return None
    if reply.class_name not in classes:
        return Refusal(where, f"class {reply.class_name[:40]!r}", f"one of {', '.join(classes)}")
    return None


def _is_at(query: StoredQuery, x: float, y: float) -> bool:
    return (math.floor(x), math.floor(y)) == (query.image_x, query.image_y)


def _said(vote: Vote) -> str:
    return vote.status if vote.class_name is None else repr(vote.class_name)
