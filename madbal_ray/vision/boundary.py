"""delta(x): which pixels lie on a boundary, read off the image (method 2, Eq. 4)."""

from __future__ import annotations

import cv2
import numpy as np

from madbal_ray.arrays import BoolMap, RGBImage

BOUNDARY_THRESHOLD = 20
"""On the 8-bit scale of 0.5 |Sobel_x| + 0.5 |Sobel_y|."""


def boundary_map(image: RGBImage) -> BoolMap:
    """Return True on boundary pixels, False on center pixels.

    3x3 Gaussian blur, grey, half the sum of absolute 3x3 Sobel responses, boundary where
    that is at least `BOUNDARY_THRESHOLD`. The image is on the working grid.

    Source: MADBAL Eq. 4's delta; operator and threshold as in the reference code, without
    its exclusion of gradients above 200 (docs/fidelity.md).
    """
    gray = cv2.cvtColor(cv2.GaussianBlur(image, (3, 3), 0), cv2.COLOR_RGB2GRAY)
    vertical = np.abs(cv2.Sobel(gray, cv2.CV_16S, 0, 1)).astype(np.int32)
    horizontal = np.abs(cv2.Sobel(gray, cv2.CV_16S, 1, 0)).astype(np.int32)
    return vertical + horizontal >= 2 * BOUNDARY_THRESHOLD
