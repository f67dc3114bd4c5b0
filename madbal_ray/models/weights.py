"""Pretrained weights: a torchvision name, a local file, or none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor
from torchvision.models import get_model_weights

from madbal_ray.errors import ConfigError
from madbal_ray.models.timm_backbone import is_timm, load_pretrained
from madbal_ray.state.storage import Folder

NONE = "none"
PRETRAINED = "pretrained"
FILE_SUFFIXES = (".safetensors", ".pt", ".pth")


def load_weights(spec: str, backbone: str, *, option: str) -> Mapping[str, Tensor] | None:
    """Return a torchvision state dict.

    Args:
        spec: ``none``, a name from torchvision (``IMAGENET1K_V2``), ``pretrained`` (timm), or a
            ``.safetensors``, ``.pt`` or ``.pth`` file.
        backbone: torchvision model that the weights are for.
        option: name of the option, for messages.

    Raises:
        ConfigError: no such name or file, or the file is not a state dict.
    """
    if spec == NONE:
        return None
    path = Path(spec)
    if path.suffix in FILE_SUFFIXES:
        return _from_file(path, option)
    if is_timm(backbone):
        if spec != PRETRAINED:
            raise ConfigError(
                f"{option} = {spec!r} is neither a file (.safetensors, .pt, .pth) nor {PRETRAINED} "
                "(timm's own) nor none"
            )
        return load_pretrained(backbone, option=option)
    known = get_model_weights(backbone)
    names = [entry.name for entry in known]
    if spec not in names:
        raise ConfigError(
            f"{option} = {spec!r} is neither a file (.safetensors, .pt, .pth) nor one of "
            f"torchvision's weights for {backbone}: {', '.join(names)}; or none"
        )
    try:
        return known[spec].get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise ConfigError(
            f"{option} = {spec}: torchvision could not fetch it ({error}); download it once and "
            "give the file's path"
        ) from None


@dataclass(frozen=True)
class PublishedWeights:
    """Pretrained weights in the pool, where every worker can read them.

    Attributes:
        identity: what stands for them in keys: ``none``, torchvision's name, or the sha256
            of the user's file.
        folder: of the pool; None without weights.
    """

    identity: str
    folder: Folder | None

    @property
    def name(self) -> str:
        """Return the file's name in the folder."""
        return f"{self.identity}.safetensors"

    def load(self) -> Mapping[str, Tensor] | None:
        """Return the state dict, None without weights."""
        return None if self.folder is None else load_safetensors(self.folder.read(self.name))


def publish_weights(spec: str, network: str, pool: Folder, *, option: str) -> PublishedWeights:
    """Copy weights into the pool once, so that workers need neither the path nor a network.

    Raises:
        ConfigError: see `load_weights`.
    """
    if spec == NONE:
        return PublishedWeights(NONE, None)
    path = Path(spec)
    is_file = path.suffix in FILE_SUFFIXES
    identity = hashlib.sha256(_read(path, option)).hexdigest() if is_file else f"{network}-{spec}"
    published = PublishedWeights(identity, pool / "weights")
    if not (pool / "weights").exists(published.name):
        state = load_weights(spec, network, option=option)
        assert state is not None
        data = save_safetensors({key: value.contiguous() for key, value in state.items()})
        (pool / "weights").write(published.name, data)
    return published


def _read(path: Path, option: str) -> bytes:
    try:
        return Folder(path.parent).read(path.name)
    except OSError as error:
        raise ConfigError(
            f"{option} = {path}: cannot be read ({error.strerror or error}); give the path of a "
            "weights file, or none"
        ) from None


def _from_file(path: Path, option: str) -> Mapping[str, Tensor]:
    data = _read(path, option)
    try:
        if path.suffix == ".safetensors":
            return load_safetensors(data)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise ConfigError(f"{option} = {path}: not a weights file: {error}") from None
    except Exception as error:  # torch raises its unpickling errors from several modules
        raise ConfigError(
            f"{option} = {path}: cannot be loaded safely (weights_only): {error}"
        ) from None
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise ConfigError(f"{option} = {path}: expected a state dict of tensors")
    return loaded
