"""An image -> its superpixels."""

from __future__ import annotations

from typing import Any

from madbal_ray.arrays import MAX_SUPERPIXELS, LabelMap, RGBImage
from madbal_ray.config.pool import SuperpixelsConfig
from madbal_ray.errors import PoolError
from madbal_ray.pool.label_map import pack_label_map
from madbal_ray.pool.superpixels.seeds import is_safe
from madbal_ray.seams import SUPERPIXELS


class SegmentImages:
    """Split an image of the working grid into superpixels."""

    def __init__(self, config: SuperpixelsConfig) -> None:
        self.config = config

    def __call__(self, work_image: RGBImage) -> dict[str, Any]:
        """Return the image's row of table `superpixels`, but for its id."""
        return self.row(self.segment(work_image))

    def row(self, label_map: LabelMap) -> dict[str, Any]:
        """Return the row of a label map, but for its id."""
        return {
            "num_superpixels": int(label_map.max()) + 1,
            "label_map": pack_label_map(label_map),
        }

    def segment(self, image: RGBImage) -> LabelMap:
        """Return the label map of an image, about `superpixels.pixels` pixels each.

        SLIC splits images that are too thin or too small for SEEDS.

        Raises:
            PoolError: that would be more superpixels than a label map can number.
        """
        height, width = image.shape[:2]
        wanted = max(1, height * width // self.config.pixels)
        if wanted > MAX_SUPERPIXELS:
            raise PoolError(
                f"superpixels.pixels = {self.config.pixels} asks for {wanted} superpixels in an "
                f"image of {height} x {width}; at most {MAX_SUPERPIXELS} fit a label map: raise it"
            )
        name = self.config.method
        if name == "seeds" and not is_safe(height, width, wanted):
            name = "slic"
        method = SUPERPIXELS[name]
        return method(image, num_superpixels=wanted, max_levels=self.config.seeds_levels)
