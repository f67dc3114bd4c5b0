"""Who answers what next: leases of some queries of one image, for two minutes at a time.

A lease lives in memory and is renewed by answers and by `WorkQueue.renew`, not by asking for more;
who was given which query is also a row of table `leases` in the store's file, so that a server that
was killed gives the same queries to the same people again. One server a store
(`madbal_ray.annotate.serve` sees to that).

What other programs write into the store meanwhile (a new round, imported answers) is taken up at
the next lease or answer.

Longer than others: leases, votes and disputes of a query end one another, in one place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from madbal_ray.annotate.shares import is_asked_twice
from madbal_ray.errors import ConfigError, LabelError
from madbal_ray.labels.answer_rows import NewAnswer, StoredQuery
from madbal_ray.labels.answer_store import AnswerStore
from madbal_ray.labels.settle import Settled, Vote, settle

TTL_SECONDS = 120.0
USUAL, MOST = 12, 16
"""Queries of a lease; an image with no more than `MOST` is given whole."""

OVERLAP = 0.08
"""Share of queries that a second annotator is asked, too."""

HISTORY = 500
"""Own answers that the arrow keys reach after the page was opened anew."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
    query_id TEXT NOT NULL REFERENCES queries (query_id),
    annotator TEXT NOT NULL,
    time REAL NOT NULL,
    PRIMARY KEY (query_id, annotator)
) STRICT, WITHOUT ROWID
"""

_Image = tuple[int, str]


@dataclass
class _Item:
    """A query, what was said of it, and who has it.

    Attributes:
        votes: annotator -> latest answer, undone ones left out.
        leases: annotator -> end of the lease, on the queue's clock.
        given_to: everyone who ever had it.
    """

    query: StoredQuery
    is_twice: bool
    votes: dict[str, Vote] = field(default_factory=dict)
    leases: dict[str, float] = field(default_factory=dict)
    given_to: set[str] = field(default_factory=set)
    settled: Settled | None = None

    @property
    def wanted(self) -> int:
        """Return how many answers there should be."""
        given = len(self.votes)
        if self.settled is None and given:
            return given + 1
        return max(given, 2 if self.is_twice else 1)

    def is_open(self, annotator: str, now: float) -> bool:
        """Return whether an annotator may be given it."""
        if annotator in self.votes:
            return False
        missing = self.wanted - len(self.votes)
        return missing > sum(
            end > now
            for name, end in self.leases.items()
            if name != annotator and name not in self.votes
        )


class WorkQueue:
    """Leases of a store's queries; one thread at a time."""

    def __init__(
        self,
        store: AnswerStore,
        *,
        overlap: float = OVERLAP,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 <= overlap <= 1:
            raise ConfigError(f"an overlap of {overlap}; expected a share from 0 to 1")
        self.store = store
        self.overlap = overlap
        self._clock = clock
        self._items: dict[str, _Item] = {}
        self._open: dict[_Image, dict[str, _Item]] = {}
        self._held: dict[str, dict[str, _Item]] = {}
        self._said: dict[str, set[_Image]] = {}  # whose every open query the annotator answered
        self._seen_answer = 0
        self._seen_version = -1
        self.waiting = 0
        self._disputed: set[str] = set()
        with store.transaction() as connection:
            connection.execute(_SCHEMA)
        self._catch_up()
        self._restore()

    def _restore(self) -> None:
        with self.store.transaction() as connection:
            rows = connection.execute(
                "SELECT query_id, annotator FROM leases ORDER BY time DESC"
            ).fetchall()
        now = self._clock()
        for query_id, annotator in rows:
            item = self._items[query_id]
            item.given_to.add(annotator)
            if item.is_open(annotator, now):  # the latest lease first: earlier ones had ended
                self._hold(item, annotator, now + TTL_SECONDS)

    def query(self, query_id: str, annotator: str) -> StoredQuery | None:
        """Return a query that the annotator was given at some time; None: there is none."""
        item = self._items.get(query_id)
        return None if item is None or annotator not in item.given_to else item.query

    def lease(self, annotator: str, have: Collection[str] = ()) -> list[StoredQuery]:
        """Give queries of one image; what the annotator holds and did not get comes first.

        Args:
            have: query_ids that the annotator's page has or has answered.

        Returns:
            At most `MOST` queries by rank; none: there is nothing to do for this annotator.
        """
        self._catch_up()
        now = self._clock()
        lost = [
            item
            for query_id, item in self._still_held(annotator, now).items()
            if query_id not in have and item.is_open(annotator, now)
        ]
        given = _of_one_image(lost) or self._choose(annotator, have, now)
        given.sort(key=lambda item: item.query.rank)  # who took one back finds it where it was
        with self.store.transaction(waits_for_disk=False) as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?)",
                [(item.query.query_id, annotator, time.time()) for item in given],
            )
        for item in given:
            item.given_to.add(annotator)
            self._hold(item, annotator, now + TTL_SECONDS)
        return [item.query for item in given]

    def renew(self, annotator: str) -> None:
        """Let the annotator keep what it holds for another `TTL_SECONDS`."""
        now = self._clock()
        for item in self._still_held(annotator, now).values():
            item.leases[annotator] = now + TTL_SECONDS

    def _still_held(self, annotator: str, now: float) -> dict[str, _Item]:
        """Forget what has expired; return the rest of what the annotator holds."""
        held = self._held.setdefault(annotator, {})
        for query_id, item in list(held.items()):
            if item.leases[annotator] <= now:
                del held[query_id], item.leases[annotator]
        return held

    def record(self, annotator: str, answers: Sequence[NewAnswer]) -> list[int]:
        """Store answers, all or none; return the revision of each.

        Raises:
            LabelError: as `AnswerStore.append`, or the annotator was never given a query.
        """
        self._catch_up()
        for answer in answers:
            if answer.annotator != annotator or self.query(answer.query_id, annotator) is None:
                raise LabelError(f"query {answer.query_id!r} was not given to {annotator!r}")
        revisions = self.store.append(answers)
        self._take_answers()
        self.renew(annotator)
        return revisions

    @property
    def disputed(self) -> int:
        """Return on how many of the queries that wait two people differ."""
        return len(self._disputed)

    def answered(self, annotator: str) -> int:
        """Return how many queries the annotator has answered, on the page or elsewhere."""
        self._catch_up()
        return sum(annotator in item.votes for item in self._items.values())

    def history(self, annotator: str) -> list[tuple[StoredQuery, Vote]]:
        """Return the annotator's latest answers, the newest last."""
        with self.store.transaction() as connection:
            rows = connection.execute(
                "SELECT query_id, MAX(sequence) AS latest FROM answers WHERE annotator = ? "
                "GROUP BY query_id ORDER BY latest DESC LIMIT ?",
                (annotator, HISTORY),
            ).fetchall()
        items = [self._items[query_id] for query_id, _ in reversed(rows) if query_id in self._items]
        return [
            (item.query, item.votes[annotator])
            for item in items
            if annotator in item.votes and annotator in item.given_to
        ]

    def _choose(self, annotator: str, have: Collection[str], now: float) -> list[_Item]:
        """Return open queries of the first image that nobody else is at, else of the first."""
        shared: list[_Item] = []
        said = self._said.setdefault(annotator, set())
        for image, items in self._open.items():
            if image in said:
                continue
            if all(annotator in item.votes for item in items.values()):
                said.add(image)  # they wait for somebody else, maybe for long
                continue
            is_busy = any(
                end > now
                for item in items.values()
                for name, end in item.leases.items()
                if name != annotator
            )
            if is_busy and shared:
                continue
            free = [
                item
                for query_id, item in items.items()
                if query_id not in have and item.is_open(annotator, now)
            ]
            if free and not is_busy:
                return free if len(free) <= MOST else free[:USUAL]
            shared = shared or free
        return shared if len(shared) <= MOST else shared[:USUAL]

    def _hold(self, item: _Item, annotator: str, end: float) -> None:
        item.leases[annotator] = end
        self._held.setdefault(annotator, {})[item.query.query_id] = item

    def _catch_up(self) -> None:
        """Take up what other connections wrote."""
        version = self.store.data_version()
        if version != self._seen_version:
            self._take_queries()
            self._take_answers()
            self._seen_version = version

    def _take_queries(self) -> None:
        if self.store.num_queries() == len(self._items):
            return
        for query in self.store.queries():
            if query.query_id not in self._items:
                self._add(query)

    def _add(self, query: StoredQuery) -> None:
        item = _Item(query, is_asked_twice(query.query_id, self.overlap))
        self._items[query.query_id] = item
        self._open.setdefault((query.round, query.image_id), {})[query.query_id] = item
        self.waiting += 1

    def _take_answers(self) -> None:
        with self.store.transaction() as connection:
            rows = connection.execute(
                "SELECT sequence, query_id, annotator, status, class_name FROM answers "
                "WHERE sequence > ? ORDER BY sequence",
                (self._seen_answer,),
            ).fetchall()
        if any(query_id not in self._items for _, query_id, *_ in rows):
            self._take_queries()  # posted and answered since the last look
        for sequence, query_id, annotator, status, class_name in rows:
            item = self._items[query_id]
            if status == "undone":
                item.votes.pop(annotator, None)
                if annotator in item.given_to:  # who takes an answer back, answers again
                    self._hold(item, annotator, self._clock() + TTL_SECONDS)
            else:
                item.votes[annotator] = Vote(annotator, status, class_name)
                item.leases.pop(annotator, None)
                self._held.get(annotator, {}).pop(query_id, None)
            self._file(item)
            self._seen_answer = sequence

    def _file(self, item: _Item) -> None:
        """Note what its votes come to, and whether anybody is still to be asked."""
        was_waiting = item.settled is None
        item.settled = settle(tuple(item.votes.values()))
        self.waiting += (item.settled is None) - was_waiting
        is_disputed = item.settled is None and bool(item.votes)
        (self._disputed.add if is_disputed else self._disputed.discard)(item.query.query_id)
        image = (item.query.round, item.query.image_id)
        for said in self._said.values():
            said.discard(image)
        if item.wanted > len(item.votes):
            self._open.setdefault(image, {})[item.query.query_id] = item
        elif image in self._open:
            self._open[image].pop(item.query.query_id, None)
            if not self._open[image]:
                del self._open[image]


def _of_one_image(items: Sequence[_Item]) -> list[_Item]:
    return [
        item
        for item in items
        if (item.query.round, item.query.image_id)
        == (items[0].query.round, items[0].query.image_id)
    ][:MOST]
