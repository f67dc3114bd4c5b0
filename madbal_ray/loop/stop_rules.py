"""When a run stops before its last round."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from madbal_ray.config.running import StopConfig
from madbal_ray.errors import ConfigError


def reason_to_stop(config: StopConfig, history: Sequence[Mapping[str, Any]]) -> str | None:
    """Return why to stop now, None to go on.

    Args:
        history: rows of table `metrics`, all rounds so far, in order; the same clicks stand in all
            rows of a round.
    """
    if not history:
        return None
    spent = history[-1]["clicks_per_image"]
    miou = [row["miou"] or 0.0 for row in history if row["split"] == config.split]
    if miou and config.full_supervision_miou is not None:
        wanted = config.share * config.full_supervision_miou
        if miou[-1] >= wanted:
            return (
                f"mIoU {miou[-1]:.4f} on {config.split} has reached {config.share:.0%} of full "
                f"supervision ({config.full_supervision_miou:.4f})"
            )
    if config.clicks_per_image is not None and spent >= config.clicks_per_image:
        return f"{spent:g} clicks an image are spent, the limit is {config.clicks_per_image:g}"
    if config.patience is not None and len(miou) > config.patience:
        best_before = max(miou[: -config.patience])
        if max(miou[-config.patience :]) <= best_before:
            return f"no better mIoU on {config.split} for {config.patience} rounds"
    return None


def check_stop_split(config: StopConfig, measured: Collection[str]) -> None:
    """See that a rule about mIoU has one to look at.

    Args:
        measured: the splits that a run measures.

    Raises:
        ConfigError: a rule is set, and its split is not measured.
    """
    rules = [name for name in ("full_supervision_miou", "patience") if getattr(config, name)]
    if rules and config.split not in measured:
        raise ConfigError(
            f"stop.{rules[0]} looks at split {config.split!r}, which is not measured; set "
            f"stop.split to one that is: {', '.join(measured) or 'none is'}"
        )
