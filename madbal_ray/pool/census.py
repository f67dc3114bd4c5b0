"""What masks hold: pixels of each class and of void, and what such masks cannot teach.

Counted while a pool is inspected, since every mask is decoded then, and written per shard beside
the stage's tables, like `madbal_ray.pool.contents`: it is no result, so no marker names it, and
pools that were made before there were counts keep their keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from madbal_ray.arrays import IGNORE_INDEX, Mask
from madbal_ray.config.schema import Config
from madbal_ray.errors import DataError, IntegrityError
from madbal_ray.seams import ORACLES
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import IN_FLIGHT

CENSUS = "_census"
SHOWN = 8

Pixels = Int64[np.ndarray, "256"]
"""Pixels by class id, those of void at `IGNORE_INDEX`."""


def count_pixels(mask: Mask) -> Pixels:
    """Return how many pixels of each class a mask has."""
    return np.bincount(mask.ravel(), minlength=IGNORE_INDEX + 1).astype(np.int64)


def note_census(images: StageDir, shard_id: int, pixels: Pixels) -> None:
    """Write what the masks of a shard hold."""
    counts = {int(class_id): int(pixels[class_id]) for class_id in np.flatnonzero(pixels)}
    images.folder.write(_name(shard_id), json.dumps(counts).encode())


def read_census(images: StageDir, shard_ids: Sequence[int]) -> Pixels:
    """Return what the masks of some shards hold; none where they were inspected uncounted."""

    def read(shard_id: int) -> Mapping[str, int]:
        try:
            return images.folder.read_json(_name(shard_id))
        except (FileNotFoundError, IntegrityError):
            return {}

    total = np.zeros(IGNORE_INDEX + 1, np.int64)
    threads = 1 if images.folder.is_local else IN_FLIGHT
    for counts in map_ahead(read, shard_ids, threads=threads, ahead=threads):
        for class_id, pixels in counts.items():
            total[int(class_id)] += pixels
    return total


def check_classes(
    config: Config,
    images: StageDir,
    shards: Mapping[str, Sequence[int]],
    class_names: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """See what the masks of every split hold that is asked or measured on.

    Raises:
        DataError: as `check_census`; or the best epoch is to be chosen by void alone.
    """
    answers = ORACLES[config.oracle.kind].needs_masks
    for split, shard_ids in shards.items():
        is_asked = answers and split == config.data.pool_split
        chooses = config.train.keep_epoch == "best" and split == config.train.select_split
        held = read_census(images, shard_ids)
        if chooses and 0 < held.sum() == held[IGNORE_INDEX]:
            raise DataError(
                f"split {split!r}: all of its masks' pixels are void, and train.keep_epoch = best "
                "chooses the epoch by them; name another train.select_split, set "
                "train.keep_epoch=last, or see with `madbal data check` what the masks hold"
            )
        check_census(held, class_names, where=f"split {split!r}", is_asked=is_asked, say=say)


def check_census(
    pixels: Pixels,
    class_names: Sequence[str],
    *,
    where: str,
    is_asked: bool,
    say: Callable[[str], None],
) -> None:
    """Warn of masks that teach little; refuse those that teach nothing.

    Args:
        where: whose masks, for messages.
        is_asked: the oracle answers from these masks.
        say: told which declared classes never occur, and that most of a mask is void.

    Raises:
        DataError: all is void or of one class, where the oracle answers from it.
    """
    total = int(pixels.sum())
    if not total:
        return
    void = int(pixels[IGNORE_INDEX]) / total
    found = [name for name, count in zip(class_names, pixels, strict=False) if count]
    never = [name for name in class_names if name not in found]
    held = f"{where}: void is {void:.1%} of the masks' pixels"
    if len(found) < 2:
        held += f", all else is {found[0]!r}" if found else ""
        problem = (
            f"{held}; of {len(class_names)} declared classes {len(found)} occur, and nothing can "
            "be told apart. Give every class the value that the masks hold for it, and void a "
            "value that no class has (classes.yaml: {name: crack, value: 255}; "
            "data.folder.void_value); `madbal data check` shows what the masks hold"
        )
        if is_asked:
            raise DataError(problem)
        say(f"warning: {problem}")
        return
    if void > 0.5:
        say(
            f"warning: {held}, so most answers will teach nothing: is a class's value taken for "
            "void?"
        )
    if never:
        shown = ", ".join(never[:SHOWN]) + (", …" if len(never) > SHOWN else "")
        say(
            f"warning: {where}: {len(never)} of {len(class_names)} declared classes never occur in "
            f"the masks: {shown}"
        )


def _name(shard_id: int) -> str:
    return f"{CENSUS}/{shard_id:05d}.json"
