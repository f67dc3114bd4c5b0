"""The segmentation network with its active-learning supports (paper Fig. 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from madbal_ray.config import ModelConfig
from madbal_ray.models.backbones import Backbone
from madbal_ray.models.heads import HEADS, LossPredictionModule, MaturityHeads, resize

Phase = Literal["phase1", "phase2", "eval"]


@dataclass(frozen=True)
class NetworkOutput:
    """What one forward pass gives; every map on its own, smaller grid.

    Attributes:
        logits: main head [B, C, h, w].
        head_logits: three maps [B, C, h1, w1], shallow first; empty without supports.
        maturity_weights: [B, 3, hw, ww], sum to 1 over channels.
        error_logits: [B, 2, h1, w1], boundary and center.
    """

    logits: Tensor
    head_logits: tuple[Tensor, ...] = ()
    maturity_weights: Tensor | None = None
    error_logits: Tensor | None = None


class SegmentationNetwork(nn.Module):
    """Backbone and main head (phase I), maturity heads, weights and loss prediction (phase II)."""

    def __init__(
        self, config: ModelConfig, num_classes: int, weights: Mapping[str, Tensor] | None
    ) -> None:
        super().__init__()
        self.backbone = Backbone(
            config.backbone, output_stride=config.output_stride, weights=weights
        )
        channels = self.backbone.channels
        self.main_head = HEADS[config.head](channels, num_classes)
        self.maturity_heads = MaturityHeads(channels, num_classes)
        self.weight_block = HEADS[config.head](channels, 3)
        self.loss_module = LossPredictionModule(channels, num_classes)

    @property
    def phase1_modules(self) -> tuple[nn.Module, ...]:
        """Return what phase I trains."""
        return self.backbone, self.main_head

    @property
    def phase2_modules(self) -> tuple[nn.Module, ...]:
        """Return what phase II trains."""
        return self.maturity_heads, self.weight_block, self.loss_module

    def set_phase(self, phase: Phase) -> None:
        """Freeze and unfreeze; frozen parts are in eval mode, batch-norm and dropout included."""
        self.eval()
        trained = {"phase1": self.phase1_modules, "phase2": self.phase2_modules, "eval": ()}[phase]
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        for module in trained:
            module.train()
            for parameter in module.parameters():
                parameter.requires_grad_(True)

    def forward(self, images: Tensor, *, supports: bool) -> NetworkOutput:
        """Run the network on normalised images [B, 3, H, W].

        Args:
            supports: also run heads, weight block and loss prediction module.
        """
        if not supports:
            return NetworkOutput(self.main_head(self.backbone(images)))
        train_main = torch.is_grad_enabled() and next(self.main_head.parameters()).requires_grad
        with torch.set_grad_enabled(train_main):
            features = self.backbone(images)
            logits = self.main_head(features)
        head_logits = self.maturity_heads(features)
        weights = torch.softmax(self.weight_block(features).float(), dim=1)
        on_heads = resize(weights, head_logits[0].shape[-2:])
        weighted = sum(
            (on_heads[:, index : index + 1] * one for index, one in enumerate(head_logits)),
            start=torch.zeros_like(head_logits[0]),
        )
        return NetworkOutput(logits, head_logits, weights, self.loss_module(features, weighted))


def build_network(
    config: ModelConfig,
    num_classes: int,
    *,
    weights: Mapping[str, Tensor] | None,
    seed: int,
) -> SegmentationNetwork:
    """Build a network whose random weights depend on `seed` alone.

    Args:
        weights: state dict of the torchvision backbone, None for random weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SegmentationNetwork(config, num_classes, weights)
    return network.to(memory_format=torch.channels_last)  # 1.5 times faster on CPUs, as on GPUs
