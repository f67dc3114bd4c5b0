"""The segmentation network with its active-learning supports (paper Fig. 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from madbal_ray.config.training import ModelConfig, Supports
from madbal_ray.errors import ConfigError
from madbal_ray.models.backbones import Backbone, frozen_backbone
from madbal_ray.models.heads import LossPredictionModule, MaturityHeads, resize
from madbal_ray.models.hypercolumn import (
    PointwiseLossPrediction,
    PointwiseMaturityHeads,
    PointwiseWeightBlock,
)
from madbal_ray.models.timm_backbone import TimmBody
from madbal_ray.seams import HEADS

Phase = Literal["frozen_head", "phase1", "phase2", "eval"]


@dataclass(frozen=True)
class NetworkOutput:
    """What one forward pass gives; every map on its own, smaller grid.

    Attributes:
        logits: main head [B, C, h, w].
        head_logits: three maps [B, C, h1, w1], shallow first; empty without supports.
        maturity_weights: [B, 3, hw, ww], sum to 1 over channels.
        error_logits: [B, 2, h1, w1], boundary and center.
        pooled: deepest features averaged over the image [B, D].
    """

    logits: Tensor
    pooled: Tensor
    head_logits: tuple[Tensor, ...] = ()
    maturity_weights: Tensor | None = None
    error_logits: Tensor | None = None


class TapNorm(nn.Module):
    """Bring every channel of a frozen backbone's taps to mean 0 and deviation 1 over the pool."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        for index, width in enumerate(channels):
            self.register_buffer(f"mean_{index}", torch.zeros(width))
            self.register_buffer(f"scale_{index}", torch.ones(width))

    def set_statistics(self, means: Sequence[Tensor], deviations: Sequence[Tensor]) -> None:
        """Take over the pool's statistics, one vector a tap; a channel that is constant stays."""
        for index, (mean, deviation) in enumerate(zip(means, deviations, strict=True)):
            scale = torch.where(deviation > 0, 1 / deviation.clamp(min=1e-12), 1.0)
            getattr(self, f"mean_{index}").copy_(mean)
            getattr(self, f"scale_{index}").copy_(scale)

    def forward(self, taps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the taps, each [B, c_k, h_k, w_k] and float32, normalised."""
        return tuple(
            (tap.float() - getattr(self, f"mean_{index}")[None, :, None, None])
            * getattr(self, f"scale_{index}")[None, :, None, None]
            for index, tap in enumerate(taps)
        )


class SegmentationNetwork(nn.Module):
    """Backbone and main head (phase I), and the supports (phase II) that a strategy needs.

    Args:
        supports: ``full``; ``averaging``: 1/3 in place of the weight block; ``no_maturity``:
            loss prediction from backbone features alone, no heads, no weights; ``none``.
            (the paper's ablations, section 4.)
    """

    def __init__(
        self,
        config: ModelConfig,
        num_classes: int,
        weights: Mapping[str, Tensor] | None,
        supports: Supports = "full",
    ) -> None:
        super().__init__()
        self.supports = supports
        self.trains_backbone = config.train_backbone
        self.backbone = (
            Backbone(config.backbone, output_stride=config.output_stride, weights=weights)
            if self.trains_backbone
            else frozen_backbone(config, weights)
        )
        channels = self.backbone.channels
        self.tap_norm = None if self.trains_backbone else TapNorm(channels)
        # A pointwise head drops units of its own hidden layer.
        drops = bool(config.dropout) and not config.is_pointwise
        self.dropout = nn.Dropout(config.dropout) if drops else nn.Identity()
        self.main_head = HEADS[config.head](channels, num_classes, config)
        # Everything below is drawn after everything above, so that the parts of phase I are
        # the same for all strategies of a seed.
        has_heads, of_heads = supports in ("full", "averaging"), 0
        self.maturity_heads: nn.Module | None = None
        self.weight_block: nn.Module | None = None
        self.loss_module: nn.Module | None = None
        if has_heads:
            of_heads = num_classes
            self.maturity_heads = (
                PointwiseMaturityHeads(channels, num_classes, config)
                if config.is_pointwise
                else MaturityHeads(channels, num_classes)
            )
        if supports == "full":
            self.weight_block = (
                PointwiseWeightBlock(channels, config)
                if config.is_pointwise
                else HEADS[config.head](channels, 3, config)
            )
        if supports != "none":
            self.loss_module = (
                PointwiseLossPrediction(channels, of_heads, config)
                if config.is_pointwise
                else LossPredictionModule(channels, of_heads)
            )

    @property
    def has_unused_parameters(self) -> bool:
        """Tell whether the backbone has trained parameters behind its last tap, as timm's do."""
        return self.trains_backbone and isinstance(self.backbone.body, TimmBody)

    @property
    def phase1_modules(self) -> tuple[nn.Module, ...]:
        """Return what phase I trains."""
        return (self.backbone, *self.head_modules) if self.trains_backbone else self.head_modules

    @property
    def head_modules(self) -> tuple[nn.Module, ...]:
        """Return the main path beside the backbone."""
        return (self.dropout, self.main_head)

    @property
    def phase2_modules(self) -> tuple[nn.Module, ...]:
        """Return what phase II trains."""
        modules = (self.maturity_heads, self.weight_block, self.loss_module)
        return tuple(module for module in modules if module is not None)

    def set_phase(self, phase: Phase) -> None:
        """Freeze and unfreeze; frozen parts are in eval mode, batch-norm and dropout included."""
        self.eval()
        trained = {
            "frozen_head": self.head_modules,
            "phase1": self.phase1_modules,
            "phase2": self.phase2_modules,
            "eval": (),
        }[phase]
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        for module in trained:
            module.train()
            for parameter in module.parameters():
                parameter.requires_grad_(True)

    def state_of(
        self, phase: Phase, state: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the entries of a state dict (by default: the current one) that a phase owns.

        Those are what it trains; a frozen backbone goes with phase I, so that a round's files
        are a whole network.
        """
        of_phase2 = {name for name, child in self.named_children() if child in self.phase2_modules}
        names = {name for name, _ in self.named_children()} - of_phase2
        if phase == "phase2":
            names = of_phase2
        elif phase == "frozen_head":
            names = {"main_head"}
        entries = self.state_dict() if state is None else state
        return {key: value for key, value in entries.items() if key.split(".")[0] in names}

    def switch_dropout_on(self) -> None:
        """Let dropout act in eval mode, for Monte Carlo passes.

        Raises:
            ConfigError: the main path has no dropout.
        """
        dropouts = [
            module
            for part in (self.dropout, self.main_head)
            for module in part.modules()
            if isinstance(module, nn.Dropout) and module.p > 0
        ]
        if not dropouts:
            raise ConfigError("this network has no dropout, so its passes would all be equal")
        for module in dropouts:
            module.train()

    def taps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the four feature maps of normalised images, shallow first.

        Those of a frozen backbone are rounded to float16, as they are stored, so that features
        that were kept and features that are computed again are the same.
        """
        if self.trains_backbone:
            return self.backbone(images)
        with torch.no_grad():
            return tuple(tap.half() for tap in self.backbone(images))

    def forward(self, inputs: Tensor | Sequence[Tensor], *, supports: bool) -> NetworkOutput:
        """Run the network.

        Args:
            inputs: normalised images [B, 3, H, W]; or, of a frozen backbone, the four taps
                of images as `taps` gives them, each [B, c_k, h_k, w_k].
            supports: also run what phase II trains.
        """
        train_main = torch.is_grad_enabled() and next(self.main_head.parameters()).requires_grad
        with torch.set_grad_enabled(train_main):
            features = self.taps(inputs) if isinstance(inputs, Tensor) else tuple(inputs)
            if self.tap_norm is not None:
                features = self.tap_norm(features)
            logits = self.main_head((*features[:3], self.dropout(features[3])))
            pooled = features[3].mean(dim=(2, 3))
        if not supports or self.loss_module is None:
            return NetworkOutput(logits, pooled)
        if self.maturity_heads is None:
            return NetworkOutput(logits, pooled, error_logits=self.loss_module(features, None))
        head_logits = self.maturity_heads(features)
        weights = self._weights(features, head_logits[0])
        on_heads = resize(weights, head_logits[0].shape[-2:])
        weighted = sum(
            (on_heads[:, i : i + 1] * one_head for i, one_head in enumerate(head_logits)),
            start=torch.zeros_like(head_logits[0]),
        )
        errors = self.loss_module(features, weighted)
        return NetworkOutput(logits, pooled, head_logits, weights, errors)

    def _weights(self, features: tuple[Tensor, ...], like: Tensor) -> Tensor:
        """Return maturity weights that sum to 1 over channels."""
        if self.weight_block is None:
            batch, _, height, width = like.shape
            return like.new_full((batch, 3, height, width), 1 / 3, dtype=torch.float32)
        return torch.softmax(self.weight_block(features).float(), dim=1)


def build_network(
    config: ModelConfig,
    num_classes: int,
    *,
    weights: Mapping[str, Tensor] | None,
    seed: int,
    supports: Supports = "full",
) -> SegmentationNetwork:
    """Build a network whose random weights depend on `seed` alone.

    Args:
        weights: state dict of the torchvision backbone, None for random weights.
        supports: see `SegmentationNetwork`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SegmentationNetwork(config, num_classes, weights, supports)
    return network.to(memory_format=torch.channels_last)  # 1.5 times faster on CPUs, as on GPUs
