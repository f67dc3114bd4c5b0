"""Epochs and steps of one training phase."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from madbal_ray import rng
from madbal_ray.config.schema import Config
from madbal_ray.config.training import PhaseConfig
from madbal_ray.engine.workers import TrainContext
from madbal_ray.errors import ConfigError, NumericalError
from madbal_ray.models.network import SegmentationNetwork
from madbal_ray.models.trained import PHASE1, PhaseSpec
from madbal_ray.seams import OBJECTIVES
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.training.augment import augment_images
from madbal_ray.training.batches import BatchMaker, TrainBatch
from madbal_ray.training.checkpoint import BestEpoch, Checkpoint
from madbal_ray.training.objectives import Objective, View
from madbal_ray.training.optimizer import build_optimizer, rate_factor, scale_rates


@dataclass(kw_only=True)
class PhaseTrainer:
    """Trains one phase of one round; every worker runs it with its own context.

    Attributes:
        measure: mIoU of the network as it is, after every epoch (`train.keep_epoch: best`);
            None: only the last epoch counts.
    """

    config: Config
    round_index: int
    phase: PhaseSpec
    stage: StageDir
    maker: BatchMaker
    context: TrainContext
    measure: Callable[[SegmentationNetwork], float] | None = None

    @property
    def settings(self) -> PhaseConfig:
        """Return the phase's section of the configuration."""
        return self.phase.settings(self.config.train)

    def train(self, network: SegmentationNetwork) -> BestEpoch:
        """Train from the last checkpoint to the last epoch; return the best one measured.

        Raises:
            NumericalError: the loss is not finite; round, phase and epoch are named.
        """
        config = self.settings
        network.set_phase(self.phase.name)
        optimizer = build_optimizer(network, config)
        objective = self._objective()
        best = BestEpoch()
        checkpoint = Checkpoint(self.stage, network, optimizer, best)
        first_epoch = checkpoint.restore(self.context.device)
        module = self.context.wrap(network)
        last_saved = time.monotonic()
        for epoch in range(first_epoch, config.epochs):
            loss = self._epoch(module, optimizer, objective, epoch)
            if self.measure is not None:
                best.offer(epoch + 1, self.measure(network), network)
                network.set_phase(self.phase.name)
            self.context.report(
                {
                    "round": self.round_index,
                    "phase": self.phase.name,
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

    def step_seconds(self, network: SegmentationNetwork) -> float:
        """Return the seconds of a step, loading included, after one to warm up; trains it."""
        network.set_phase(self.phase.name)
        optimizer = build_optimizer(network, self.settings)
        objective = self._objective()
        seconds = 0.0
        for epoch in range(2):
            started = time.perf_counter()
            views = next(self._batches(objective, epoch))
            self._step(network, optimizer, objective, views, progress=0.0).item()
            seconds = time.perf_counter() - started
        return seconds

    def _objective(self) -> Objective:
        name = self.settings.objective
        objective = OBJECTIVES[name](self.settings, self.context)
        if objective.needs_supports() and self.phase is PHASE1:
            raise ConfigError(
                f"train.phase1.objective = {name} reads {', '.join(objective.maps)}, which only "
                "phase II trains; give it to train.phase2"
            )
        return objective

    def _batches(self, objective: Objective, epoch: int):
        return self.maker.epoch(
            self.phase.name,
            epoch,
            self.settings.batch_size,
            rank=self.context.rank,
            world_size=self.context.world_size,
            views=objective.views,
        )

    def _epoch(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        objective: Objective,
        epoch: int,
    ) -> float:
        config, context = self.settings, self.context
        steps = self.maker.num_batches(config.batch_size)
        torch.manual_seed(
            rng.derive_seed(
                self.config.seed, "torch", self.round_index, self.phase.name, epoch, context.rank
            )
        )
        losses = []
        for step, views in enumerate(self._batches(objective, epoch)):
            done = epoch * steps + step
            scale_rates(optimizer, rate_factor(config, done, steps))
            progress = done / (steps * config.epochs)
            losses.append(self._step(module, optimizer, objective, views, progress=progress))
        mean_loss = float(torch.stack(losses).mean())
        if not np.isfinite(mean_loss):
            raise NumericalError(
                f"round {self.round_index}, {self.phase.name}, epoch {epoch + 1}: the loss is "
                f"{mean_loss}; lower train.{self.phase.name}.learning_rate or use "
                "train.precision: fp32"
            )
        return mean_loss

    def _step(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        objective: Objective,
        batches: Sequence[TrainBatch],
        *,
        progress: float,
    ) -> Tensor:
        loss = objective.loss(
            [self._look(module, batch, supports=objective.needs_supports()) for batch in batches],
            progress=progress,
        )
        optimizer.zero_grad(set_to_none=True)
        (loss * self.context.world_size).backward()  # wrapped modules average over workers
        optimizer.step()
        return self.context.all_reduce(loss.detach().clone())

    def _look(self, module: nn.Module, batch: TrainBatch, *, supports: bool) -> View:
        device = self.context.device
        pixels = augment_images(batch.images, batch.augmentations, batch.crop, device)
        with torch.autocast(
            device.type, torch.bfloat16, enabled=self.config.train.precision == "bf16"
        ):
            return View(module(pixels, supports=supports), batch)
