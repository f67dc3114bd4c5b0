"""SGD with a learning rate that decays to 0 (paper section 4)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from madbal_ray.config import PhaseConfig


def build_optimizer(
    parameters: Iterable[nn.Parameter], config: PhaseConfig
) -> torch.optim.Optimizer:
    """Return the optimizer of one phase."""
    return torch.optim.SGD(
        parameters,
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )


def learning_rate(config: PhaseConfig, step: int, num_steps: int) -> float:
    """Return the poly learning rate at one step: base * (1 - step / num_steps)**power.

    >>> learning_rate(PhaseConfig(learning_rate=0.5), 5, 10)
    0.25
    """
    return config.learning_rate * (1.0 - step / num_steps) ** config.poly_power


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = value
