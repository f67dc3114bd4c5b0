"""Options that commands share: which engine, what to change, where Ray is, whose lease."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import Any

import click

from madbal_ray.errors import ConfigError

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


def account_name() -> str:
    """Return who runs the command: who answers where nobody is named.

    Raises:
        ConfigError: the account has no name, as in containers without an entry in passwd.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # OSError since Python 3.13
        raise ConfigError(
            "this account has no name (none of LOGNAME, USER, LNAME, USERNAME is set, and the "
            "system knows none); say who answers with --annotator NAME"
        ) from None
