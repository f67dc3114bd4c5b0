"""The protocol of a run in words: what every number stands beside."""

from __future__ import annotations

from collections.abc import Mapping

from madbal_ray.arrays import IGNORE_INDEX
from madbal_ray.config.asking import BudgetConfig, StrategyConfig
from madbal_ray.config.schema import Config
from madbal_ray.config.section import GridSize, LongSide
from madbal_ray.config.training import PhaseConfig


def describe_protocol(
    config: Config,
    *,
    split_sizes: Mapping[str, tuple[int, int]],
    num_classes: int,
    unit: str,
    has_phase2: bool,
) -> list[str]:
    """Return data, splits, classes, void, grids, training and budget, a line each.

    Args:
        split_sizes: split -> (usable images, quarantined images).
        unit: of a later round's query: ``pixel``, ``superpixel`` or ``image``.
        has_phase2: the strategy has parts that phase II trains.
    """
    pool = config.data.pool_split
    splits = ", ".join(
        f"{split} {good}" + (f" ({bad} quarantined)" if bad else "") + " (pool)" * (split == pool)
        for split, (good, bad) in split_sizes.items()
    )
    void = "never asked" if config.oracle.skip_void else "asked pixels that are void cost a click"
    train = config.train
    phases = (train.phase1, train.phase2) if has_phase2 else (train.phase1,)
    lengths = " + ".join(_length(phase) for phase in phases)
    if train.init == "frozen_head":
        lengths = f"{_length(train.frozen_head)} (frozen head) + {lengths}"
    frozen = "" if config.model.train_backbone else " (frozen)"
    return [
        f"data        {config.data.name}: {splits}; {num_classes} classes, void id {IGNORE_INDEX}",
        f"grids       input {_size(config.grids.input)}, working {_size(config.grids.working)}, "
        f"evaluation {config.evaluation.size}",
        f"network     {config.model.backbone}{frozen} + {config.model.head}, output stride "
        f"{config.model.output_stride}; {lengths} (phase I{' + II' * has_phase2}), "
        "the last epoch is measured and asks",
        f"budget      {describe_asking(config, unit=unit)}; {void}",
        "measure     mIoU over classes that occur in prediction or truth, from one confusion "
        "matrix a split",
    ]


def _length(phase: PhaseConfig) -> str:
    count, what = (phase.epochs, "epoch") if phase.steps is None else (phase.steps, "step")
    return f"{count} {what}{'s' * (count != 1)}"


def describe_asking(config: Config, *, unit: str) -> str:
    """Return what all rounds ask, and by which strategy, in words.

    Args:
        unit: as `describe_protocol`.
    """
    start, later = _start(config.budget), config.num_rounds - 1
    if not later:
        return start
    return (
        f"{start}, then {later} x {_round(config.budget, unit)} by "
        f"{describe_strategy(config.strategy)}"
    )


def describe_strategy(strategy: StrategyConfig) -> str:
    """Return a strategy's name and what was set of its options.

    >>> describe_strategy(StrategyConfig(name="margin", top_share=0.05))
    'margin (top_share 0.05)'
    """
    changed = strategy.model_dump(exclude_defaults=True, exclude={"name"})
    changed |= changed.pop("options", {})
    options = ", ".join(f"{name} {value}" for name, value in changed.items())
    return f"{strategy.name} ({options})" if options else strategy.name


def _start(budget: BudgetConfig) -> str:
    """Return what round 0 asks, in words."""
    count, images = budget.initial_pixels_per_image, budget.initial_images
    if count == "all":
        what = f"every pixel of {'all' if images is None else images} images"
    else:
        what = f"{count} random pixels an image" + (f" on {images} images" if images else "")
    return f"{what}, spread over clusters" if budget.initial == "spread" else what


def _round(budget: BudgetConfig, unit: str) -> str:
    """Return what a later round asks, in words."""
    if unit == "image":
        return f"{budget.images_per_round} whole images"
    if budget.scope == "image":
        return f"{budget.pixels_per_image} {unit}s an image"
    limit = f", {budget.max_per_image} in one image at most" if budget.max_per_image else ""
    if budget.total_pixels is not None:
        return f"{budget.total_pixels} {unit}s over the whole pool{limit},"
    return f"{budget.pixels_per_image} {unit}s an image on average, over the whole pool{limit},"


def _size(size: GridSize) -> str:
    if size == "original":
        return "original"
    if isinstance(size, LongSide):
        return f"long side {size.long_side}"
    return f"{size[0]} x {size[1]}"
