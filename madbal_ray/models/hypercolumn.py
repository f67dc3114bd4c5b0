"""Pointwise heads: a layer that is a matrix product at a point and a 1x1 convolution on a map.

Bilinear resizing and 1x1 convolutions commute, so each tap is projected at its own
resolution (finer ones after resizing) and the projections are added. At a point, taps are
maps of 1 x 1 cell, and the same layer is a matrix product: training needs the features of the
labelled points and nothing else.

Source: Hariharan et al. 2015 (hypercolumns); PixelPick and method 2 for training on points.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from madbal_ray.config.training import ModelConfig
from madbal_ray.models.heads import resize

SUPPORT_HIDDEN = 64
"""Width of the heads that phase II trains."""

GRID_TAP = {4: 0, 8: 1, 16: 2}
"""`model.head_stride` -> the tap whose grid the head works on."""


class Pointwise(nn.Module):
    """A perceptron with one hidden layer over some taps: no output sees a neighbour's input.

    Args:
        channels: of the taps, shallow first.
        outputs: channels of the result.
    """

    def __init__(
        self, channels: Sequence[int], outputs: int, *, hidden: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(width, hidden, bias=False) for width in channels)
        self.norm = nn.BatchNorm1d(hidden)
        self.dropout = QuickDropout(dropout) if dropout else nn.Identity()
        self.out = nn.Linear(hidden, outputs)

    def forward(self, taps: Sequence[Tensor], size: torch.Size) -> Tensor:
        """Return maps [B, outputs, h, w] on a grid of `size` = (h, w)."""
        batch = taps[0].shape[0]
        total: Tensor | None = None
        for projection, tap in zip(self.projections, taps, strict=True):
            is_finer = tap.shape[-2] * tap.shape[-1] > size[0] * size[1]
            maps = _project(projection, resize(tap, size) if is_finer else tap)
            maps = resize(maps, size)
            total = maps if total is None else total + maps
        assert total is not None
        rows = total.permute(0, 2, 3, 1).reshape(-1, total.shape[1])  # a view: channels come last
        rows = self.out(self.dropout(F.relu(self.norm(rows))))
        return rows.view(batch, *size, -1).permute(0, 3, 1, 2)


class QuickDropout(nn.Dropout):
    """Dropout whose mask is drawn 16 bits a unit: on CPUs 0.2 ms in place of 1.7 for 512 x 256.

    The probability is a multiple of 2**-16.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with units dropped, in training, and the rest scaled."""
        if not self.training or input.device.type != "cpu":
            return super().forward(input)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        drawn = words.view(torch.int16)[: input.numel()].view(input.shape)
        dropped = min(round(self.p * 2**16), 2**16 - 1)
        kept = (drawn >= dropped - 2**15).to(input.dtype)
        return input * kept.mul_(2**16 / (2**16 - dropped))


class Hypercolumn(nn.Module):
    """The main head: `model.hidden` units over all four taps, on the grid of one of them."""

    is_pointwise = True

    def __init__(self, channels: tuple[int, ...], num_classes: int, config: ModelConfig) -> None:
        super().__init__()
        self.grid_tap = GRID_TAP[config.head_stride]
        self.layer = Pointwise(channels, num_classes, hidden=config.hidden, dropout=config.dropout)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return logits on the head's grid."""
        return self.layer(features, features[self.grid_tap].shape[-2:])


class PointwiseMaturityHeads(nn.Module):
    """Shallow-, semi- and almost-mature heads: head k sees taps 1 to k (paper 3.1)."""

    def __init__(self, channels: tuple[int, ...], num_classes: int, config: ModelConfig) -> None:
        super().__init__()
        self.grid_tap = GRID_TAP[config.head_stride]
        self.heads = nn.ModuleList(
            Pointwise(channels[: depth + 1], num_classes, hidden=SUPPORT_HIDDEN)
            for depth in range(3)
        )

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return three maps of logits on the head's grid."""
        size = features[self.grid_tap].shape[-2:]
        return tuple(head(features[: depth + 1], size) for depth, head in enumerate(self.heads))


class PointwiseWeightBlock(nn.Module):
    """Maturity weights before softmax, from all taps (paper 3.1)."""

    def __init__(self, channels: tuple[int, ...], config: ModelConfig) -> None:
        super().__init__()
        self.grid_tap = GRID_TAP[config.head_stride]
        self.layer = Pointwise(channels, 3, hidden=SUPPORT_HIDDEN)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return three maps on the head's grid."""
        return self.layer(features, features[self.grid_tap].shape[-2:])


class PointwiseLossPrediction(nn.Module):
    """Predict, for each pixel, whether its loss is high for its class (paper 3.1, Eq. 2).

    Args:
        num_classes: of the weighted head logits; 0 where there are none.
    """

    def __init__(self, channels: tuple[int, ...], num_classes: int, config: ModelConfig) -> None:
        super().__init__()
        self.grid_tap = GRID_TAP[config.head_stride]
        widths = (*channels, num_classes) if num_classes else channels
        self.layer = Pointwise(widths, 2, hidden=SUPPORT_HIDDEN)

    def forward(self, features: tuple[Tensor, ...], weighted_logits: Tensor | None) -> Tensor:
        """Return error logits [B, 2, h, w] (boundary, center) on the head's grid."""
        size = features[self.grid_tap].shape[-2:]
        seen = features if weighted_logits is None else (*features, weighted_logits)
        return self.layer(seen, size)


def _project(projection: nn.Module, maps: Tensor) -> Tensor:
    """Apply a linear layer to every cell of maps [B, c, h, w]."""
    batch, _, height, width = maps.shape
    rows = projection(maps.permute(0, 2, 3, 1).reshape(batch * height * width, -1))
    return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)
