"""Images -> superpixel scores: the one pass over the pool in each round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from madbal_ray.arrays import BoolMap, LabelMap, RGBImage
from madbal_ray.errors import NumericalError
from madbal_ray.models import SegmentationNetwork
from madbal_ray.scoring import pixel_scores
from madbal_ray.superpixels.reduce import laps_needed, reduce_scores
from madbal_ray.vision.boundary import boundary_map
from madbal_ray.vision.normalize import normalize_images


class ScoreImages:
    """Run the network, score pixels (Eq. 4), reduce to superpixels (Eq. 6's mean).

    Args:
        network: in eval mode, on `device`.
        budget: B; decides how many pixels of a superpixel are kept (usually 1).
        use_bf16: autocast the forward pass.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        *,
        num_classes: int,
        budget: int,
        use_bf16: bool,
        device: torch.device,
    ) -> None:
        self.network = network
        self.num_classes = num_classes
        self.budget = budget
        self.use_bf16 = use_bf16
        self.device = device

    def __call__(
        self,
        *,
        image_id: Sequence[str],
        input_image: UInt8[np.ndarray, "B h w 3"],
        work_image: Sequence[RGBImage],
        label_map: Sequence[LabelMap],
        cluster_id: Sequence[np.ndarray],
        is_asked: Sequence[BoolMap],
    ) -> dict[str, Any]:
        """Return the columns of table `superpixel_scores` for images of one size.

        Raises:
            NumericalError: a score is not finite; the image is named.
        """
        is_boundary = np.stack([boundary_map(image) for image in work_image])
        with torch.inference_mode():
            images = normalize_images(torch.from_numpy(input_image).to(self.device))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.use_bf16):
                output = self.network(images, supports=True)
            scores = pixel_scores(
                logits=output.logits,
                head_logits=output.head_logits,
                maturity_weights=output.maturity_weights,
                error_logits=output.error_logits,
                is_boundary=torch.from_numpy(is_boundary).to(self.device),
            )
            finite = torch.isfinite(scores.score).flatten(1).all(dim=1).tolist()
            if not all(finite):
                bad = [name for name, fine in zip(image_id, finite, strict=True) if not fine]
                raise NumericalError(
                    f"the network's output for {bad[0]} is NaN or infinite ({len(bad)} of "
                    f"{len(image_id)} images in the batch); training has diverged: lower "
                    "train.phase1.learning_rate or use train.precision: fp32"
                )
            parts = [
                self._reduce(scores.score[i], scores.prediction[i], label_map[i], is_asked[i])
                for i in range(len(image_id))
            ]
        columns: dict[str, Any] = {
            name: np.concatenate([part[name] for part in parts])
            for name in ("num_pixels", "mean_score", "dominant_class", "superpixel_id")
        }
        for name in ("top_y", "top_x", "top_score"):
            columns[name] = [row for part in parts for row in part[name]]
        columns["cluster_id"] = np.concatenate(list(cluster_id))
        columns["image_id"] = [
            name
            for name, part in zip(image_id, parts, strict=True)
            for _ in range(len(part["superpixel_id"]))
        ]
        return columns

    def _reduce(
        self, score: torch.Tensor, prediction: torch.Tensor, label_map: LabelMap, is_asked: BoolMap
    ) -> dict[str, Any]:
        count = int(label_map.max()) + 1
        unasked = np.bincount(label_map[~is_asked], minlength=count)
        reduced = reduce_scores(
            score=score,
            prediction=prediction,
            is_asked=torch.from_numpy(is_asked).to(self.device),
            superpixel_ids=torch.from_numpy(label_map.astype(np.int32)).to(self.device),
            num_superpixels=count,
            num_classes=self.num_classes,
            top=laps_needed(unasked, self.budget),
        )
        columns = {name: value.cpu().numpy() for name, value in vars(reduced).items()}
        columns["superpixel_id"] = np.arange(count, dtype=np.int32)
        return columns
