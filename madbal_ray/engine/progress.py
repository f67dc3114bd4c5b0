"""What a run tells people while it works."""

from __future__ import annotations

import logging
from typing import Any, Protocol, runtime_checkable

LOGGER = logging.getLogger("madbal_ray")


@runtime_checkable
class Progress(Protocol):
    """A view of a running loop; implementations must not raise."""

    def start_stage(self, title: str, total: int | None) -> None:
        """A stage begins; `total` images are ahead (None: not counted in images)."""
        ...

    def advance(self, images: int) -> None:
        """So many more images are done."""
        ...

    def on_training(self, progress: dict[str, Any]) -> None:
        """An epoch of training is done."""
        ...

    def end_stage(self, seconds: float) -> None:
        """The stage is done and committed."""
        ...

    def say(self, text: str) -> None:
        """One line for the user."""
        ...


class LogProgress:
    """Plain lines through `logging`; what a notebook or a log file gets."""

    def __init__(self) -> None:
        self.title = ""

    def start_stage(self, title: str, total: int | None) -> None:
        """Remember the title; a line comes at the end."""
        self.title = f"{title} ({total} images)" if total is not None else title

    def advance(self, images: int) -> None:
        """Say nothing."""

    def on_training(self, progress: dict[str, Any]) -> None:
        """Say nothing."""

    def end_stage(self, seconds: float) -> None:
        """Log one line."""
        LOGGER.info("%s: %.1f s", self.title, seconds)

    def say(self, text: str) -> None:
        """Log one line, loud where it warns."""
        LOGGER.log(logging.WARNING if text.startswith("warning: ") else logging.INFO, "%s", text)
