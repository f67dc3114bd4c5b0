"""Epochs and steps of one training phase."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from madbal_ray import rng
from madbal_ray.config.schema import Config
from madbal_ray.config.training import PhaseConfig
from madbal_ray.engine.workers import TrainContext
from madbal_ray.errors import NumericalError
from madbal_ray.models.batch_norm import check_own_batch_norm
from madbal_ray.models.network import SegmentationNetwork
from madbal_ray.models.trained import PhaseSpec
from madbal_ray.seams import OBJECTIVES
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.training.batches import Batches, TrainBatch
from madbal_ray.training.checkpoint import BestEpoch, Checkpoint
from madbal_ray.training.objectives import Objective, View
from madbal_ray.training.optimizer import build_optimizer, rate_factor, scale_rates

PROBE_SECONDS, PROBE_STEPS = 1.0, 40
"""Most that a forecast spends on measuring a step, in time and in steps."""


def num_epochs(maker: Batches, settings: PhaseConfig) -> int:
    """Return how often a phase goes through the labels, a last part included."""
    return -(-maker.num_steps(settings) // maker.num_batches(maker.batch_size(settings)))


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
    maker: Batches
    context: TrainContext
    measure: Callable[[SegmentationNetwork], float] | None = None

    @property
    def settings(self) -> PhaseConfig:
        """Return the phase's section of the configuration."""
        return self.phase.settings(self.config.train)

    @property
    def num_steps(self) -> int:
        """Return the batches of the phase."""
        return self.maker.num_steps(self.settings)

    def train(self, network: SegmentationNetwork) -> BestEpoch:
        """Train from the last checkpoint to the last epoch; return the best one measured.

        Raises:
            NumericalError: the loss is not finite; round, phase and epoch are named.
            ConfigError: batch norm would see one image of several workers' batch.
        """
        config = self.settings
        network.set_phase(self.phase.name)
        if self.context.world_size > 1 and self.context.device.type == "cpu":
            self._check_batch_norm(network)
        optimizer = build_optimizer(network, config)
        objective = self._objective()
        objective.begin(self.maker.class_ids)
        best = BestEpoch()
        checkpoint = Checkpoint(self.stage, network, optimizer, best)
        first_epoch = checkpoint.restore(self.context)
        module = self.context.wrap(network)
        last_saved = time.monotonic()
        epochs = num_epochs(self.maker, config)
        for epoch in range(first_epoch, epochs):
            loss = self._epoch(module, optimizer, objective, epoch)
            if self.measure is not None:
                self.context.agree_on_buffers(network)
                best.offer(epoch + 1, self.measure(network), network)
                network.set_phase(self.phase.name)
            self.context.report(
                {
                    "round": self.round_index,
                    "phase": self.phase.name,
                    "epoch": epoch + 1,
                    "epochs": epochs,
                    "loss": loss,
                    "learning_rate": optimizer.param_groups[-1]["lr"],
                }
            )
            is_due = time.monotonic() - last_saved >= self.config.resources.checkpoint_seconds
            if self.context.rank == 0 and is_due and epoch + 1 < epochs:
                checkpoint.save(epoch + 1)
                last_saved = time.monotonic()
        return best

    def _check_batch_norm(self, network: SegmentationNetwork) -> None:
        check_own_batch_norm(
            network,
            option=f"train.{self.phase.name}.batch_size",
            batch_size=self.maker.batch_size(self.settings),
            workers=self.context.world_size,
        )

    def step_seconds(self, network: SegmentationNetwork) -> float:
        """Return the seconds of a step, loading included, after one to warm up; trains it."""
        network.set_phase(self.phase.name)
        optimizer = build_optimizer(network, self.settings)
        objective = self._objective()
        objective.begin(self.maker.class_ids)
        seconds: list[float] = []
        while len(seconds) < 2 or (sum(seconds) < PROBE_SECONDS and len(seconds) < PROBE_STEPS):
            started = time.perf_counter()
            views = next(self._batches(objective, len(seconds)))
            self._step(network, optimizer, objective, views, progress=0.0).item()
            seconds.append(time.perf_counter() - started)
        return float(np.median(seconds[1:]))

    def _objective(self) -> Objective:
        return OBJECTIVES[self.settings.objective](self.settings, self.context)

    def _batches(self, objective: Objective, epoch: int):
        return self.maker.epoch(
            self.phase.name,
            epoch,
            self.maker.batch_size(self.settings),
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
        steps, total = self.maker.num_batches(self.maker.batch_size(config)), self.num_steps
        torch.manual_seed(
            rng.derive_seed(
                self.config.seed, "torch", self.round_index, self.phase.name, epoch, context.rank
            )
        )
        losses = []
        first = epoch * steps
        batches = islice(self._batches(objective, epoch), total - first)
        for done, views in enumerate(batches, start=first):
            scale_rates(optimizer, rate_factor(config, done, steps, total=total))
            losses.append(self._step(module, optimizer, objective, views, progress=done / total))
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
        inputs = batch.inputs(device)
        with torch.autocast(
            device.type, torch.bfloat16, enabled=self.config.train.precision == "bf16"
        ):
            return View(module(inputs, supports=supports), batch)
