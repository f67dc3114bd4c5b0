"""Stage `predictions`: what a trained network takes the pixels of new images for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional as F

from madbal_ray.arrays import BoolMap, RGBImage
from madbal_ray.config.asking import ScoreConfig
from madbal_ray.config.training import ModelConfig, Supports
from madbal_ray.engine.threads import shared_threads
from madbal_ray.models.inputs import stack_inputs
from madbal_ray.models.trained import TrainedPhases, load_network
from madbal_ray.pool.reader import ImageShardJob, PoolImage, cut_batches, read_images
from madbal_ray.scoring.plan import ScoringPlan
from madbal_ray.scoring.predicted_files import (
    confidence_png,
    file_name,
    mask_png,
    overlay_jpeg,
    score_tiff,
)
from madbal_ray.scoring.score_images import ScoreImages
from madbal_ray.state import tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder
from madbal_ray.vision.boundary import boundary_map
from madbal_ray.vision.decode import resize_image

TABLE = "predictions"

MapKind = Literal["masks", "overlays", "confidence", "scores"]
SUFFIXES: dict[MapKind, str] = {
    "masks": ".png",
    "overlays": ".jpg",
    "confidence": ".png",
    "scores": ".tif",
}
"""What is written of an image, a folder each, and the ending of its files."""


@dataclass(frozen=True)
class _Seen:
    """One decoded image.

    Attributes:
        original: at its own size.
        picture: on the input grid.
        boundary: delta on the working grid, for the score.
    """

    image: PoolImage
    original: RGBImage
    picture: RGBImage
    boundary: BoolMap


@dataclass(kw_only=True)
class PredictImages(ImageShardJob):
    """Files and a row of every image; a shard is done when its rows are, its files before them.

    Attributes:
        images: finished stage.
        files: folder of the files.
        kinds: of files.
        whole: `predicted_files.same_stems` of all images.
        colors: of the classes.
        plan: of the score; None: no kind needs it.
    """

    images: StageDir
    files: Folder
    kinds: Sequence[MapKind]
    whole: frozenset[str]
    colors: Sequence[tuple[int, int, int]]
    phases: TrainedPhases
    model: ModelConfig
    config: ScoreConfig
    supports: Supports
    plan: ScoringPlan | None
    device: str
    uses_device = True
    table_names = (TABLE,)

    def setup(self) -> None:
        """Load the network."""
        torch.set_num_threads(self.config.threads_per_worker)
        self._device = torch.device(self.device)
        network = load_network(self.model, len(self.colors), self.phases, self.supports)
        self._network = network.to(self._device)
        self._network.set_phase("eval")
        self._scorer = None
        if self.plan is not None:
            self._scorer = ScoreImages(
                self._network, self.plan, use_bf16=self._use_bf16, device=self._device
            )

    @property
    def _use_bf16(self) -> bool:
        return self.config.precision == "bf16"

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Predict the images of one shard."""
        seen = map_ahead(
            self._load,
            read_images(self.images, shard_id),
            threads=self.threads,
            ahead=2 * self.config.batch_size,
        )
        batches = cut_batches(
            seen,
            self.config.batch_size,
            shape_of=lambda one: (one.picture.shape, one.boundary.shape),
        )
        with shared_threads(self._network, self._device) as threads:
            rows = [
                row
                for part in map_ahead(self._predict, batches, threads=threads, ahead=threads)
                for row in part
            ]
        return {TABLE: tables.from_rows(TABLE, rows)}

    def _load(self, image: PoolImage) -> _Seen:
        original = self.reader.original(image)
        picture = resize_image(original, image.input_height, image.input_width)
        work = resize_image(original, image.work_height, image.work_width)
        return _Seen(image, original, picture, boundary_map(work))

    def _predict(self, batch: list[_Seen]) -> list[dict[str, Any]]:
        """Write the files of a batch; return its rows."""
        scores: Sequence[np.ndarray | None] = [None] * len(batch)
        with torch.inference_mode():
            if self._scorer is not None:
                found, output = self._scorer.maps(
                    image_id=[one.image.image_id for one in batch],
                    inputs=[one.picture for one in batch],
                    boundary=[one.boundary for one in batch],
                )
                scores = list(found.score.float().cpu().numpy())
            else:
                inputs = stack_inputs([one.picture for one in batch], self._device)
                with torch.autocast(self._device.type, torch.bfloat16, enabled=self._use_bf16):
                    output = self._network(inputs, supports=False)
            return [
                self._write(one, output.logits[index : index + 1].float(), scores[index])
                for index, one in enumerate(batch)
            ]

    def _write(self, seen: _Seen, logits: torch.Tensor, score: np.ndarray | None) -> dict[str, Any]:
        """Write the files of an image; return its row."""
        height, width = seen.original.shape[:2]
        full = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
        highest, classes = full[0].max(dim=0)
        # softmax of the winner alone: no further array of all classes
        confidence = torch.exp(highest - full[0].logsumexp(dim=0)).cpu().numpy()
        predicted = classes.cpu().numpy()
        content = {
            "masks": lambda: mask_png(predicted, self.colors),
            "overlays": lambda: overlay_jpeg(seen.original, predicted, self.colors),
            "confidence": lambda: confidence_png(confidence),
            "scores": lambda: score_tiff(score) if score is not None else b"",
        }
        for kind in self.kinds:
            name = file_name(seen.image.image_id, SUFFIXES[kind], self.whole)
            self.files.write(f"{kind}/{name}", content[kind]())
        return {
            "image_id": seen.image.image_id,
            "height": height,
            "width": width,
            "mean_confidence": float(confidence.mean(dtype=np.float64)),
            "class_pixels": np.bincount(predicted.ravel(), minlength=len(self.colors)).tolist(),
        }
