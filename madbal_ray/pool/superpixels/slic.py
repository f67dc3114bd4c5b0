"""SLIC superpixels (Achanta et al. 2012) through scikit-image."""

from __future__ import annotations

from skimage.segmentation import slic

from madbal_ray.arrays import LabelMap, RGBImage
from madbal_ray.pool.label_map import without_gaps

COMPACTNESS = 10.0


def segment_slic(image: RGBImage, *, num_superpixels: int, max_levels: int = 0) -> LabelMap:
    """Split an image into about `num_superpixels` connected superpixels; ids 0..S-1.

    Args:
        max_levels: of SEEDS; SLIC has none.
    """
    labels = slic(
        image,
        n_segments=num_superpixels,
        compactness=COMPACTNESS,
        start_label=0,
        enforce_connectivity=True,
        channel_axis=-1,
    )
    return without_gaps(labels)
