"""Segmentation heads, and the supports that read how mature the features are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation.deeplabv3 import ASPP, DeepLabHead
from torchvision.models.segmentation.lraspp import LRASPPHead
from torchvision.ops import Conv2dNormActivation, SqueezeExcitation

from madbal_ray.config.training import ModelConfig

SUPPORT_WIDTH = 32
LOW_LEVEL_WIDTH = 16
LRASPP_WIDTH = 128
DEEPLAB_WIDTH = 256
DECODER_LOW_WIDTH = 48


class LRASPP(nn.Module):
    """Lite reduced ASPP (Howard et al. 2019): taps 2 (low) and 4 (high)."""

    def __init__(self, channels: tuple[int, ...], num_classes: int, config: ModelConfig) -> None:
        super().__init__()
        self.head = LRASPPHead(channels[1], channels[3], num_classes, LRASPP_WIDTH)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return logits on the grid of tap 2."""
        return self.head({"low": features[1], "high": features[3]})


class DeepLabV3(nn.Module):
    """Atrous spatial pyramid pooling on tap 4 (Chen et al. 2017)."""

    def __init__(self, channels: tuple[int, ...], num_classes: int, config: ModelConfig) -> None:
        super().__init__()
        self.head = DeepLabHead(channels[3], num_classes)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return logits on the grid of tap 4."""
        return self.head(features[3])


class DeepLabV3Plus(nn.Module):
    """DeepLabv3 with a decoder that sees tap 1 (Chen et al. 2018)."""

    def __init__(self, channels: tuple[int, ...], num_classes: int, config: ModelConfig) -> None:
        super().__init__()
        self.pyramid = ASPP(channels[3], [6, 12, 18], DEEPLAB_WIDTH)
        self.project_low = Conv2dNormActivation(channels[0], DECODER_LOW_WIDTH, 1)
        self.decoder = nn.Sequential(
            Conv2dNormActivation(DEEPLAB_WIDTH + DECODER_LOW_WIDTH, DEEPLAB_WIDTH),
            Conv2dNormActivation(DEEPLAB_WIDTH, DEEPLAB_WIDTH),
            nn.Conv2d(DEEPLAB_WIDTH, num_classes, 1),
        )

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return logits on the grid of tap 1."""
        low = self.project_low(features[0])
        return self.decoder(torch.cat([resize(self.pyramid(features[3]), low.shape[-2:]), low], 1))


class MaturityHeads(nn.Module):
    """Shallow-, semi- and almost-mature heads: one light convolution each (paper 3.1)."""

    def __init__(self, channels: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Conv2d(width, num_classes, 3, padding=1) for width in channels[:3]
        )

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return three maps of logits on the grid of tap 1."""
        size = features[0].shape[-2:]
        return tuple(
            resize(head(feature), size) for head, feature in zip(self.heads, features, strict=False)
        )


class LossPredictionModule(nn.Module):
    """Predict, for each pixel, whether its loss is high for its class (paper 3.1, Eq. 2).

    Input: the head logits weighted by maturity, the projected deepest features and the
    shallowest ones. Convolution, convolution, residual block, squeeze and excitation,
    convolution to two channels: boundary, center.

    Args:
        num_classes: of the weighted head logits; 0 where there are none.
    """

    def __init__(self, channels: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.project_deep = Conv2dNormActivation(channels[3], SUPPORT_WIDTH, 1)
        self.project_low = Conv2dNormActivation(channels[0], LOW_LEVEL_WIDTH, 1)
        width = num_classes + SUPPORT_WIDTH + LOW_LEVEL_WIDTH
        self.enter = nn.Sequential(
            Conv2dNormActivation(width, SUPPORT_WIDTH),
            Conv2dNormActivation(SUPPORT_WIDTH, SUPPORT_WIDTH),
        )
        self.residual = nn.Sequential(
            Conv2dNormActivation(SUPPORT_WIDTH, SUPPORT_WIDTH),
            Conv2dNormActivation(SUPPORT_WIDTH, SUPPORT_WIDTH, activation_layer=None),
        )
        self.excite = SqueezeExcitation(SUPPORT_WIDTH, SUPPORT_WIDTH // 4)
        self.out = nn.Conv2d(SUPPORT_WIDTH, 2, 1)

    def forward(self, features: tuple[Tensor, ...], weighted_logits: Tensor | None) -> Tensor:
        """Return error logits [B, 2, h, w] (boundary, center) on the grid of tap 1."""
        size = features[0].shape[-2:]
        inputs = [resize(self.project_deep(features[3]), size), self.project_low(features[0])]
        if weighted_logits is not None:
            inputs.insert(0, weighted_logits)
        mixed = self.enter(torch.cat(inputs, dim=1))
        return self.out(self.excite(F.relu(mixed + self.residual(mixed))))


def resize(maps: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Bring maps to another grid, bilinear, pixel centres at (i + 1/2) / n."""
    if maps.shape[-2:] == torch.Size(size):
        return maps
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)
