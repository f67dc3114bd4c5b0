"""What people were asked and what they said: one SQLite file a run, to which rows are only added.

::

    queries    one row a question: query_id, round, purpose, image_id, pixel on both grids, unit
    answers    one row a word: uuid, query_id, annotator, status, class_name, revision, ...

Rows of `answers` are never changed nor deleted (triggers see to that): who changes their mind adds
a row with the next `revision` of the query. A commit is on the disk when it returns (WAL,
``synchronous=FULL``), and an answer with a known UUID is not added again, so that a client may
send until it hears back. What answers come to is not stored: `settle` says it.

A server of leases and second annotators makes tables of its own in the same file, inside
`AnswerStore.transaction`.

Longer than others, and one thing: all that touches the file.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from madbal_ray.errors import LabelError, RunDirError
from madbal_ray.labels.answer_rows import (
    AnswerProgress,
    NewAnswer,
    QueryState,
    StoredAnswer,
    StoredQuery,
    count_progress,
    name_problem,
)
from madbal_ray.labels.settle import Vote, settle
from madbal_ray.state.local_disk import check_local_disk
from madbal_ray.state.run_dir import RunDir

STORE_NAME = "answers.sqlite"
FORMAT = "1"
STATUSES = ("labelled", "void", "skipped", "unsure", "undone")
BUSY_SECONDS = 30.0
FULL, NORMAL = 2, 1
"""Of SQLite's `synchronous`: the log is flushed at each commit, or only when it is moved."""

INSTEAD = "keep it elsewhere with --set oracle.store=/a/local/path/answers.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS queries (
    query_id TEXT PRIMARY KEY,
    round INTEGER NOT NULL,
    purpose TEXT NOT NULL,
    image_id TEXT NOT NULL,
    image_uri TEXT NOT NULL,
    y INTEGER NOT NULL,
    x INTEGER NOT NULL,
    image_y INTEGER NOT NULL,
    image_x INTEGER NOT NULL,
    unit TEXT NOT NULL,
    superpixel_id INTEGER,
    rank INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS queries_of_image ON queries (round, image_id, rank);
CREATE TABLE IF NOT EXISTS answers (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL UNIQUE,
    query_id TEXT NOT NULL REFERENCES queries (query_id),
    annotator TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('labelled', 'void', 'skipped', 'unsure', 'undone')),
    class_name TEXT CHECK ((class_name IS NOT NULL) = (status = 'labelled')),
    revision INTEGER NOT NULL,
    milliseconds INTEGER CHECK (milliseconds >= 0),
    prediction TEXT,
    time REAL NOT NULL,
    source TEXT NOT NULL,
    UNIQUE (query_id, revision)
) STRICT;
CREATE TRIGGER IF NOT EXISTS answers_stay BEFORE UPDATE ON answers
BEGIN SELECT RAISE(ABORT, 'answers are never changed: add a revision'); END;
CREATE TRIGGER IF NOT EXISTS answers_remain BEFORE DELETE ON answers
BEGIN SELECT RAISE(ABORT, 'answers are never deleted: add a revision'); END;
"""


class AnswerStore:
    """The answers of one run; one object a thread, any number of processes on the machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            (mode,) = self._connection.execute("PRAGMA journal_mode=WAL").fetchone()
            self._connection.execute("PRAGMA foreign_keys=ON")
        except sqlite3.Error as error:
            raise RunDirError(f"{path} cannot be opened as a store of answers: {error}") from None
        if mode != "wal":
            raise RunDirError(
                f"{path}: this disk keeps no write-ahead log (SQLite says {mode!r}); {INSTEAD}"
            )

    @classmethod
    def create(cls, place: str, *, run_id: str, class_names: Sequence[str]) -> AnswerStore:
        """Open the store of a run, made where there is none.

        Raises:
            RunDirError: the place is no local disk, or the file is no store.
            LabelError: it belongs to another run, or the run's classes have changed.
        """
        path = check_local_disk(place, what="the store of answers", instead=INSTEAD)
        path.parent.mkdir(parents=True, exist_ok=True)
        store = cls(path)
        wanted = {"format": FORMAT, "run_id": run_id, "class_names": json.dumps(list(class_names))}
        with store.transaction() as connection:
            for statement in _statements(_SCHEMA):
                connection.execute(statement)
            connection.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", wanted.items())
        store._check(wanted)
        return store

    @classmethod
    def open(cls, place: str) -> AnswerStore:
        """Open the store of a run that asks people.

        Raises:
            RunDirError: there is none, the place is no local disk, or the file is no store.
        """
        path = check_local_disk(place, what="the store of answers", instead=INSTEAD)
        if not path.is_file():
            raise RunDirError(
                f"{path} does not exist: nobody was asked yet; run `madbal run` with oracle: "
                "people first"
            )
        store = cls(path)
        store._check({"format": FORMAT})
        return store

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextmanager
    def transaction(self, *, waits_for_disk: bool = True) -> Iterator[sqlite3.Connection]:
        """Write as one: everything inside is on the disk when this ends, or nothing is.

        Args:
            waits_for_disk: False: a process that is killed loses nothing, a machine that loses its
                power may lose the whole of it; of what is no answer.
        """
        try:
            self._connection.execute(f"PRAGMA synchronous={FULL if waits_for_disk else NORMAL}")
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")
        except sqlite3.IntegrityError:  # a rule of the tables: the caller's mistake
            raise
        except sqlite3.Error as error:  # of a full disk, a damaged file, a lock that stays
            raise RunDirError(f"{self.path} cannot be written: {error}") from error
        finally:
            if self._connection.in_transaction:  # SQLite may have rolled back by itself
                self._connection.execute("ROLLBACK")

    @property
    def run_id(self) -> str:
        """Return the identity of the run that asks."""
        return self._meta()["run_id"]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names that an answer may give, by class id."""
        return tuple(json.loads(self._meta()["class_names"]))

    def _meta(self) -> dict[str, str]:
        return dict(self._rows("SELECT key, value FROM meta"))

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise RunDirError(
                f"{self.path} is no store of answers, or is damaged: {error}"
            ) from None

    def _check(self, wanted: Mapping[str, str]) -> None:
        found = self._meta()
        if found.get("format") != wanted["format"]:
            raise RunDirError(
                f"{self.path} has format {found.get('format')}, this program reads {FORMAT}; "
                "install the version that made it"
            )
        if found["run_id"] != wanted.get("run_id", found["run_id"]):
            raise LabelError(
                f"{self.path} holds the answers of run {found['run_id']}, not of "
                f"{wanted['run_id']}; give each run a store of its own (oracle.store)"
            )
        if found["class_names"] != wanted.get("class_names", found["class_names"]):
            raise LabelError(
                f"{self.path}: people were asked about the classes {found['class_names']}, the "
                f"data set has {wanted['class_names']} now; restore its class list, or start "
                "another run"
            )

    def post(self, queries: Iterable[StoredQuery]) -> int:
        """Ask; queries that were posted before are left as they are. Return how many are new."""
        names = [column.name for column in fields(StoredQuery)]
        marks = ", ".join("?" * len(names))
        rows = ([getattr(query, name) for name in names] for query in queries)
        with self.transaction() as connection:
            before = connection.total_changes
            connection.executemany(
                f"INSERT OR IGNORE INTO queries ({', '.join(names)}) VALUES ({marks})", rows
            )
            return connection.total_changes - before

    def append(self, answers: Sequence[NewAnswer]) -> list[int]:
        """Add answers, all or none; return the revision of each.

        An answer whose UUID is known is not added again; its revision is returned.

        Raises:
            LabelError: a query or class is unknown, a status does not fit its class, a name is
                unusable, or a UUID was used for other words; nothing was added.
        """
        with self.transaction() as connection:
            classes = set(self.class_names)
            return [self._append(connection, answer, classes) for answer in answers]

    def _append(self, connection: sqlite3.Connection, answer: NewAnswer, classes: set[str]) -> int:
        known = connection.execute(
            "SELECT query_id, annotator, status, class_name, revision FROM answers WHERE uuid = ?",
            (answer.uuid,),
        ).fetchone()
        words = (answer.query_id, answer.annotator, answer.status, answer.class_name)
        if known is not None:
            if known[:4] != words:
                raise LabelError(
                    f"answer {answer.uuid} says {words}, the store has {known[:4]} under that "
                    "UUID; give every answer a UUID of its own"
                )
            return known[4]
        problem = self._problem(connection, answer, classes)
        if problem is not None:
            raise LabelError(problem)
        (revision,) = connection.execute(
            "SELECT COALESCE(MAX(revision), 0) + 1 FROM answers WHERE query_id = ?",
            (answer.query_id,),
        ).fetchone()
        connection.execute(
            "INSERT INTO answers (uuid, query_id, annotator, status, class_name, revision, "
            "milliseconds, prediction, time, source) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                answer.uuid,
                *words,
                revision,
                answer.milliseconds,
                answer.prediction,
                time.time(),
                answer.source,
            ),
        )
        return revision

    @staticmethod
    def _problem(
        connection: sqlite3.Connection, answer: NewAnswer, classes: set[str]
    ) -> str | None:
        found = "SELECT 1 FROM queries WHERE query_id = ?"
        if connection.execute(found, (answer.query_id,)).fetchone() is None:
            return f"query {answer.query_id!r} was never asked by this run"
        if answer.status not in STATUSES:
            return f"status {answer.status!r}; expected one of {', '.join(STATUSES)}"
        if (answer.status == "labelled") != (answer.class_name is not None):
            return (
                f"status {answer.status!r} with class {answer.class_name!r}; only labelled has one"
            )
        for name in (answer.class_name, answer.prediction):
            if name is not None and name not in classes:
                return f"class {name!r} is none of the run's: {', '.join(sorted(classes))}"
        if answer.milliseconds is not None and answer.milliseconds < 0:
            return f"{answer.milliseconds} milliseconds; expected none or more"
        return name_problem(answer.annotator)

    def data_version(self) -> int:
        """Return a number that changes when another connection has written."""
        return self._rows("PRAGMA data_version")[0][0]

    def num_queries(self) -> int:
        """Return how many queries were posted."""
        return self._rows("SELECT COUNT(*) FROM queries")[0][0]

    def num_answers(self) -> int:
        """Return how many rows `answers` has."""
        return self._rows("SELECT COALESCE(MAX(sequence), 0) FROM answers")[0][0]

    def queries(self, round_index: int | None = None) -> list[StoredQuery]:
        """Return the queries of a round (None: of all), by image_id and rank."""
        names = [column.name for column in fields(StoredQuery)]
        where, values = _of_round(round_index)
        rows = self._rows(
            f"SELECT {', '.join(names)} FROM queries{where} ORDER BY round, image_id, rank", values
        )
        return [StoredQuery(**dict(zip(names, row, strict=True))) for row in rows]

    def answers(self, query_id: str | None = None) -> list[StoredAnswer]:
        """Return everything that was said (to one query), in the order in which it was stored."""
        names = [column.name for column in fields(StoredAnswer)]
        where, values = ("", ()) if query_id is None else (" WHERE query_id = ?", (query_id,))
        rows = self._rows(
            f"SELECT {', '.join(names)} FROM answers{where} ORDER BY sequence", values
        )
        return [StoredAnswer(**dict(zip(names, row, strict=True))) for row in rows]

    def progress(self, states: Mapping[str, QueryState] | None = None) -> AnswerProgress:
        """Return how many queries are answered and wait, by round and by annotator.

        Args:
            states: of all queries, where they were read already.
        """
        states = self.states() if states is None else states
        round_of = dict(self._rows("SELECT query_id, round FROM queries"))
        seconds = self._rows(
            "SELECT annotator, COALESCE(SUM(milliseconds), 0) / 1000.0 FROM answers "
            "GROUP BY annotator ORDER BY annotator"
        )
        return count_progress(states, round_of, dict(seconds))

    def states(self, round_index: int | None = None) -> dict[str, QueryState]:
        """Return where every query of a round (None: of all) stands, by query_id."""
        where, values = _of_round(round_index)
        rows = self._rows(
            "SELECT query_id, annotator, status, class_name, revision, milliseconds FROM queries "
            f"LEFT JOIN answers USING (query_id){where} ORDER BY query_id, revision",
            values,
        )
        votes: dict[str, dict[str, Vote]] = {}
        revisions: dict[str, int] = {}
        milliseconds: dict[str, int] = {}
        for query_id, annotator, status, class_name, revision, visible in rows:
            latest = votes.setdefault(query_id, {})
            if annotator is None:
                continue
            latest[annotator] = Vote(annotator, status, class_name)
            revisions[query_id] = revision
            if visible is not None:
                milliseconds[query_id] = milliseconds.get(query_id, 0) + visible
        return {
            query_id: QueryState(
                votes=tuple(latest.values()),
                revision=revisions.get(query_id, 0),
                seconds=milliseconds[query_id] / 1000 if query_id in milliseconds else None,
                settled=settle(tuple(latest.values())),
            )
            for query_id, latest in votes.items()
        }


def store_place(option: str | None, run_dir: RunDir) -> str:
    """Return where a run's answers lie: `oracle.store`, or its folder."""
    return option if option is not None else run_dir.folder.file_uri(STORE_NAME)


def _of_round(round_index: int | None) -> tuple[str, tuple[int, ...]]:
    return ("", ()) if round_index is None else (" WHERE round = ?", (round_index,))


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script one by one: `executescript` would commit before it."""
    part = ""
    for line in script.strip().splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            yield part
            part = ""
