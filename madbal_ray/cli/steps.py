"""`madbal prepare | select | train`: the steps of a run on their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from madbal_ray.cli.options import engine_options

if TYPE_CHECKING:
    from madbal_ray.runs.status import Step

STEPS: dict[Step, str] = {
    "prepare": "Prepare the pool of CONFIG: check images, superpixels, features, clusters.",
    "select": "Choose the next round's queries: score the pool with the last network, ask.",
    "train": "Train and measure the next round's network: label the queries first.",
}
REST = """

CONFIG is what `madbal run` takes. What is missing before the step is done as well, what is
done is not repeated, and `madbal run` on the same folder carries on after it.
"""


def make_command(step: Step, summary: str) -> click.Command:
    """Return the command of one step."""

    @click.command(step, help=summary + REST)
    @click.argument("config", type=click.Path(path_type=Path))
    @click.option("--run-dir", help="Folder of the run.  [default: runs/<config name>]")
    @engine_options
    def command(
        config: Path,
        run_dir: str | None,
        engine: str,
        overrides: tuple[str, ...],
        address: str | None,
        take_over: bool,
    ) -> None:
        from madbal_ray import api
        from madbal_ray.cli.live_view import make_progress
        from madbal_ray.cli.summary import print_step

        console = Console(markup=False)
        with make_progress(console) as progress:
            run = api.step(
                step,
                config,
                run_dir=run_dir,
                engine="local" if engine == "local" else "ray",
                overrides=overrides,
                address=address,
                progress=progress,
                take_over=take_over,
            )
        print_step(console, run, step)

    return command


COMMANDS = [make_command(step, summary) for step, summary in STEPS.items()]
