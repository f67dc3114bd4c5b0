"""Optimizers and learning rates of the phases (paper section 4; PixelPick's as options)."""

from __future__ import annotations

import math

import torch

from madbal_ray.config.training import PhaseConfig
from madbal_ray.models.network import SegmentationNetwork

STEP_FACTOR = 0.1
CYCLE_RISE, CYCLE_START, CYCLE_END = 0.3, 1 / 25, 1 / 250_000
"""Of one cycle: share of the steps in which the rate rises, its first and last factors."""


def build_optimizer(network: SegmentationNetwork, config: PhaseConfig) -> torch.optim.Optimizer:
    """Return an optimizer of the parameters that the phase trains; the backbone's come first."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    of_backbone = {id(parameter) for parameter in network.backbone.parameters()}
    backbone = [parameter for parameter in trained if id(parameter) in of_backbone]
    rest = [parameter for parameter in trained if id(parameter) not in of_backbone]
    rates = (config.learning_rate * config.backbone_rate_factor, config.learning_rate)
    groups = [
        {"params": parameters, "lr": rate, "base_rate": rate}
        for parameters, rate in zip((backbone, rest), rates, strict=True)
        if parameters
    ]
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, weight_decay=config.weight_decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
    return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)


def rate_factor(
    config: PhaseConfig, step: int, steps_per_epoch: int, *, total: int | None = None
) -> float:
    """Return what the base learning rates are multiplied by at one step, counted from 0.

    Poly: (1 - step / steps)**power. Steps: a tenth after each of `step_epochs`. One cycle: up
    from 1 / 25 in 30 % of the steps, down to 1 / 250,000, both by a cosine (Smith & Topin 2019).

    Args:
        total: steps of the phase; None: `epochs` times `steps_per_epoch`.

    >>> rate_factor(PhaseConfig(epochs=5), 5, 2)
    0.5
    """
    total = steps_per_epoch * config.epochs if total is None else total
    if config.schedule == "steps":
        passed = sum(step >= epoch * steps_per_epoch for epoch in config.step_epochs)
        return STEP_FACTOR**passed
    if config.schedule == "one_cycle":
        return _one_cycle(step / total)
    return (1.0 - step / total) ** config.poly_power


def _one_cycle(done: float) -> float:
    """Return the factor when a share of the steps is done.

    >>> [round(_one_cycle(done), 4) for done in (0.0, 0.15, 0.3, 0.65)]
    [0.04, 0.52, 1.0, 0.5]
    """
    if done < CYCLE_RISE:
        start, end, share = CYCLE_START, 1.0, done / CYCLE_RISE
    else:
        start, end, share = 1.0, CYCLE_END, (done - CYCLE_RISE) / (1 - CYCLE_RISE)
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def scale_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to its base rate times a factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_rate"] * factor
