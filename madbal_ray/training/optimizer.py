"""Optimizers and learning rates of the phases (paper section 4; PixelPick's as options)."""

from __future__ import annotations

import torch

from madbal_ray.config.training import PhaseConfig
from madbal_ray.models.network import SegmentationNetwork

STEP_FACTOR = 0.1


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
    return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)


def rate_factor(config: PhaseConfig, step: int, steps_per_epoch: int) -> float:
    """Return what the base learning rates are multiplied by at one step, counted from 0.

    Poly: (1 - step / steps)**power. Steps: a tenth after each of `step_epochs`.

    >>> rate_factor(PhaseConfig(epochs=5), 5, 2)
    0.5
    """
    if config.schedule == "steps":
        passed = sum(step >= epoch * steps_per_epoch for epoch in config.step_epochs)
        return STEP_FACTOR**passed
    return (1.0 - step / (steps_per_epoch * config.epochs)) ** config.poly_power


def scale_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to its base rate times a factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_rate"] * factor
