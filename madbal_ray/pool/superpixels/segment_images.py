"""Images -> superpixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from madbal_ray.arrays import MAX_SUPERPIXELS, LabelMap, RGBImage
from madbal_ray.config.pool import SuperpixelsConfig
from madbal_ray.errors import PoolError
from madbal_ray.pool.label_map import pack_label_map
from madbal_ray.seams import SUPERPIXELS


class SegmentImages:
    """Split images of the working grid into superpixels."""

    def __init__(self, config: SuperpixelsConfig) -> None:
        self.config = config

    def __call__(
        self, *, image_id: Sequence[str], work_image: Sequence[RGBImage]
    ) -> dict[str, Any]:
        """Return the columns of table `superpixels`."""
        label_maps = [self.segment(image) for image in work_image]
        counts = [int(label_map.max()) + 1 for label_map in label_maps]
        return {
            "image_id": list(image_id),
            "num_superpixels": counts,
            "label_map": [pack_label_map(label_map) for label_map in label_maps],
        }

    def segment(self, image: RGBImage) -> LabelMap:
        """Return the label map of one image, about `superpixels.pixels` pixels each."""
        height, width = image.shape[:2]
        wanted = max(1, height * width // self.config.pixels)
        if wanted > MAX_SUPERPIXELS:
            raise PoolError(
                f"superpixels.pixels = {self.config.pixels} asks for {wanted} superpixels in an "
                f"image of {height} x {width}; at most {MAX_SUPERPIXELS} fit a label map: raise it"
            )
        method = SUPERPIXELS[self.config.method]
        return method(image, num_superpixels=wanted, max_levels=self.config.seeds_levels)
