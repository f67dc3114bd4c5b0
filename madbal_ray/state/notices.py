"""What went wrong and was mended: noted in each process, counted and told by the driver."""

from __future__ import annotations

import logging
import threading

LOGGER = logging.getLogger("madbal_ray")

Notices = dict[str, tuple[int, str]]
"""Kind -> how often, and the last one's text."""

_noted: Notices = {}
_lock = threading.Lock()


def note(kind: str, text: str) -> None:
    """Note what happened in this process, and log it.

    Args:
        kind: what was done about it, a few words.
    """
    LOGGER.warning("%s: %s", kind, text)
    with _lock:
        add(_noted, kind, 1, text)


def take() -> Notices:
    """Return and forget what was noted since the last call."""
    with _lock:
        taken = dict(_noted)
        _noted.clear()
    return taken


def add(notices: Notices, kind: str, count: int, text: str) -> None:
    """Count something in."""
    notices[kind] = (notices.get(kind, (0, ""))[0] + count, text)
