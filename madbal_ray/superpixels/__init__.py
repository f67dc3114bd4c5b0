"""Superpixels: segmentation, patches and features, reduction of pixel scores.

`reduce_scores` needs torch and is loaded when first asked for; the rest is numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from madbal_ray.superpixels.reduce import SuperpixelScores, reduce_scores

__all__ = ["SuperpixelScores", "reduce_scores"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from madbal_ray.superpixels import reduce

        return getattr(reduce, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
