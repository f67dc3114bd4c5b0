"""`madbal score` and `madbal export`: a trained network on other images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from madbal_ray.cli.options import engine_options

if TYPE_CHECKING:
    from madbal_ray.scoring.predict_job import MapKind


@click.command("score")
@click.option(
    "--pool", required=True, help="Images: a folder tree, Parquet or tars; path, s3://, gs://."
)
@click.option("--checkpoint", required=True, help="A run's folder, or a file of `madbal export`.")
@click.option("--round", "round_index", type=int, help="Of the run.  [default: the last]")
@click.option("--out", required=True, help="Folder of the result; the same command carries on.")
@click.option("--budget", type=click.IntRange(min=1), help="Also ask for so many pixels an image.")
@click.option(
    "--labels", multiple=True, help="Run, result of score, or CSV whose pixels are not asked again."
)
@engine_options
def command(
    pool: str,
    checkpoint: str,
    round_index: int | None,
    out: str,
    budget: int | None,
    labels: tuple[str, ...],
    engine: str,
    overrides: tuple[str, ...],
    address: str | None,
    take_over: bool,
) -> None:
    """Score the images of a pool that has no masks, and ask for pixels in them."""
    from madbal_ray import api
    from madbal_ray.cli.live_view import make_progress

    console = Console(markup=False)
    with make_progress(console) as progress:
        scored = api.score(
            pool,
            checkpoint=checkpoint,
            out=out,
            round_index=round_index,
            budget=budget,
            labels=labels,
            engine="local" if engine == "local" else "ray",
            overrides=overrides,
            address=address,
            progress=progress,
            take_over=take_over,
        )
    for name, folder in scored.items():
        console.print(f"{name}: {folder}", highlight=False, markup=False, soft_wrap=True)


@click.command("predict")
@click.argument("checkpoint", metavar="RUN")
@click.argument("images")
@click.option("--out", required=True, help="Folder of the result; the same command carries on.")
@click.option("--round", "round_index", type=int, help="Of the run.  [default: the last]")
@click.option(
    "--write",
    "kinds",
    multiple=True,
    type=click.Choice(["masks", "overlays", "confidence", "scores"]),
    default=("masks", "overlays", "confidence"),
    show_default=True,
    help="Files of each image; repeat for several.",
)
@engine_options
def predict(
    checkpoint: str,
    images: str,
    out: str,
    round_index: int | None,
    kinds: tuple[MapKind, ...],
    engine: str,
    overrides: tuple[str, ...],
    address: str | None,
    take_over: bool,
) -> None:
    """Predict the pixels of IMAGES with the network of RUN (its folder, or a file of `export`).

    IMAGES is a folder tree, Parquet files or tars; a path, s3:// or gs://.
    """
    from madbal_ray import api
    from madbal_ray.cli.live_view import make_progress

    console = Console(markup=False)
    with make_progress(console) as progress:
        found = api.predict(
            checkpoint,
            images,
            out=out,
            round_index=round_index,
            kinds=tuple(dict.fromkeys(kinds)),
            engine="local" if engine == "local" else "ray",
            overrides=overrides,
            address=address,
            progress=progress,
            take_over=take_over,
        )
    line = f"wrote {', '.join(dict.fromkeys(kinds))} and predictions.csv of "
    line += f"{found.table('predictions', 0).num_rows} images to {out}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)


@click.command("export")
@click.argument("run")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--round", "round_index", type=int, help="[default: the last finished one]")
@click.option("--size", nargs=2, type=click.IntRange(min=16), metavar="HEIGHT WIDTH",
              help="of pictures, for .pt2 and .onnx  [default: grids.input]")  # fmt: skip
def export(run: str, file: Path, round_index: int | None, size: tuple[int, int] | None) -> None:
    """Write the network of RUN, with its class names, to one FILE.

    FILE.pt2 (torch.export) and FILE.onnx take pictures, uint8 [N, H, W, 3], and give logits
    [N, C, H, W] in any program that loads them; any other FILE is safetensors with the settings
    within, for `madbal score` and `madbal predict`.
    """
    from madbal_ray import api

    num_bytes = api.export(run, file, round_index=round_index, size=size)
    kind = {
        ".pt2": "a torch.export program: torch.export.load(FILE).module()",
        ".onnx": "ONNX: onnxruntime.InferenceSession(FILE)",
    }.get(file.suffix, "weights and settings, for madbal score and madbal predict")
    click.echo(f"wrote {file}: {num_bytes / 2**20:.1f} MiB, {kind}")
