"""A trained network as a file that needs nothing of ours: torch.export, or ONNX."""

from __future__ import annotations

import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from madbal_ray.errors import ConfigError
from madbal_ray.models.network import SegmentationNetwork
from madbal_ray.models.trained import load_network
from madbal_ray.runs.run import Run
from madbal_ray.runs.trained_model import of_run
from madbal_ray.strategies.strategy import resolve
from madbal_ray.vision.normalize import normalize_images

SUFFIXES = (".pt2", ".onnx")
CLASSES = "classes.json"
"""Beside the program in a .pt2 file: the class names, in order of their ids."""


class Deployed(nn.Module):
    """Pictures in, logits as large as the pictures out; the main head alone."""

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> Tensor:
        """Return float32 [N, C, H, W] of uint8 [N, H, W, 3], RGB."""
        logits = self.network(normalize_images(pictures), supports=False).logits
        size = (pictures.shape[1], pictures.shape[2])
        return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)


def deployed(
    run: Run, suffix: str, *, round_index: int | None = None, size: tuple[int, int] | None = None
) -> bytes:
    """Return a round's network as the bytes of a file.

    Args:
        suffix: of `SUFFIXES`.
        round_index: None: of the last finished round.
        size: height and width of the pictures that it will take, any number at once; None:
            `grids.input`, or the one size that all images of the pool have on it.

    Raises:
        RunDirError: the round is not finished.
        ConfigError: no size is given and there is not one alone, or what ONNX needs is missing.
    """
    model = of_run(run, round_index)
    height, width = size or _size(run)
    supports = resolve(model.config.strategy).supports
    network = load_network(model.config.model, len(model.class_names), model.phases, supports)
    module = Deployed(network).eval()
    pictures = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    names = json.dumps(model.class_names)
    with _quietly(), torch.no_grad():
        if suffix == ".onnx":
            return _onnx(module, pictures, names)
        batch = torch.export.Dim("pictures", min=1, max=4096)
        program = torch.export.export(module, (pictures,), dynamic_shapes=({0: batch},))
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={CLASSES: names})
    return buffer.getvalue()


def _onnx(module: nn.Module, pictures: Tensor, names: str) -> bytes:
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise ConfigError(
            f"an .onnx file is written with {' and '.join(missing)}, which "
            f"{'are' if len(missing) > 1 else 'is'} not installed: pip install 'madbal_ray[onnx]', "
            "or give the file another suffix (.pt2 needs torch alone)"
        )
    program = torch.onnx.export(
        module,
        (pictures,),
        dynamo=True,
        input_names=["pictures"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("pictures", min=1, max=4096)},),
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props["classes"] = names
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        program.save(str(path))
        return path.read_bytes()


def _size(run: Run) -> tuple[int, int]:
    grid = run.config.grids.input
    if isinstance(grid, tuple):
        return int(grid[0]), int(grid[1])
    images = run.table("images")
    sizes = set(
        zip(images["input_height"].to_pylist(), images["input_width"].to_pylist(), strict=True)
    )
    if len(sizes) != 1:
        raise ConfigError(
            f"{run.run_dir}: images have {len(sizes)} sizes on grids.input, and a deployed network "
            "takes one: give it with --size HEIGHT WIDTH"
        )
    ((height, width),) = sizes
    return int(height), int(width)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the exporters' remarks on themselves away; errors come through."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
