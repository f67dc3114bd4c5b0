"""The tree of errors a user can meet.

Every message says what was got, what was expected, where, and what to do next.
Each class is also the builtin that Python code would expect at that place, and
carries the exit code that the command line ends with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class MadbalError(Exception):
    """Base of every error raised on purpose by this package."""

    exit_code = 1


class ConfigError(MadbalError, ValueError):
    """A configuration cannot be used; the message lists every finding at once."""

    exit_code = 2


class ShapeError(MadbalError, ValueError):
    """An array handed to a kernel has the wrong shape, range or length."""


class DataError(MadbalError, ValueError):
    """A data set, image or mask cannot be used as asked; the file is named."""


class BadImageError(DataError):
    """One image cannot be decoded without loss; it is quarantined with `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PoolError(DataError):
    """The pool as a whole cannot be used (empty, too many bad images, too small)."""


class LabelError(MadbalError, ValueError):
    """The label store and the ledger disagree, or labels cannot be used."""


class NumericalError(MadbalError, ArithmeticError):
    """A model or a score produced NaN or infinity; image, round and stage are named."""


class ResourceError(MadbalError, RuntimeError):
    """Something asked for (a GPU, a package, CPUs) is not here."""


class RunDirError(MadbalError, OSError):
    """A run folder cannot be read or written."""


class LockedError(RunDirError):
    """Another process holds the run folder."""


class IntegrityError(RunDirError):
    """A file differs from what its marker promises."""


class StageError(MadbalError, RuntimeError):
    """A stage failed on a worker; image, round and stage are named."""


class AnswersPending(MadbalError):  # noqa: N818  (not a failure: somebody is awaited)
    """Somebody has not answered yet; the same command carries on when they have.

    Attributes:
        count: queries that wait.
    """

    exit_code = 3

    def __init__(self, message: str, count: int) -> None:
        super().__init__(message)
        self.args = (message, count)  # what a copy in another process is made of
        self.count = count

    def __str__(self) -> str:
        return str(self.args[0])


def pack(error: MadbalError) -> dict[str, Any]:
    """Return one of our errors as JSON values, for a manifest row or a worker's return value."""
    return {"type": type(error).__name__, "args": list(error.args), "text": str(error)}


def unpack(packed: Mapping[str, Any]) -> MadbalError:
    """Return the error that was packed; a plug-in's own class comes back as a `StageError`."""
    kind = globals().get(packed["type"])
    if isinstance(kind, type) and issubclass(kind, MadbalError):
        return kind(*packed["args"])
    return StageError(packed["text"])


def one_line(error: Exception) -> str:
    """Return the text of a library's error in one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
