"""What a format is in which queries go out to other tools and answers come back.

A format is one declaration in `madbal_ray.seams.REQUEST_FORMATS`: `write` and, where answers can
come back, `read`. `read` only parses; whether an answer fits its query is decided in one place
(`madbal_ray.labels.import_answers`), the same for every format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from madbal_ray.labels.answer_rows import QueryState, StoredQuery
from madbal_ray.labels.settle import Vote


@dataclass(frozen=True, kw_only=True)
class RequestBook:
    """What a format may write.

    Attributes:
        queries: to be written, by round, image_id and rank.
        states: where each stands, by query_id.
        class_names, colors: by class id; colours are RGB, 0..255.
        image_bytes: image_uri -> the encoded image.
        image_sizes: image_id -> (height, width) of the original.
    """

    queries: Sequence[StoredQuery]
    states: Mapping[str, QueryState]
    class_names: Sequence[str]
    colors: Sequence[tuple[int, int, int]]
    image_bytes: Callable[[str], bytes]
    image_sizes: Mapping[str, tuple[int, int]]

    def votes(self) -> list[tuple[StoredQuery, Vote | None]]:
        """Return every vote of the settled queries; None once for each query that waits.

        A query that waits is handed out blind, also where two have answered and differ.
        """
        return [
            (query, vote)
            for query in self.queries
            for vote in self._votes_of(self.states[query.query_id])
        ]

    @staticmethod
    def _votes_of(state: QueryState) -> Sequence[Vote | None]:
        if state.settled is None:
            return (None,)
        return [vote for vote in state.votes if vote.status != "undone"]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer as a file says it, not checked yet.

    Attributes:
        where: in the file, for messages: ``row 7``.
        image_id, x, y: as far as the format repeats them; original image, pixel centres at + 0.5.
        status: ``labelled``, ``void``, ``skipped`` or ``unsure``; empty: not answered.
        class_name: empty where there is none.
        annotator: None: the one that the importer names.
        seconds: that it took; None: not known.
    """

    where: str
    query_id: str
    image_id: str | None = None
    x: float | None = None
    y: float | None = None
    status: str
    class_name: str = ""
    annotator: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Refusal:
    """A part of a file that was not taken."""

    where: str
    got: str
    expected: str

    def __str__(self) -> str:
        return f"{self.where}: got {self.got}; expected {self.expected}"


@dataclass(frozen=True, kw_only=True)
class RequestFormat:
    """A format.

    Attributes:
        names_annotators: answers go out with who gave them, one a vote, so that they are known
            when they come back; other formats that come back hold only queries that wait.
        write: writes the queries of a book to a file or folder that is not there yet or is
            replaced, whole or not at all.
        read: yields what a file says, in its order; DataError where it cannot be read at all.
            None: nothing comes back.
    """

    name: str
    names_annotators: bool = False
    write: Callable[[RequestBook, Path], None]
    read: Callable[[Path, RequestBook], Iterator[Reply | Refusal]] | None = None
