"""Progress on a terminal: one live line; plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class PlainLines:
    """One line when a stage is done; for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.title = ""
        self.images = 0

    def start_stage(self, title: str, total: int | None) -> None:
        """Remember the title."""
        self.title, self.images = title, 0

    def advance(self, images: int) -> None:
        """Count."""
        self.images += images

    def on_training(self, progress: dict[str, Any]) -> None:
        """Print the last epoch of a phase."""
        if progress["epoch"] == progress["epochs"]:
            self.say(
                f"round {progress['round']} {progress['phase']}: {progress['epochs']} epochs, "
                f"loss {progress['loss']:.4f}"
            )

    def end_stage(self, seconds: float) -> None:
        """Print what was done."""
        rate = f", {self.images / seconds:.1f} images/s" if self.images and seconds else ""
        self.say(f"{self.title}: {seconds:.1f} s{rate}")

    def say(self, text: str) -> None:
        """Print one line, in colour where it warns."""
        style = "bold yellow" if text.startswith("warning: ") else None
        self.console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


class LiveLine(PlainLines):
    """A bar for the running stage, above it the lines of what is done."""

    def __init__(self, console: Console, bar: Progress) -> None:
        super().__init__(console)
        self.bar = bar
        self.task: Any = None

    def start_stage(self, title: str, total: int | None) -> None:
        """Show a bar."""
        super().start_stage(title, total)
        self.task = self.bar.add_task(title, total=total)

    def advance(self, images: int) -> None:
        """Move the bar."""
        super().advance(images)
        self.bar.update(self.task, advance=images)

    def on_training(self, progress: dict[str, Any]) -> None:
        """Show epochs in the bar."""
        title = f"round {progress['round']} {progress['phase']} loss {progress['loss']:.4f}"
        self.bar.update(
            self.task,
            description=title,
            total=progress["epochs"],
            completed=progress["epoch"],
        )

    def end_stage(self, seconds: float) -> None:
        """Replace the bar by a line."""
        self.bar.remove_task(self.task)
        super().end_stage(seconds)


@contextmanager
def make_progress(console: Console) -> Iterator[PlainLines]:
    """Return the view that suits the console."""
    if not console.is_terminal:
        yield PlainLines(console)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield LiveLine(console, bar)
