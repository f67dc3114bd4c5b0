"""Training of one round: phase I, evaluation, thresholds, phase II.

Every training worker calls `TrainRound.run` with its own context; rank 0 writes. The
engines differ only in the context: the local engine's has one worker, Ray Train's talks
to the others. Checkpoints are our own files, written whole into the stage folder: they
serve both engines and cannot be torn by a kill (docs/architecture.md).
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from madbal_ray import rng, tables
from madbal_ray.config import Config
from madbal_ray.errors import NumericalError
from madbal_ray.loop.evaluation import EvaluateSplits
from madbal_ray.loop.point_records import record_points
from madbal_ray.loop.pool_reader import ImageReader
from madbal_ray.loop.score_job import PHASE1_WEIGHTS, PHASE2_WEIGHTS
from madbal_ray.loop.train_context import TrainContext
from madbal_ray.loop.training_set import BatchMaker, ImageCache, TrainBatch, read_labeled_points
from madbal_ray.models import NetworkOutput, SegmentationNetwork, build_network
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.stage_dir import FileRecord, StageDir
from madbal_ray.training.augment import augment_images
from madbal_ray.training.loss_prediction import ClassLossThresholds, loss_prediction_loss
from madbal_ray.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from madbal_ray.training.point_loss import point_cross_entropy
from madbal_ray.vision.normalize import normalize_images
from madbal_ray.vision.points import sample_points

CHECKPOINT_NAME = "_checkpoint.pt"
FEW_LABELS = 5
"""A class with fewer labels than this is reported (method 2)."""

TrainedPhase = Literal["phase1", "phase2"]


@dataclass
class TrainRound:
    """One round of training, phase I and phase II in one job.

    Attributes:
        labels: label stages of this round and all before it.
        previous: phase stages of the round before, for `train.init: previous`.
    """

    config: Config
    round_index: int
    weights: PublishedWeights
    num_classes: int
    reader: ImageReader
    images: StageDir
    shard_ids: list[int]
    labels: tuple[StageDir, ...]
    previous: tuple[StageDir, StageDir] | None
    phase1: StageDir
    phase2: StageDir
    evaluation: EvaluateSplits

    @property
    def name(self) -> str:
        """Return a name that is the same at every start."""
        return f"round-{self.round_index:03d}-{self.phase2.key}"

    @property
    def num_workers(self) -> int:
        """Return the training world size."""
        return self.config.train.num_workers

    def run(self, context: TrainContext) -> None:
        """Train, evaluate and commit what is not committed yet."""
        train = self.config.train
        torch.set_num_threads(train.threads_per_worker)
        devices = [context.device] if context.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            network = self._initial_network().to(context.device)
            points = read_labeled_points(self.images, self.shard_ids, self.labels)
            cache = ImageCache(self.reader, self.config.resources.image_cache_gib)
            maker = BatchMaker(
                points,
                cache,
                train,
                self.config.seed,
                self.round_index,
                self.config.resources.decode_threads,
            )
            if not self.phase1.is_done:
                self._train_phase("phase1", network, maker, context)
                if context.rank == 0:
                    self._commit_phase1(network, len(points.y))
                context.barrier()
            _load_partial(network, self.phase1, PHASE1_WEIGHTS)
            if not self.evaluation.output.is_done:
                self.evaluation.run(network, context)
            if not self.phase2.is_done:
                thresholds = record_points(
                    network,
                    points,
                    self.reader,
                    context,
                    num_classes=self.num_classes,
                    use_bf16=train.precision == "bf16",
                    threads=self.config.resources.decode_threads,
                )
                self._train_phase("phase2", network, maker, context)
                if context.rank == 0:
                    self._commit_phase2(network, thresholds)
                context.barrier()

    def _initial_network(self) -> SegmentationNetwork:
        config = self.config
        weights = self.weights.load()
        seed = rng.derive_seed(config.seed, "network", self.round_index)
        network = build_network(config.model, self.num_classes, weights=weights, seed=seed)
        if self.previous is not None:
            _load_partial(network, self.previous[0], PHASE1_WEIGHTS)
            _load_partial(network, self.previous[1], PHASE2_WEIGHTS)
        return network

    def _train_phase(
        self,
        phase: TrainedPhase,
        network: SegmentationNetwork,
        maker: BatchMaker,
        context: TrainContext,
    ) -> None:
        config = getattr(self.config.train, phase)
        network.set_phase(phase)
        optimizer = build_optimizer([p for p in network.parameters() if p.requires_grad], config)
        checkpoint = _Checkpoint(getattr(self, phase), network, optimizer)
        first_epoch = checkpoint.restore(context.device)
        module = context.wrap(network)
        steps = maker.num_batches(config.batch_size)
        last_saved = time.monotonic()
        for epoch in range(first_epoch, config.epochs):
            torch.manual_seed(
                rng.derive_seed(
                    self.config.seed, "torch", self.round_index, phase, epoch, context.rank
                )
            )
            losses = []
            rate = config.learning_rate
            batches = maker.epoch(
                phase, epoch, config.batch_size, rank=context.rank, world_size=context.world_size
            )
            for step, batch in enumerate(batches):
                rate = learning_rate(config, epoch * steps + step, steps * config.epochs)
                set_learning_rate(optimizer, rate)
                losses.append(self._step(phase, module, optimizer, batch, context))
            mean_loss = float(torch.stack(losses).mean())
            if not np.isfinite(mean_loss):
                raise NumericalError(
                    f"round {self.round_index}, {phase}, epoch {epoch}: the loss is {mean_loss}; "
                    f"lower train.{phase}.learning_rate or use train.precision: fp32"
                )
            context.report(
                {
                    "round": self.round_index,
                    "phase": phase,
                    "epoch": epoch + 1,
                    "epochs": config.epochs,
                    "loss": mean_loss,
                    "learning_rate": rate,
                }
            )
            is_due = time.monotonic() - last_saved >= self.config.resources.checkpoint_seconds
            if context.rank == 0 and is_due and epoch + 1 < config.epochs:
                checkpoint.save(epoch + 1)
                last_saved = time.monotonic()

    def _step(
        self,
        phase: TrainedPhase,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: TrainBatch,
        context: TrainContext,
    ) -> Tensor:
        device = context.device
        pixels = _augmented_pixels(batch, device)
        with torch.autocast(
            device.type, torch.bfloat16, enabled=self.config.train.precision == "bf16"
        ):
            output = module(pixels, supports=phase == "phase2")
        loss = (self._phase1_loss if phase == "phase1" else self._phase2_loss)(
            output, batch, context
        )
        optimizer.zero_grad(set_to_none=True)
        (loss * context.world_size).backward()  # wrapped modules average over workers
        optimizer.step()
        return context.all_reduce(loss.detach().clone())

    def _phase1_loss(
        self, output: NetworkOutput, batch: TrainBatch, context: TrainContext
    ) -> Tensor:
        """Return this worker's part of the mean cross-entropy over the batch's points."""
        device = context.device
        count = context.all_reduce(torch.tensor(len(batch.y), device=device))
        return self._cross_entropy(output.logits, batch, device).sum() / count.clamp(min=1)

    def _phase2_loss(
        self, output: NetworkOutput, batch: TrainBatch, context: TrainContext
    ) -> Tensor:
        """Return this worker's part of Eq. 3."""
        device, weights = context.device, self.config.train.phase2.loss_weights
        assert batch.is_boundary is not None
        assert batch.is_target is not None
        assert output.error_logits is not None
        num_boundary = int(batch.is_boundary.sum())
        counts = torch.tensor([num_boundary, len(batch.y) - num_boundary], device=device)
        all_boundary, all_center = context.all_reduce(counts).tolist()
        boundary, center = loss_prediction_loss(
            error_logits=sample_points(
                output.error_logits,
                point_batch=batch.batch.to(device),
                point_y=batch.y.to(device),
                point_x=batch.x.to(device),
                height=batch.crop[0],
                width=batch.crop[1],
            ),
            target=batch.is_target.to(device),
            is_boundary=batch.is_boundary.to(device),
            num_boundary=all_boundary,
            num_center=all_center,
        )
        loss = weights.center * center + weights.boundary * boundary
        total = max(1, all_boundary + all_center)
        for weight, logits in zip(
            (weights.shallow, weights.semi, weights.almost), output.head_logits, strict=True
        ):
            loss = loss + weight * self._cross_entropy(logits, batch, device).sum() / total
        return loss

    def _cross_entropy(self, logits: Tensor, batch: TrainBatch, device: torch.device) -> Tensor:
        return point_cross_entropy(
            logits=logits,
            point_batch=batch.batch.to(device),
            point_y=batch.y.to(device),
            point_x=batch.x.to(device),
            point_class=batch.class_id.to(device),
            height=batch.crop[0],
            width=batch.crop[1],
        )

    def _commit_phase1(self, network: SegmentationNetwork, num_points: int) -> None:
        record = _save_partial(network, ("backbone.", "main_head."), self.phase1, PHASE1_WEIGHTS)
        self.phase1.commit([record], {"labelled_pixels": num_points})
        self.phase1.folder.delete(CHECKPOINT_NAME)

    def _commit_phase2(self, network: SegmentationNetwork, thresholds: ClassLossThresholds) -> None:
        prefixes = ("maturity_heads.", "weight_block.", "loss_module.")
        record = _save_partial(network, prefixes, self.phase2, PHASE2_WEIGHTS)
        rows = [
            {
                "round": self.round_index,
                "class_id": class_id,
                "num_labels": int(count),
                "threshold": None if np.isnan(threshold) else float(threshold),
            }
            for class_id, (count, threshold) in enumerate(
                zip(thresholds.num_labels, thresholds.threshold, strict=True)
            )
        ]
        table = tables.from_rows("class_loss_thresholds", rows)
        few = [row["class_id"] for row in rows if row["num_labels"] < FEW_LABELS]
        self.phase2.commit(
            [record, self.phase2.write_table("class_loss_thresholds", 0, table)],
            {"classes_with_few_labels": few},
        )
        self.phase2.folder.delete(CHECKPOINT_NAME)


class _Checkpoint:
    """Network and optimizer at the end of an epoch, in the folder of the phase."""

    def __init__(
        self, stage: StageDir, network: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        self.stage, self.network, self.optimizer = stage, network, optimizer

    def save(self, epoch: int) -> None:
        """Write the state after `epoch` epochs."""
        sink = io.BytesIO()
        torch.save(
            {
                "epoch": epoch,
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
            sink,
        )
        self.stage.write_file(CHECKPOINT_NAME, sink.getvalue())

    def restore(self, device: torch.device) -> int:
        """Load the last state; return the number of finished epochs."""
        if not self.stage.folder.exists(CHECKPOINT_NAME):
            return 0
        data = io.BytesIO(self.stage.folder.read(CHECKPOINT_NAME))
        state = torch.load(data, map_location=device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        return state["epoch"]


def _augmented_pixels(batch: TrainBatch, device: torch.device) -> Tensor:
    """Return the augmented crops of a batch on the device."""
    if len({picture.shape for picture in batch.images}) == 1:
        stacked = torch.from_numpy(np.stack(batch.images)).to(device)
        return augment_images(normalize_images(stacked), batch.augmentations, batch.crop)
    crops = [
        augment_images(
            normalize_images(torch.from_numpy(picture[None]).to(device)), [one], batch.crop
        )
        for picture, one in zip(batch.images, batch.augmentations, strict=True)
    ]
    return torch.cat(crops).contiguous(memory_format=torch.channels_last)


def _save_partial(
    network: nn.Module, prefixes: tuple[str, ...], stage: StageDir, name: str
) -> FileRecord:
    state = {
        key: value.detach().cpu().contiguous()
        for key, value in network.state_dict().items()
        if key.startswith(prefixes)
    }
    return stage.write_file(name, save_safetensors(state))


def _load_partial(network: nn.Module, stage: StageDir, name: str) -> None:
    state: dict[str, Any] = load_safetensors(stage.folder.read(name))
    network.load_state_dict(state, strict=False)
