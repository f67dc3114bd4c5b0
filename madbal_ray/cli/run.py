"""`madbal run`: start or carry on an experiment."""

from __future__ import annotations

import re
from pathlib import Path

import click
from rich.console import Console

from madbal_ray.cli.options import engine_options
from madbal_ray.errors import ConfigError


@click.command("run")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--run-dir", help="Folder of the run.  [default: runs/<config name>]")
@engine_options
@click.option("--stop-after", metavar="STAGE[:ROUND]", help="Stop when this stage is committed.")
@click.option(
    "--follow", is_flag=True, help="Stay while people answer, and go on by itself (oracle: people)."
)
@click.option("--key-file", metavar="FILE", help="Sign every round with this key.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, do nothing.")
def command(
    config: Path,
    run_dir: str | None,
    engine: str,
    overrides: tuple[str, ...],
    address: str | None,
    stop_after: str | None,
    take_over: bool,
    follow: bool,
    key_file: str | None,
    dry_run: bool,
) -> None:
    """Run the experiment in CONFIG (YAML, or a run's config.json).

    The same command with the same folder carries on where it stopped; a finished run says
    so and exits 0.
    """
    from madbal_ray import api
    from madbal_ray.cli.live_view import make_progress
    from madbal_ray.cli.summary import print_metrics
    from madbal_ray.config.file import load_config
    from madbal_ray.engine.stages import StopRequested, check_stop

    console = Console(markup=False)
    resolved = load_config(config, overrides)
    folder = run_dir if run_dir is not None else str(api.default_run_dir(resolved))
    stop = parse_stop(stop_after)
    check_stop(stop, resolved.num_rounds)
    if dry_run:
        for line in api.plan(resolved, run_dir=folder):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        return
    if key_file is None and api.is_finished(resolved, run_dir=folder):
        console.print(f"{folder} is finished: {resolved.num_rounds} rounds", soft_wrap=True)
    else:
        try:
            with make_progress(console) as progress:
                api.run(
                    resolved,
                    run_dir=folder,
                    engine="local" if engine == "local" else "ray",
                    address=address,
                    progress=progress,
                    stop_after=stop,
                    follow=follow,
                    take_over=take_over,
                    key_file=key_file,
                )
        except StopRequested as stopped:
            console.print(str(stopped))
            return
        if stop_after is not None:
            console.print(
                f"warning: --stop-after {stop_after} was not met: it was done before, or this run "
                "has no such stage in that round",
                style="bold yellow",
                soft_wrap=True,
            )
    finished = api.open_run(folder)
    print_metrics(console, finished)
    if not len(finished.metrics()):  # no masks, no evaluation.points: nothing to draw
        return
    _, written = api.report([folder], warn=console.print)
    console.print(
        f"wrote {written[0]}, {len(written) - 1} tables and charts beside it",
        highlight=False,
        soft_wrap=True,
    )


def parse_stop(text: str | None) -> tuple[str, int | None] | None:
    """Parse STAGE or STAGE:ROUND."""
    if text is None:
        return None
    match = re.fullmatch(r"([a-z0-9_]+)(?::(\d+))?", text)
    if match is None:
        raise ConfigError(f"--stop-after {text!r}: expected STAGE or STAGE:ROUND, as in score:1")
    return match[1], None if match[2] is None else int(match[2])
