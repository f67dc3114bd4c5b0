"""Superpixels of an image -> features of what they look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16
from torch import Tensor, nn
from torchvision import models as tv

from madbal_ray.arrays import LabelMap, RGBImage
from madbal_ray.config.pool import FeaturesConfig
from madbal_ray.errors import ConfigError
from madbal_ray.pool.superpixels.color import color_features
from madbal_ray.pool.superpixels.patches import crop_patches
from madbal_ray.vision.normalize import normalize_images

PATCH_SIZE = 16
"""Pixels, paper section 4."""
NOISE_PATCHES = 64


class EmbedSuperpixels:
    """Describe every superpixel by a vector.

    Args:
        weights: torchvision state dict of the extractor; None gives random weights drawn
            from a fixed seed, which still tell colours and textures apart.
    """

    def __init__(
        self, config: FeaturesConfig, *, weights: Mapping[str, Tensor] | None, device: torch.device
    ) -> None:
        self.config = config
        self.device = device
        self.network = None
        if config.extractor != "color":
            self.network = build_extractor(config.extractor, weights).to(device)

    def __call__(self, work_image: RGBImage, label_map: LabelMap) -> dict[str, Any]:
        """Return the image's columns of table `superpixel_features`, but for its id."""
        features = self.embed(work_image, label_map)
        return {
            "superpixel_id": np.arange(len(features), dtype=np.int32),
            "feature": features,
        }

    def embed(self, image: RGBImage, label_map: LabelMap) -> Float16[np.ndarray, "S D"]:
        """Return the features of one image's superpixels in half precision."""
        count = int(label_map.max()) + 1
        if self.network is None:
            return color_features(image, label_map, num_superpixels=count).astype(np.float16)
        patches = crop_patches(image, label_map, num_superpixels=count, size=PATCH_SIZE)
        stacked = torch.from_numpy(np.rint(patches).astype(np.uint8))
        features = []
        with torch.inference_mode():
            for start in range(0, count, self.config.batch_size):
                batch = stacked[start : start + self.config.batch_size].to(self.device)
                features.append(self.network(normalize_images(batch)).flatten(1).cpu())
        return torch.cat(features).numpy().astype(np.float16)


def build_extractor(name: str, weights: Mapping[str, Tensor] | None) -> nn.Module:
    """Return a network from 16 x 16 patches to vectors, in eval mode.

    VGG16 lacks its last max-pool, which would have nothing left to pool: 512 x 1 x 1.

    Raises:
        ConfigError: the weights are of another network.

    Source: paper section 4.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = {"vgg16": tv.vgg16, "mobilenet_v2": tv.mobilenet_v2}[name]().features
        if weights is None and name == "mobilenet_v2":
            _set_batch_statistics(features)
    if weights is not None:
        own = features.state_dict()
        given = {
            key: weights[f"features.{key}"].to(own[key].dtype)
            for key in own
            if f"features.{key}" in weights
        }
        missing = [k for k in own if k not in given and not k.endswith("num_batches_tracked")]
        if missing or any(given[key].shape != own[key].shape for key in given):
            raise ConfigError(
                f"features.weights do not fit {name}: {len(missing)} entries are missing; give a "
                f"torchvision state dict of {name}"
            )
        features.load_state_dict(given, strict=False)
    if name == "vgg16":
        features = features[:-1]
    return features.eval()


def _set_batch_statistics(features: nn.Module) -> None:
    """Give a random network the batch-norm statistics of noise.

    Without them the activations of a deep random network vanish, and all superpixels
    would look the same.
    """
    for module in features.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain average over what follows: one batch
    features.train()
    with torch.no_grad():
        features(torch.randn(NOISE_PATCHES, 3, PATCH_SIZE, PATCH_SIZE))
