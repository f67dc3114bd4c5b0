"""Which splits a run is measured on, and what the inspection counted in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from madbal_ray.config.schema import Config
from madbal_ray.errors import ConfigError, DataError
from madbal_ray.seams import ORACLES, STRATEGIES
from madbal_ray.state.stage_dir import StageDir


def totals_of(images: StageDir, shard_ids: Sequence[int]) -> dict[str, int]:
    """Add up what the inspection counted in some shards."""
    counts = images.marker().summary["shards"]
    totals: Counter[str] = Counter()
    for shard_id in shard_ids:
        totals.update(counts[str(shard_id)])
    return {name: totals[name] for name in ("images", "quarantined", "work_pixels", "without_mask")}


def check_splits(config: Config, splits: Sequence[str], say: Callable[[str], None]) -> None:
    """Say before anything is done what a run will be measured on, where that is nothing.

    Args:
        splits: of the data set.
        say: told that nothing will be measured, where that may be meant.

    Raises:
        DataError: a split that is asked for is not there, or a simulation, which is made for its
            numbers, would give none.
    """
    wanted, pool_split = config.evaluation.splits, config.data.pool_split
    found = f"splits found: {', '.join(splits)}"
    for split in wanted or ():
        if split not in splits:
            raise DataError(
                f"evaluation.splits: {config.data.name} has no split {split!r}; {found}"
            )
    if wanted or config.evaluation.points is not None or set(splits) != {pool_split}:
        return
    if wanted is None and ORACLES[config.oracle.kind].needs_masks:
        raise DataError(
            f"nothing to measure on, so every round would train for no number: {found} (the "
            f"pool's); expected {pool_split!r} and another beside it, such as val or test (folder: "
            "images/val/ or data.folder.splits or data.folder.val_fraction). Or set "
            "evaluation.points, or evaluation.splits=[] to run without"
        )
    say(f"warning: nothing will be measured ({found}, the pool's); see evaluation.points")


def evaluation_splits(
    config: Config, shards: dict[str, list[int]], images: StageDir, say: Callable[[str], None]
) -> dict[str, list[int]]:
    """Return the shards of every split that is measured on masks.

    Args:
        shards: of every split.
        images: finished stage.
        say: told which splits have no masks, where nobody promised any.

    Raises:
        DataError: some of a split's images have no mask.
    """
    wanted = config.evaluation.splits
    if wanted is None:
        others = [split for split in shards if split != config.data.pool_split]
        totals = {split: totals_of(images, shards[split]) for split in others}
        bare = [
            name
            for name, total in totals.items()
            if total["images"] and total["without_mask"] == total["images"]
        ]
        if bare and not ORACLES[config.oracle.kind].needs_masks:
            say(f"no mIoU on {', '.join(bare)}: there are no masks")
            others = [split for split in others if split not in bare]
        wanted = tuple(others)
    for split in wanted:
        totals = totals_of(images, shards[split])
        if totals["without_mask"] or not totals["images"]:
            raise DataError(
                f"split {split!r}: {totals['without_mask']} of {totals['images']} images have no "
                "mask, so nothing can be measured on them; add the masks, or set evaluation.splits"
            )
    return {split: shards[split] for split in sorted(wanted)}


def points_split(config: Config, shards: dict[str, list[int]]) -> tuple[str, Sequence[int]] | None:
    """Return the split that `evaluation.points` are drawn from, and its shards.

    Raises:
        DataError: there is no such split.
        ConfigError: it is the pool's, and superpixels or whole images are asked for: a label of one
            would train on the points inside.
    """
    if config.evaluation.points is None:
        return None
    wanted, pool_split = config.evaluation.points_split, config.data.pool_split
    if wanted is None:
        wanted = next((name for name in ("val", "test") if name in shards), pool_split)
    if wanted not in shards:
        raise DataError(
            f"evaluation.points_split: {config.data.name} has no split {wanted!r}; splits found: "
            f"{', '.join(shards)}"
        )
    strategy = STRATEGIES[config.strategy.name]
    asks_whole = config.budget.initial_pixels_per_image == "all"
    if wanted == pool_split and (strategy.unit != "pixel" or asks_whole):
        regions = "images that round 0" if asks_whole else f"{strategy.unit}s that {strategy.name}"
        raise ConfigError(
            f"evaluation.points of the pool's own split {wanted!r} would lie in {regions} asks for "
            "and trains on: set evaluation.points_split to another, or ask for pixels"
        )
    return wanted, tuple(shards[wanted])
