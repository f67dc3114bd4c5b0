"""Measuring a trained network on whole masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch.nn import functional as F

from madbal_ray import tables
from madbal_ray.arrays import Mask, RGBImage
from madbal_ray.config import EvaluationConfig
from madbal_ray.labels import Ledger
from madbal_ray.loop.pool_reader import ImageReader, PoolImage, map_ahead, read_images
from madbal_ray.loop.train_context import TrainContext
from madbal_ray.models import SegmentationNetwork
from madbal_ray.stage_dir import StageDir
from madbal_ray.training.metrics import confusion_matrix, summarize_confusion
from madbal_ray.vision.normalize import normalize_images


@dataclass
class EvaluateSplits:
    """Confusion matrices and metrics of one round on every evaluation split."""

    output: StageDir
    images: StageDir
    splits: Mapping[str, list[int]]
    reader: ImageReader
    config: EvaluationConfig
    num_classes: int
    round_index: int
    ledger: Ledger
    use_bf16: bool
    threads: int

    def run(self, network: SegmentationNetwork, context: TrainContext) -> None:
        """Evaluate; rank 0 commits. Workers take every n-th image, without padding."""
        network.set_phase("eval")
        confusion_rows, metric_rows = [], []
        for split, shard_ids in self.splits.items():
            images = [image for i in shard_ids for image in read_images(self.images, i)]
            total = torch.zeros(
                (self.num_classes, self.num_classes), dtype=torch.int64, device=context.device
            )
            for part in self._batches(images[context.rank :: context.world_size]):
                total += self._batch_confusion(network, part, context.device)
            counts = context.all_reduce(total).cpu().numpy()
            confusion_rows += self._confusion_rows(split, counts, len(images))
            metric_rows.append(self._metric_row(split, counts, len(images)))
        if context.rank == 0:
            found = {"confusion": confusion_rows, "metrics": metric_rows}
            self.output.commit(
                [
                    self.output.write_table(name, 0, tables.from_rows(name, rows))
                    for name, rows in found.items()
                ],
                {},
            )

    def _batches(self, images: list[PoolImage]):
        decoded = map_ahead(
            self._load, images, threads=self.threads, ahead=2 * self.config.batch_size
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
            self.reader.mask(image)
            if self.config.size == "original"
            else self.reader.mask_on_working_grid(image)
        )
        return self.reader.on_input_grid(image), mask

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
                truth=truth, prediction=full.argmax(dim=1), num_classes=self.num_classes
            )

    def _confusion_rows(self, split: str, counts: np.ndarray, num_images: int) -> list[dict]:
        return [
            {
                "round": self.round_index,
                "split": split,
                "class_id": class_id,
                "counts": row.tolist(),
                "num_images": num_images,
            }
            for class_id, row in enumerate(counts)
        ]

    def _metric_row(self, split: str, counts: np.ndarray, num_images: int) -> dict:
        measured = summarize_confusion(counts)
        return {
            "round": self.round_index,
            "split": split,
            "num_labels": self.ledger.num_asked,
            "num_void": self.ledger.num_void,
            "labels_per_image": self.ledger.per_image,
            "percent_labelled": self.ledger.percent,
            "miou": None if math.isnan(measured.miou) else measured.miou,
            "pixel_accuracy": (
                None if math.isnan(measured.pixel_accuracy) else measured.pixel_accuracy
            ),
            "class_iou": [None if math.isnan(v) else v for v in measured.class_iou.tolist()],
            "num_images": num_images,
        }
