"""Measuring a trained network on whole masks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from madbal_ray.arrays import Mask, RGBImage
from madbal_ray.config.running import EvaluationConfig
from madbal_ray.engine.workers import TrainContext
from madbal_ray.evaluation.metrics import confusion_matrix, summarize_confusion
from madbal_ray.labels.ledger import Ledger
from madbal_ray.models.network import SegmentationNetwork
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import PoolImage, map_ahead, read_images
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.vision.normalize import normalize_images


@dataclass(kw_only=True)
class EvaluateSplits:
    """Confusion matrices and metrics of one round on every evaluation split.

    Attributes:
        ledger: what the labels cost that the network was trained on.
    """

    output: StageDir
    pool: Pool
    config: EvaluationConfig
    round_index: int
    ledger: Ledger
    use_bf16: bool

    def __post_init__(self) -> None:
        self._rows: dict[str, list[dict[str, Any]]] = {"confusion": [], "metrics": []}

    def miou(self, network: SegmentationNetwork, context: TrainContext, split: str) -> float:
        """Return the network's mIoU on one split."""
        counts, _ = self._confusion(network, context, split)
        return summarize_confusion(counts).miou

    def measure(
        self, network: SegmentationNetwork, context: TrainContext, selection: str, epoch: int
    ) -> None:
        """Measure all splits.

        Args:
            network: with the weights of `epoch`.
            context: of this worker; workers take every n-th image, without padding.
            selection: ``last`` or ``best``.
            epoch: of phase I, counted from 1.
        """
        for split in self.pool.evaluation_shards:
            counts, num_images = self._confusion(network, context, split)
            identity = {
                "round": self.round_index,
                "split": split,
                "selection": selection,
                "epoch": epoch,
                "num_images": num_images,
            }
            self._rows["confusion"] += [
                {**identity, "class_id": class_id, "counts": row.tolist()}
                for class_id, row in enumerate(counts)
            ]
            self._rows["metrics"].append(identity | self._metrics(counts))

    def commit(self) -> None:
        """Write what was measured."""
        files = [
            self.output.write_table(name, 0, tables.from_rows(name, rows))
            for name, rows in self._rows.items()
        ]
        self.output.commit(files, {})

    def _confusion(
        self, network: SegmentationNetwork, context: TrainContext, split: str
    ) -> tuple[np.ndarray, int]:
        """Return the confusion matrix of one split over all workers, and its images."""
        network.set_phase("eval")
        source = self.pool.evaluation_images or self.pool.images
        shards = self.pool.evaluation_shards[split]
        images = [image for shard_id in shards for image in read_images(source, shard_id)]
        shape = (self.pool.num_classes, self.pool.num_classes)
        total = torch.zeros(shape, dtype=torch.int64, device=context.device)
        for part in self._batches(images[context.rank :: context.world_size]):
            total += self._batch_confusion(network, part, context.device)
        return context.all_reduce(total).cpu().numpy(), len(images)

    def _batches(self, images: list[PoolImage]):
        decoded = map_ahead(
            self._load, images, threads=self.pool.threads, ahead=2 * self.config.batch_size
        )
        for _, run in groupby(decoded, key=lambda pair: (pair[0].shape, pair[1].shape)):
            window: list[tuple[RGBImage, Mask]] = []
            for pair in run:
                window.append(pair)
                if len(window) == self.config.batch_size:
                    yield window
                    window = []
            if window:
                yield window

    def _load(self, image: PoolImage) -> tuple[RGBImage, Mask]:
        mask = (
            self.pool.reader.mask(image)
            if self.config.size == "original"
            else self.pool.reader.mask_on_working_grid(image)
        )
        return self.pool.reader.on_input_grid(image), mask

    def _batch_confusion(
        self,
        network: SegmentationNetwork,
        batch: list[tuple[RGBImage, Mask]],
        device: torch.device,
    ) -> torch.Tensor:
        pictures = torch.from_numpy(np.stack([picture for picture, _ in batch])).to(device)
        truth = torch.from_numpy(np.stack([mask for _, mask in batch])).to(device)
        with torch.inference_mode():
            with torch.autocast(device.type, torch.bfloat16, enabled=self.use_bf16):
                logits = network(normalize_images(pictures), supports=False).logits
            full = F.interpolate(
                logits.float(), tuple(truth.shape[1:]), mode="bilinear", align_corners=False
            )
            return confusion_matrix(
                truth=truth, prediction=full.argmax(dim=1), num_classes=self.pool.num_classes
            )

    def _metrics(self, counts: np.ndarray) -> dict[str, Any]:
        measured, spent = summarize_confusion(counts), self.ledger.spent
        return {
            "num_labels": spent.pixels,
            "num_regions": spent.regions,
            "num_clicks": spent.clicks,
            "num_void": spent.void,
            "labels_per_image": self.ledger.pixels_per_image,
            "clicks_per_image": self.ledger.clicks_per_image,
            "percent_labelled": self.ledger.percent,
            "miou": _known(measured.miou),
            "pixel_accuracy": _known(measured.pixel_accuracy),
            "class_iou": [_known(value) for value in measured.class_iou.tolist()],
        }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
