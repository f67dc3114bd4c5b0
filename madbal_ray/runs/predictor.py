"""A run's network on pictures that a notebook holds."""

from __future__ import annotations

import numpy as np
import torch

from madbal_ray.config.section import GridSize
from madbal_ray.errors import ShapeError
from madbal_ray.evaluation.prediction import predict
from madbal_ray.models.inputs import stack_inputs
from madbal_ray.models.trained import load_network
from madbal_ray.runs.run import Run
from madbal_ray.runs.trained_model import of_run
from madbal_ray.strategies.strategy import resolve
from madbal_ray.vision.decode import resize_image
from madbal_ray.vision.grids import grid_shape


class Predictor:
    """Predicts images with a network that a run has trained.

    Args:
        round_index: of the network; None: of the last finished round.
        device: ``cpu`` or ``cuda``.

    Raises:
        RunDirError: the round is not finished.
    """

    def __init__(self, run: Run, *, round_index: int | None = None, device: str = "cpu") -> None:
        model = of_run(run, round_index)
        self.grid: GridSize = model.config.grids.input
        self.use_bf16 = model.config.score.precision == "bf16"
        self.device = torch.device(device)
        supports = resolve(model.config.strategy).supports
        network = load_network(model.config.model, len(model.class_names), model.phases, supports)
        self.network = network.to(self.device)
        self.network.set_phase("eval")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return class ids, int64 [H, W].

        Args:
            image: uint8 [H, W, 3], RGB.

        Raises:
            ShapeError: it is something else.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ShapeError(f"an image is {image.dtype} {image.shape}; expected uint8 [H, W, 3]")
        size = image.shape[:2]
        picture = resize_image(image, *grid_shape(self.grid, *size))
        classes = predict(
            self.network,
            stack_inputs([picture], self.device),
            (size[0], size[1]),
            device=self.device,
            use_bf16=self.use_bf16,
        )
        return classes[0].cpu().numpy()
