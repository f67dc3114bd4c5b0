"""Epochs and steps of one training phase."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from madbal_ray import rng
from madbal_ray.config.schema import Config, LossWeights
from madbal_ray.engine.workers import TrainContext
from madbal_ray.errors import NumericalError
from madbal_ray.models.network import NetworkOutput, SegmentationNetwork
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.training.augment import augment_images
from madbal_ray.training.batches import BatchMaker, TrainBatch
from madbal_ray.training.checkpoint import BestEpoch, Checkpoint
from madbal_ray.training.loss_prediction import loss_prediction_loss
from madbal_ray.training.optimizer import build_optimizer, rate_factor, scale_rates
from madbal_ray.training.point_loss import point_cross_entropy
from madbal_ray.vision.points import sample_points

TrainedPhase = Literal["phase1", "phase2"]


@dataclass
class PhaseTrainer:
    """Trains one phase of one round; every worker runs it with its own context.

    Attributes:
        measure: mIoU of the network as it is, after every epoch (`train.select: best`);
            None: only the last epoch counts.
    """

    config: Config
    round_index: int
    phase: TrainedPhase
    stage: StageDir
    maker: BatchMaker
    context: TrainContext
    measure: Callable[[SegmentationNetwork], float] | None = None

    def train(self, network: SegmentationNetwork) -> BestEpoch:
        """Train from the last checkpoint to the last epoch; return the best one measured.

        Raises:
            NumericalError: the loss is not finite; round, phase and epoch are named.
        """
        config = getattr(self.config.train, self.phase)
        network.set_phase(self.phase)
        optimizer = build_optimizer(network, config)
        best = BestEpoch()
        checkpoint = Checkpoint(self.stage, network, optimizer, best)
        first_epoch = checkpoint.restore(self.context.device)
        module = self.context.wrap(network)
        steps = self.maker.num_batches(config.batch_size)
        last_saved = time.monotonic()
        for epoch in range(first_epoch, config.epochs):
            loss = self._epoch(module, optimizer, epoch, steps)
            if self.measure is not None:
                best.offer(epoch + 1, self.measure(network), network)
                network.set_phase(self.phase)
            self.context.report(
                {
                    "round": self.round_index,
                    "phase": self.phase,
                    "epoch": epoch + 1,
                    "epochs": config.epochs,
                    "loss": loss,
                    "learning_rate": optimizer.param_groups[-1]["lr"],
                }
            )
            is_due = time.monotonic() - last_saved >= self.config.resources.checkpoint_seconds
            if self.context.rank == 0 and is_due and epoch + 1 < config.epochs:
                checkpoint.save(epoch + 1)
                last_saved = time.monotonic()
        return best

    def _epoch(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, epoch: int, steps: int
    ) -> float:
        config, context = getattr(self.config.train, self.phase), self.context
        torch.manual_seed(
            rng.derive_seed(
                self.config.seed, "torch", self.round_index, self.phase, epoch, context.rank
            )
        )
        losses = []
        batches = self.maker.epoch(
            self.phase, epoch, config.batch_size, rank=context.rank, world_size=context.world_size
        )
        for step, batch in enumerate(batches):
            scale_rates(optimizer, rate_factor(config, epoch * steps + step, steps))
            losses.append(self._step(module, optimizer, batch))
        mean_loss = float(torch.stack(losses).mean())
        if not np.isfinite(mean_loss):
            raise NumericalError(
                f"round {self.round_index}, {self.phase}, epoch {epoch}: the loss is {mean_loss}; "
                f"lower train.{self.phase}.learning_rate or use train.precision: fp32"
            )
        return mean_loss

    def _step(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, batch: TrainBatch
    ) -> Tensor:
        device = self.context.device
        pixels = augment_images(batch.images, batch.augmentations, batch.crop, device)
        with torch.autocast(
            device.type, torch.bfloat16, enabled=self.config.train.precision == "bf16"
        ):
            output = module(pixels, supports=self.phase == "phase2")
        is_first = self.phase == "phase1"
        loss = (self._phase1_loss if is_first else self._phase2_loss)(output, batch)
        optimizer.zero_grad(set_to_none=True)
        (loss * self.context.world_size).backward()  # wrapped modules average over workers
        optimizer.step()
        return self.context.all_reduce(loss.detach().clone())

    def _phase1_loss(self, output: NetworkOutput, batch: TrainBatch) -> Tensor:
        """Return this worker's part of the mean cross-entropy over the batch's points."""
        count = self.context.all_reduce(torch.tensor(len(batch.y), device=self.context.device))
        return self._cross_entropy(output.logits, batch).sum() / count.clamp(min=1)

    def _phase2_loss(self, output: NetworkOutput, batch: TrainBatch) -> Tensor:
        """Return this worker's part of Eq. 3."""
        device = self.context.device
        weights: LossWeights = self.config.train.phase2.loss_weights
        assert batch.is_boundary is not None
        assert batch.is_target is not None
        assert output.error_logits is not None
        num_boundary = int(batch.is_boundary.sum())
        counts = torch.tensor([num_boundary, len(batch.y) - num_boundary], device=device)
        all_boundary, all_center = self.context.all_reduce(counts).tolist()
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
        of_heads = (weights.shallow, weights.semi, weights.almost)
        for weight, logits in zip(of_heads, output.head_logits, strict=False):
            loss = loss + weight * self._cross_entropy(logits, batch).sum() / total
        return loss

    def _cross_entropy(self, logits: Tensor, batch: TrainBatch) -> Tensor:
        device = self.context.device
        return point_cross_entropy(
            logits=logits,
            point_batch=batch.batch.to(device),
            point_y=batch.y.to(device),
            point_x=batch.x.to(device),
            point_class=batch.class_id.to(device),
            height=batch.crop[0],
            width=batch.crop[1],
        )
