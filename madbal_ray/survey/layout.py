"""Which options of data set `folder` fit a tree of files: folders, names of masks, lists."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from madbal_ray.config.data import STEM
from madbal_ray.data.class_file import CLASS_FILE, CLASS_LIST
from madbal_ray.data.folder import SPLITS, is_image, split_of
from madbal_ray.errors import DataError
from madbal_ray.state.storage import Folder

IMAGES = ("images", "image", "imgs", "img", "jpegimages", "photos", "frames", "rgb")
MASKS = (
    *("masks", "mask", "segmentationclass", "labels", "label", "annotations", "annotation"),
    *("gt", "ground_truth", "segmentation", "seg"),
)
LISTS = ("ImageSets/Segmentation/", "ImageSets/", "splits/", "")
HELD_OUT = 0.2


@dataclass(frozen=True)
class Layout:
    """Options of `data.folder`, and why each has its value.

    Attributes:
        options: those that are not the default.
        has_classes: there is a class file.
        unmatched: files in a folder for masks, where no image's name leads to one of them.
        others: files on top or one folder down that are no images.
    """

    options: dict[str, Any]
    reasons: dict[str, str]
    has_classes: bool
    unmatched: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def data_set_below(root: Folder) -> Folder:
    """Return the folder that holds a data set's folders: `root`, or the only one down from it.

    Archives unpack into folders of folders, such as ``VOCdevkit/VOC2012``. What has a class file or
    lists of its own is taken as it is.
    """
    paths = [path for path, _ in root.walk() if is_image(path)]
    tops = {path.partition("/")[0] for path in paths}
    is_wrapped = len(tops) == 1 and all(path.count("/") > 1 for path in paths)
    names = (CLASS_FILE, CLASS_LIST, *(f"{split}.txt" for split in SPLITS))
    if not is_wrapped or any(root.exists(name) for name in names):
        return root
    (top,) = tops
    return root if top.casefold() in IMAGES else data_set_below(root / top)


def find_layout(root: Folder) -> Layout:
    """Return how images, masks and splits lie below a folder.

    Raises:
        DataError: there is no image at all, or masks lie in folders below others.
    """
    files = [path for path, _ in root.walk()]
    paths = [path for path in files if is_image(path)]
    others = tuple(path for path in files if path.count("/") < 2 and not is_image(path))
    if not paths:
        raise DataError(
            f"{root} holds no images: {root.why_empty()}; give the folder that holds them, or a "
            "folder of them"
        )
    tops: dict[str, list[PurePosixPath]] = {}
    for path in paths:
        if "/" in path:
            tops.setdefault(path.partition("/")[0], []).append(PurePosixPath(path))
    images = _named(tops, IMAGES) or _pictures(tops)
    masks, why = _named(tops, MASKS), "where the masks lie"
    if masks is None:
        _check_no_masks_below(root, paths)
        masks, why = _named_alike(tops, images), "its files are named like the images"
    options: dict[str, Any] = {}
    reasons: dict[str, str] = {}

    def say(option: str, value: Any, reason: str) -> None:
        options[option], reasons[option] = value, reason

    if images != "images":
        say("images", images, "where the images lie")
    below = [
        path.removeprefix(f"{images}/") for path in paths if images in (".", path.split("/")[0])
    ]
    if masks is not None:
        names = [path for path in paths if path.startswith(f"{masks}/")]
    else:
        names, masks = below, images
    pattern, count = _mask_pattern(below, names, is_beside=masks == images)
    unmatched: tuple[str, ...] = ()
    if pattern is None:
        say("masks", None, "no file is named like the mask of an image")
        unmatched = tuple(sorted(names)) if masks != images else ()
    else:
        if masks != "masks":
            say("masks", masks, why if masks != images else "where the masks lie")
        if pattern != f"{STEM}.png":
            say("mask_name", pattern, f"so are {count} masks named")
    if not any(split_of(path) for path in below):
        _splits(root, options, reasons)
    has_classes = any(root.exists(name) for name in (CLASS_FILE, CLASS_LIST))
    return Layout(options, reasons, has_classes, unmatched, others)


def _pictures(tops: Mapping[str, Sequence[PurePosixPath]]) -> str:
    """Return where images of no known folder lie: the only folder, or the only one not all PNG."""
    photographs = [top for top, own in tops.items() if not _is_all_png(own)]
    if len(tops) == 1 or len(photographs) == 1 < len(tops) == 2:
        return photographs[0] if photographs else next(iter(tops))
    return "."


def _named_alike(tops: Mapping[str, Sequence[PurePosixPath]], images: str) -> str | None:
    """Return the folder of PNG files of which most are named like an image, if there is one."""
    if images == ".":
        return None
    stems = {path.stem for path in tops[images]}
    for top, paths in tops.items():
        own = {path.stem for path in paths}
        if top != images and _is_all_png(paths) and 2 * len(own & stems) > len(own):
            return top
    return None


def _is_all_png(paths: Sequence[PurePosixPath]) -> bool:
    return {path.suffix.lower() for path in paths} == {".png"}


def _check_no_masks_below(root: Folder, paths: Sequence[str]) -> None:
    """Refuse folders of masks that are not on top, such as train/masks beside train/images."""
    folders: dict[tuple[str, str], set[str]] = defaultdict(set)  # above, stem -> folders
    for path in map(PurePosixPath, paths):
        folders[str(path.parent.parent), path.stem].add(path.parent.name)
    for path in map(PurePosixPath, paths):
        beside = folders[str(path.parent.parent), path.stem] - {path.parent.name}
        is_mask = path.suffix == ".png" and path.parent.name.casefold() in MASKS
        if is_mask and beside and len(path.parts) > 2:
            raise DataError(
                f"{root}: masks seem to lie in {path.parent}/, as {path.name}; expected "
                "folders for images and for masks on top and the same paths below both, as in "
                "images/train/a.jpg and masks/train/a.png: move them, or leave the masks out"
            )


def _splits(root: Folder, options: dict[str, Any], reasons: dict[str, str]) -> None:
    for base in LISTS:
        lists = {
            split: f"{base}{split}.txt" for split in SPLITS if root.exists(f"{base}{split}.txt")
        }
        if "train" in lists and len(lists) > 1:
            options["splits"], reasons["splits"] = lists, "lists that lie there"
            return
        if lists:
            alone = f"{', '.join(lists.values())} says not what to measure on and is passed over"
            reasons["val_fraction"] = f"{alone}; a fifth is measured on"
    options["val_fraction"] = HELD_OUT
    reasons.setdefault("val_fraction", "neither split folders nor lists; a fifth is measured on")


def _named(folders: Iterable[str], names: Sequence[str]) -> str | None:
    """Return the folder whose name comes first in a list, in any case."""
    found = {folder.casefold(): folder for folder in folders}
    return next((found[name] for name in names if name in found), None)


def _mask_pattern(
    images: Sequence[str], masks: Sequence[str], *, is_beside: bool
) -> tuple[str | None, int]:
    """Return what most masks are called after their images, and how many are."""
    of_folder: dict[str, Counter[str]] = defaultdict(Counter)
    for path in map(PurePosixPath, images):  # beside its image, a mask is in the same folder
        of_folder[str(path.parent) if is_beside else ""][path.stem] += 1
    patterns: Counter[str] = Counter()
    for path in masks:
        name = PurePosixPath(path)
        stem, suffix = name.stem, name.suffix
        stems = of_folder[str(name.parent) if is_beside else ""]
        is_twin = suffix == ".png" and stems[stem] > 1  # a.png beside a.jpg
        if stem in stems and (is_twin or not is_beside):
            patterns[f"{STEM}{suffix}"] += 1
            continue
        ends = (end for end in range(len(stem) - 1, 0, -1) if stem[:end] in stems)
        starts = (start for start in range(1, len(stem)) if stem[start:] in stems)
        end, start = next(ends, None), next(starts, None)
        if end is not None and not stem[end].isalnum():
            patterns[f"{STEM}{stem[end:]}{suffix}"] += 1
        elif start is not None and not stem[start - 1].isalnum():
            patterns[f"{stem[:start]}{STEM}{suffix}"] += 1
    most = patterns.most_common(1)[0] if patterns else (None, 0)
    is_chance = is_beside and most[1] < len(images) // 4  # a name that begins like another's
    return (None, 0) if is_chance else most
