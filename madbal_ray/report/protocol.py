"""The protocol of a run in words: what every number stands beside."""

from __future__ import annotations

from collections.abc import Mapping

from madbal_ray.arrays import IGNORE_INDEX
from madbal_ray.config.asking import BudgetConfig
from madbal_ray.config.schema import Config
from madbal_ray.config.section import GridSize, LongSide
from madbal_ray.config.training import PhaseConfig


def describe_protocol(
    config: Config,
    *,
    split_sizes: Mapping[str, tuple[int, int]],
    num_classes: int,
) -> list[str]:
    """Return data, splits, classes, void, grids, training and budget, a line each.

    Args:
        split_sizes: split -> (usable images, quarantined images).
    """
    pool = config.data.pool_split
    splits = ", ".join(
        f"{split} {good}" + (f" ({bad} quarantined)" if bad else "") + " (pool)" * (split == pool)
        for split, (good, bad) in split_sizes.items()
    )
    void = "never asked" if config.oracle.skip_void else "asked pixels that are void cost a click"
    train = config.train
    lengths = " + ".join(_length(phase) for phase in (train.phase1, train.phase2))
    if train.init == "frozen_head":
        lengths = f"{_length(train.frozen_head)} (frozen head) + {lengths}"
    frozen = "" if config.model.train_backbone else " (frozen)"
    return [
        f"data        {config.data.name}: {splits}; {num_classes} classes, void id {IGNORE_INDEX}",
        f"grids       input {_size(config.grids.input)}, working {_size(config.grids.working)}, "
        f"evaluation {config.evaluation.size}",
        f"network     {config.model.backbone}{frozen} + {config.model.head}, output stride "
        f"{config.model.output_stride}; {lengths} (phase I + II), "
        "the last epoch is measured and asks",
        f"budget      {describe_start(config.budget)}, then {describe_round(config.budget)} by "
        f"{config.strategy.name}; {void}",
        "measure     mIoU over classes that occur in prediction or truth, from one confusion "
        "matrix a split",
    ]


def _length(phase: PhaseConfig) -> str:
    return f"{phase.epochs} epochs" if phase.steps is None else f"{phase.steps} steps"


def describe_start(budget: BudgetConfig) -> str:
    """Return what round 0 asks, in words."""
    what = f"{budget.initial_pixels_per_image} random pixels an image"
    if budget.initial_images is not None:
        what += f" on {budget.initial_images} images"
    return f"{what}, spread over clusters" if budget.initial == "spread" else what


def describe_round(budget: BudgetConfig) -> str:
    """Return what a later round asks, in words."""
    if budget.scope == "image":
        return f"{budget.pixels_per_image} a round"
    limit = f", {budget.max_per_image} in one image at most" if budget.max_per_image else ""
    if budget.total_pixels is not None:
        return f"{budget.total_pixels} a round over the whole pool{limit},"
    return f"{budget.pixels_per_image} a round and image on average, over the whole pool{limit},"


def _size(size: GridSize) -> str:
    if size == "original":
        return "original"
    if isinstance(size, LongSide):
        return f"long side {size.long_side}"
    return f"{size[0]} x {size[1]}"
