"""Backbones of timm by name: ``model.backbone: timm:NAME`` (extra `timm`).

Taps, channels and strides are read from the model. Convolutional networks and hierarchical
transformers give their last four stages, plain vision transformers four blocks at even depths.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from madbal_ray.errors import ConfigError
from madbal_ray.vision.normalize import IMAGENET_MEAN, IMAGENET_STD

PREFIX = "timm:"
NUM_TAPS = 4


def is_timm(backbone: str) -> bool:
    """Tell whether a backbone is one of timm's."""
    return backbone.startswith(PREFIX)


class TimmBody(nn.Module):
    """A timm network that returns four taps, shallow first.

    Args:
        name: ``timm:NAME``.
        output_stride: of networks that can be dilated; others have their own.

    Attributes:
        channels: of each tap.

    Raises:
        ConfigError: timm is not installed, knows no such network, or it gives no four taps.
    """

    def __init__(self, name: str, *, output_stride: int) -> None:
        super().__init__()
        self.name = name
        self.network = _create(name, output_stride=output_stride)
        info = self.network.feature_info
        entries = info if isinstance(info, list) else info.info
        self.indices = _choose(name, [entry["reduction"] for entry in entries])
        self.channels = tuple(entries[index]["num_chs"] for index in self.indices)
        scale, shift = _from_imagenet(self.network.pretrained_cfg)
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the taps of images that are normalised for ImageNet.

        Raises:
            ConfigError: the network refuses images of this size.
        """
        try:
            return tuple(
                self.network.forward_intermediates(
                    images * self.scale + self.shift,
                    indices=list(self.indices),
                    output_fmt="NCHW",
                    intermediates_only=True,
                )
            )
        except AssertionError as error:
            height, width = images.shape[-2:]
            raise ConfigError(
                f"{self.name} refuses images of {height} x {width} ({error}); set grids.input to a "
                "size that it takes"
            ) from None


def load_pretrained(name: str, *, option: str) -> Mapping[str, Tensor]:
    """Return the weights that timm itself has for a network; it may download them.

    Raises:
        ConfigError: there are none, or they cannot be fetched.
    """
    try:
        return _timm().create_model(_bare(name), pretrained=True, num_classes=0).state_dict()
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{option} = pretrained: timm has no weights for {_bare(name)} here ({reason}); "
            "download them once and give the file's path, or none"
        ) from None


def _create(name: str, *, output_stride: int) -> Any:
    """Create a network without weights, dilated or of any input size where it can be."""
    create, bare = _timm().create_model, _bare(name)
    choices: tuple[dict[str, Any], ...] = (
        {"output_stride": output_stride},
        {"dynamic_img_size": True},
        {},
    )
    for options in choices:
        try:
            return create(bare, pretrained=False, num_classes=0, **options)
        except TypeError:  # timm hands on what a network's constructor does not take
            continue
        except (RuntimeError, NotImplementedError, AssertionError) as error:
            near = ", ".join(difflib.get_close_matches(bare, _timm().list_models(), n=5))
            raise ConfigError(
                f"model.backbone = {name}: timm cannot make it ({error}); "
                + (f"of similar names it has: {near}" if near else "see timm.list_models()")
            ) from None
    raise ConfigError(f"model.backbone = {name}: timm cannot make it")


def _choose(name: str, reductions: list[int]) -> tuple[int, ...]:
    """Return which four of a network's stages are tapped."""
    if len(reductions) < NUM_TAPS:
        raise ConfigError(
            f"model.backbone = {name} has {len(reductions)} stages, and {NUM_TAPS} taps are needed"
        )
    if len(set(reductions)) == 1:  # a plain transformer: every block has the same grid
        depth = len(reductions)
        return tuple(depth * (tap + 1) // NUM_TAPS - 1 for tap in range(NUM_TAPS))
    return tuple(range(len(reductions) - NUM_TAPS, len(reductions)))


def _from_imagenet(settings: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return what brings ImageNet's normalisation to that which the network was trained with."""
    own, usual = (
        (
            torch.tensor(mean, dtype=torch.float32)[:, None, None],
            torch.tensor(std, dtype=torch.float32)[:, None, None],
        )
        for mean, std in (
            (settings.get("mean", IMAGENET_MEAN), settings.get("std", IMAGENET_STD)),
            (IMAGENET_MEAN, IMAGENET_STD),
        )
    )
    return usual[1] / own[1], (usual[0] - own[0]) / own[1]


def _bare(name: str) -> str:
    return name.removeprefix(PREFIX)


def _timm() -> Any:
    try:
        import timm  # an extra: whoever names no backbone of timm needs it not
    except ImportError:
        raise ConfigError(
            "model.backbone: timm is not installed; pip install 'madbal_ray[timm]'"
        ) from None
    return timm
