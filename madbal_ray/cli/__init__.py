"""The command line: thin; Ray is imported only where it is asked for."""

from __future__ import annotations

import sys
from typing import Any

import click

from madbal_ray import __version__
from madbal_ray.errors import AnswersPending, MadbalError

COMPLETION = (
    """Completion in bash (zsh, fish alike): eval "$(_MADBAL_COMPLETE=bash_source madbal)" """
)


class _Group(click.Group):
    """A group that turns our errors into one clear message and an exit code."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, none of their lines cut."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, one.get_short_help_str(limit=500)) for name, one in commands if one]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except AnswersPending as pending:
            line = f"waiting for {pending.count} answers: {pending}"
            click.echo(f"{line}; the same command carries on", err=True)
            sys.exit(pending.exit_code)
        except MadbalError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)
        except OSError as error:  # of a disk or a network, where no room had more to say
            where = f"{error.filename}: " if error.filename else ""
            click.echo(f"error: {where}{error.strerror or error}", err=True)
            sys.exit(MadbalError.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted; the same command carries on", err=True)
            sys.exit(130)


@click.group(
    cls=_Group, epilog=COMPLETION, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="madbal")
def main() -> None:
    """Active learning for semantic segmentation at cluster scale (MADBAL on Ray)."""


def _register() -> None:
    from madbal_ray.cli import (
        annotate,
        data,
        presets,
        ranks,
        report,
        requests,
        run,
        score,
        status,
        steps,
        suite,
        tune,
        verify,
    )

    modules = (
        run,
        suite,
        score,
        tune,
        status,
        report,
        verify,
        requests,
        annotate,
        data,
        presets,
        ranks,
    )
    for module in modules:
        main.add_command(module.command)
    for one in (score.predict, score.export, *steps.COMMANDS):
        main.add_command(one)


_register()
