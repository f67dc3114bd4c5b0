"""A run's scorer as a plain callable, for data that no pool of ours holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from madbal_ray.errors import ConfigError, ShapeError
from madbal_ray.models.trained import load_network
from madbal_ray.runs.run import Run
from madbal_ray.runs.trained_model import of_run
from madbal_ray.scoring.score_images import ScoreImages
from madbal_ray.strategies.strategy import resolve
from madbal_ray.vision.boundary import boundary_map
from madbal_ray.vision.decode import resize_image
from madbal_ray.vision.grids import grid_shape, nearest_pixel


class BatchScorer:
    """Scores batches of images with a network that a run has trained.

    Pass the class to `map_batches` of Ray Data, which makes one in each of its actors; or make
    one and call it.

    Args:
        run: path or URI of the run's folder, which every worker must reach.
        round_index: of the network; None: of the last finished round.
        device: ``cpu`` or ``cuda``.

    Raises:
        ConfigError: the run's strategy does not ask the network.
        RunDirError: there is no run, or the round is not finished.
    """

    def __init__(
        self, run: str | os.PathLike[str], *, round_index: int | None = None, device: str = "cpu"
    ) -> None:
        model = of_run(Run(run), round_index)
        self.grids = model.config.grids
        strategy = resolve(model.config.strategy)
        if not strategy.scores_pool:
            raise ConfigError(
                f"{run}: strategy {strategy.name} does not score pixels; take a run of another one"
            )
        num_classes = len(model.class_names)
        network = load_network(model.config.model, num_classes, model.phases, strategy.supports)
        network = network.to(torch.device(device))
        network.set_phase("eval")
        self.scorer = ScoreImages(
            network,
            strategy.plan(model.config, num_classes=num_classes, round_index=0),
            use_bf16=model.config.score.precision == "bf16",
            device=torch.device(device),
        )

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return the batch with what the network makes of it.

        Args:
            batch: ``image``: uint8 [B, H, W, 3], RGB; other columns pass through.

        Returns:
            Beside the given columns: ``mean_score``, float64 [B], the mean of the strategy's
            score over an image, higher is more doubtful; ``most_doubtful``, int64 [B, 2], y and x
            on the original grid of the pixel where it is highest; ``predicted_class``, int64 [B],
            of that pixel.

        Raises:
            ShapeError: the images have another shape or type.
        """
        images = np.asarray(batch["image"])
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise ShapeError(
                f"column image is {images.dtype} {images.shape}; expected uint8 [B, H, W, 3], all "
                "images of a batch of one size"
            )
        height, width = images.shape[1:3]
        input_size = grid_shape(self.grids.input, height, width)
        work_size = grid_shape(self.grids.working, height, width)
        scores, _ = self.scorer.maps(
            image_id=[str(index) for index in range(len(images))],
            inputs=[resize_image(image, *input_size) for image in images],
            boundary=[boundary_map(resize_image(image, *work_size)) for image in images],
        )
        score = scores.score.double().flatten(1).cpu()
        at = score.argmax(dim=1)
        y, x = np.divmod(at.numpy(), work_size[1])
        return {
            **batch,
            "mean_score": score.mean(dim=1).numpy(),
            "most_doubtful": np.stack(
                [nearest_pixel(y, work_size[0], height), nearest_pixel(x, work_size[1], width)], 1
            ),
            "predicted_class": scores.prediction.flatten(1)
            .cpu()
            .gather(1, at[:, None])[:, 0]
            .long()
            .numpy(),
        }
