"""What the formats of other tools share: words for answers, names of images, JSON from outside."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from madbal_ray.errors import DataError
from madbal_ray.labels.answer_rows import StoredQuery
from madbal_ray.labels.settle import Settled, Vote

UNDEFINED, VOID, SKIP = "__undefined__", "void", "skip"
MOST_SHOWN = 60
"""Characters of a foreign text in a message."""


@dataclass(frozen=True)
class Words:
    """The values of a tool's list of classes: the run's classes and three words of our own.

    A word that is the name of a class gets underscores, so that none means two things.

    >>> words = words_for(["sky", "void"])
    >>> words.choices
    ('__undefined__', 'sky', 'void', '__void__', 'skip')
    >>> words.meaning("__void__"), words.meaning("void"), words.meaning("__undefined__")
    (('void', ''), ('labelled', 'void'), ('', ''))
    """

    class_names: tuple[str, ...]
    undefined: str
    void: str
    skip: str

    @property
    def choices(self) -> tuple[str, ...]:
        """Return all values; the first one is that of a query without an answer."""
        return (self.undefined, *self.class_names, self.void, self.skip)

    def word(self, answer: Settled | Vote | None) -> str:
        """Return what an answer is called; ``unsure`` has no word and stays open."""
        if answer is None:
            return self.undefined
        statuses = {"void": self.void, "skipped": self.skip}
        return answer.class_name or statuses.get(answer.status, self.undefined)

    def meaning(self, word: str) -> tuple[str, str]:
        """Return status and class name; what is no word of ours is taken as a class."""
        if word in self.class_names:
            return "labelled", word
        statuses = {"": "", self.undefined: "", self.void: "void", self.skip: "skipped"}
        return (statuses[word], "") if word in statuses else ("labelled", word)


def words_for(class_names: Sequence[str]) -> Words:
    """Return the words for a run's classes."""
    return Words(
        tuple(class_names), *(_free(word, class_names) for word in (UNDEFINED, VOID, SKIP))
    )


def _free(word: str, taken: Sequence[str]) -> str:
    while word in taken:
        word = f"__{word}__"
    return word


def by_image(queries: Iterable[StoredQuery]) -> list[tuple[str, list[StoredQuery]]]:
    """Return (image_uri, its queries), by image_uri: the order in which tools number frames."""
    found: dict[str, list[StoredQuery]] = {}
    for query in queries:
        found.setdefault(query.image_uri, []).append(query)
    return sorted(found.items())


def image_said(query: StoredQuery | None, name: str) -> str:
    """Return the image_id for a file name that a tool gave back, the name itself where it differs.

    Tools cut folders off the front: ``a.png`` stands for ``images/a.png``.
    """
    if query is not None and f"/{query.image_uri}".endswith(f"/{name}"):
        return query.image_id
    return name


def read_text(path: Path, *, instead: str = "save it as UTF-8") -> str:
    """Return a file of text from outside.

    Args:
        instead: what to do about a file in another encoding.

    Raises:
        DataError: unreadable or no UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; {instead}") from None


def read_json(path: Path) -> Any:
    """Return a document of JSON from outside.

    Raises:
        DataError: unreadable, no UTF-8, no JSON, or nested without end.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except RecursionError:
        raise DataError(f"{path}: no JSON of answers: nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{path}: no JSON ({error}); expected the tool's JSON export") from None


def number(value: object) -> float | None:
    """Return a finite number of JSON, None where it is none (``true`` is none)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond every float
        return None


def finite(text: str) -> float | None:
    """Return the finite number that text stands for, None where it stands for none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def shown(value: object) -> str:
    """Return a foreign value for a message, cut where it is long."""
    return cut(repr(value))


def cut(text: str) -> str:
    """Return foreign text for a message, cut where it is long."""
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."
