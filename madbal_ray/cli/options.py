"""Options that commands share: which engine, what to change, where Ray is, whose lease."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

ENGINES = ("ray", "local")

_OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="ray",
        show_default=True,
        help="ray, or local: this process, no Ray needed.",
    ),
    click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one option."
    ),
    click.option(
        "--address", help="Ray cluster.  [default: $RAY_ADDRESS, else a private local one]"
    ),
    click.option(
        "--take-over", is_flag=True, help="Object stores: end a dead process's lease now."
    ),
)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--engine``, ``--set`` (as `overrides`), ``--address`` and ``--take-over``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
