"""Measuring a trained network on whole masks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from madbal_ray import rng
from madbal_ray.arrays import Mask
from madbal_ray.config.running import EvaluationConfig
from madbal_ray.engine.threads import shared_threads
from madbal_ray.engine.workers import TrainContext
from madbal_ray.errors import ResourceError, one_line
from madbal_ray.evaluation.measure_points import measure_points, point_rows
from madbal_ray.evaluation.metrics import summarize_confusion
from madbal_ray.evaluation.point_estimates import estimate_from_points
from madbal_ray.evaluation.prediction import batch_confusion
from madbal_ray.labels.ledger import Ledger
from madbal_ray.models.inputs import stack_inputs
from madbal_ray.models.network import SegmentationNetwork
from madbal_ray.pool.features.stored_taps import NetworkInput, input_shape
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import PoolImage, cut_batches, read_images
from madbal_ray.state import tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.transfer import to_device

IDENTITY = ("round", "split", "selection", "epoch", "num_images")
"""Columns of both `confusion` and `metrics`."""


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
        if self.pool.evaluation_points is not None:
            self._rows["point_metrics"] = []

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
            self._note(split, selection, epoch, counts, num_images)
        if self.pool.evaluation_points is not None:
            assert self.pool.points_split is not None
            split = f"{self.pool.points_split[0]}_points"
            points = measure_points(
                network,
                self.pool,
                context,
                on_original=self.config.size == "original",
                use_bf16=self.use_bf16,
            )
            found = estimate_from_points(
                **vars(points),
                num_classes=self.pool.num_classes,
                generator=rng.stream(0, "point_metrics", self.round_index),
            )
            self._note(split, selection, epoch, found.confusion, points.num_images)
            identity = {"round": self.round_index, "split": split, "selection": selection}
            self._rows["point_metrics"] += [
                identity | row for row in point_rows(found, points.num_images)
            ]

    def _note(
        self, split: str, selection: str, epoch: int, counts: np.ndarray, num_images: int
    ) -> None:
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

    def measured(self) -> dict[str, pa.Table]:
        """Return what was measured."""
        return {name: tables.from_rows(name, rows) for name, rows in self._rows.items()}

    def commit(self) -> None:
        """Write what was measured."""
        files = [self.output.write_table(name, 0, rows) for name, rows in self.measured().items()]
        self.output.commit(files, {})

    def summed_up(self, confusion: pa.Table) -> pa.Table:
        """Return table `metrics` as finished confusion matrices give it."""
        rows: dict[tuple, list[list[int]]] = {}
        for row in confusion.to_pylist():
            identity = tuple((name, row[name]) for name in IDENTITY)
            rows.setdefault(identity, []).append(row["counts"])
        return tables.from_rows(
            "metrics",
            [
                dict(identity) | self._metrics(np.array(counts, np.int64))
                for identity, counts in rows.items()
            ],
        )

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
        parts = self._batches(images[context.rank :: context.world_size])
        with shared_threads(network, context.device) as threads:
            for counts in map_ahead(
                lambda part: self._batch_confusion(network, part, context.device),
                parts,
                threads=threads,
                ahead=threads,
            ):
                total += counts
        return context.all_reduce(total).cpu().numpy(), len(images)

    def _batches(self, images: list[PoolImage]):
        decoded = map_ahead(
            self._load, images, threads=self.pool.threads, ahead=2 * self.config.batch_size
        )
        return cut_batches(
            decoded,
            self.config.batch_size,
            shape_of=lambda pair: (input_shape(pair[0]), pair[1].shape),
        )

    def _load(self, image: PoolImage) -> tuple[NetworkInput, Mask]:
        mask = (
            self.pool.reader.mask(image)
            if self.config.size == "original"
            else self.pool.reader.mask_on_working_grid(image)
        )
        return self.pool.input_of(image), mask

    def _batch_confusion(
        self,
        network: SegmentationNetwork,
        batch: list[tuple[NetworkInput, Mask]],
        device: torch.device,
    ) -> torch.Tensor:
        """Count a batch; in halves, and those in halves, where it does not fit the GPU's memory.

        Raises:
            ResourceError: one image does not fit.
        """
        try:
            return batch_confusion(
                network,
                stack_inputs([one for one, _ in batch], device),
                to_device(np.stack([mask for _, mask in batch]), device),
                num_classes=self.pool.num_classes,
                use_bf16=self.use_bf16,
            )
        except torch.cuda.OutOfMemoryError as error:
            reason = one_line(error)
        # Only here is the error gone, and with it the tensors that its frames hold.
        torch.cuda.empty_cache()
        if len(batch) == 1:
            height, width = batch[0][1].shape
            raise ResourceError(
                f"one image of {height} x {width} pixels does not fit the GPU's memory when it is "
                f"measured ({reason}); set evaluation.size=working, or see who else uses it"
            )
        half = len(batch) // 2
        parts = (batch[:half], batch[half:])
        first, second = (self._batch_confusion(network, part, device) for part in parts)
        return first + second

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
