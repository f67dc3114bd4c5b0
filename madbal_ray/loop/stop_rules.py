"""When a run stops before its last round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from madbal_ray.config.running import StopConfig


def reason_to_stop(config: StopConfig, history: Sequence[Mapping[str, Any]]) -> str | None:
    """Return why to stop now, None to go on.

    Args:
        history: rows of table `metrics`, all rounds so far, in order.
    """
    rows = [row for row in history if row["split"] == config.split]
    if not rows:
        return None
    miou = [row["miou"] or 0.0 for row in rows]
    if config.full_supervision_miou is not None:
        wanted = config.share * config.full_supervision_miou
        if miou[-1] >= wanted:
            return (
                f"mIoU {miou[-1]:.4f} on {config.split} has reached {config.share:.0%} of full "
                f"supervision ({config.full_supervision_miou:.4f})"
            )
    spent = rows[-1]["clicks_per_image"]
    if config.clicks_per_image is not None and spent >= config.clicks_per_image:
        return f"{spent:g} clicks an image are spent, the limit is {config.clicks_per_image:g}"
    if config.patience is not None and len(miou) > config.patience:
        best_before = max(miou[: -config.patience])
        if max(miou[-config.patience :]) <= best_before:
            return f"no better mIoU on {config.split} for {config.patience} rounds"
    return None
