"""Backbones from torchvision; one `BackboneSpec` is a constructor and a tap list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision import models as tv
from torchvision.models.feature_extraction import create_feature_extractor

from madbal_ray.config.training import ModelConfig
from madbal_ray.errors import ConfigError
from madbal_ray.models.timm_backbone import TimmBody, is_timm
from madbal_ray.seams import BACKBONES

PROBE_SIZE = 64
NOISE_SIZE = 112
"""A multiple of every patch size that is in use (14, 16)."""


@dataclass(frozen=True)
class BackboneSpec:
    """How to build a backbone and where to tap it.

    Attributes:
        build: from output stride to a network without weights.
        taps: four node names of rising depth (as in torchvision's feature extractor).
        unused: prefixes of parameters that lie behind the deepest tap.
    """

    build: Callable[[int], nn.Module]
    taps: tuple[str, str, str, str]
    unused: tuple[str, ...]


def _sequential(constructor: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    """Return a builder for networks whose convolutions run one after the other."""

    def build(output_stride: int) -> nn.Module:
        network = constructor()
        limit_stride(network, output_stride)
        return network

    return build


def _resnet50(output_stride: int) -> nn.Module:
    return tv.resnet50(replace_stride_with_dilation=[False, output_stride < 16, output_stride < 32])


MOBILENET_V2 = BackboneSpec(
    build=_sequential(tv.mobilenet_v2),
    taps=("features.3", "features.6", "features.13", "features.17"),
    unused=("features.18.", "classifier."),
)
MOBILENET_V3_LARGE = BackboneSpec(
    build=_sequential(tv.mobilenet_v3_large),
    taps=("features.3", "features.6", "features.12", "features.16"),
    unused=("classifier.",),
)
RESNET50 = BackboneSpec(
    build=_resnet50, taps=("layer1", "layer2", "layer3", "layer4"), unused=("fc.",)
)


class Backbone(nn.Module):
    """A network that returns its four taps, shallow first: torchvision's, a plug-in's, timm's.

    Attributes:
        channels: channels of each tap.
    """

    def __init__(
        self, name: str, *, output_stride: int, weights: Mapping[str, Tensor] | None
    ) -> None:
        super().__init__()
        if is_timm(name):
            self.body: nn.Module = TimmBody(name, output_stride=output_stride)
            if weights is not None:
                _load(self.body.network, weights, (), name)
            self.channels = self.body.channels
            return
        spec = BACKBONES[name]
        network = spec.build(output_stride)
        if weights is not None:
            _load(network, weights, spec.unused, name)
        nodes = {node: str(index) for index, node in enumerate(spec.taps)}
        self.body = create_feature_extractor(network, nodes)
        self.channels = self._probe()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return four feature maps [B, c_k, h_k, w_k], shallow first."""
        taps = self.body(images)
        return tuple(taps.values()) if isinstance(taps, dict) else taps

    def _probe(self) -> tuple[int, ...]:
        was_training = self.training
        self.eval()
        with torch.no_grad():
            maps = self(torch.zeros(1, 3, PROBE_SIZE, PROBE_SIZE))
        self.train(was_training)
        return tuple(feature.shape[1] for feature in maps)


def check_backbone(config: ModelConfig) -> None:
    """Say early what is wrong with the name of a backbone.

    Raises:
        ConfigError: there is no such backbone.
    """
    if is_timm(config.backbone):
        TimmBody(config.backbone, output_stride=config.output_stride)
    else:
        BACKBONES[config.backbone]


def frozen_backbone(config: ModelConfig, weights: Mapping[str, Tensor] | None) -> Backbone:
    """Return a backbone that is never trained; without weights it is the same random one always.

    A random network in eval mode lets its activations die away, since its batch norms know no
    statistics: they get those of noise.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Backbone(config.backbone, output_stride=config.output_stride, weights=weights)
        if weights is None:
            _settle(backbone)
    backbone.to(memory_format=torch.channels_last)
    return backbone.eval().requires_grad_(False)


def _settle(backbone: Backbone) -> None:
    """Give batch norms the statistics of noise."""
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        backbone.train()(torch.randn(4, 3, NOISE_SIZE, NOISE_SIZE))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def limit_stride(network: nn.Module, output_stride: int) -> None:
    """Replace strides beyond `output_stride` by dilation, as DeepLab does.

    Works on networks whose convolutions run in the order of `modules()`. A convolution
    that loses its stride keeps the dilation before it; those after it are dilated.
    """
    stride, dilation = 1, 1
    for module in network.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        own_stride = module.stride[0]
        kernel = module.kernel_size[0]
        if kernel > 1 and dilation > 1:
            module.dilation = (dilation, dilation)
            module.padding = (dilation * (kernel - 1) // 2,) * 2
        if own_stride > 1 and stride * own_stride > output_stride:
            module.stride = (1, 1)
            dilation *= own_stride
        else:
            stride *= own_stride


def _load(
    network: nn.Module, weights: Mapping[str, Tensor], unused: tuple[str, ...], name: str
) -> None:
    own = network.state_dict()
    needed = {key for key in own if not key.startswith(unused)}
    missing = sorted(
        key for key in needed if key not in weights and not key.endswith("num_batches_tracked")
    )
    if missing:
        raise ConfigError(
            f"model.weights do not fit {name}: {len(missing)} of {len(needed)} entries are "
            f"missing, the first is {missing[0]!r}; give a state dict of {name}, as torchvision or "
            "timm has it"
        )
    wrong = [key for key in needed if key in weights and weights[key].shape != own[key].shape]
    if wrong:
        key = min(wrong)
        raise ConfigError(
            f"model.weights do not fit {name}: {key} has shape {tuple(weights[key].shape)}, "
            f"expected {tuple(own[key].shape)}"
        )
    network.load_state_dict(
        {key: weights[key].to(own[key].dtype) for key in needed if key in weights}, strict=False
    )
