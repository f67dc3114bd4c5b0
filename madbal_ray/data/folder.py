"""A user's own images: a folder of them, optionally masks, and a class file.

``images/<split>/…`` gives splits when images lie below ``train``, ``val`` or ``test`` (or what
`SPLITS` takes for one of them), and then all must; or ``data.folder.splits`` names a list for each;
otherwise all images are the pool (``data.pool_split``), but for ``data.folder.val_fraction``. The
mask of ``images/a/b.jpg`` is ``masks/a/b.png``, or what ``data.folder.mask_name`` makes of it; it
may lie beside its image. What mask values mean: `madbal_ray.data.class_file`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from madbal_ray.config.data import STEM, DataConfig, FolderConfig
from madbal_ray.data.class_file import listed, read_classes
from madbal_ray.data.dataset import Dataset, ImageRecord
from madbal_ray.data.members import read_lines
from madbal_ray.errors import DataError
from madbal_ray.state.storage import Folder

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Names of splits, and what folders of them are called, in any case."""
HELD_OUT = "val"


def open_dataset(config: DataConfig, root: Folder) -> Dataset:
    """List the images, pair each with its mask, and sort them into splits.

    Raises:
        DataError: no images, no classes, no mask where there is a folder of them, an image outside
            the splits, a mask of two images, or a class file that does not say what mask values
            mean.
    """
    options = config.folder
    images = _list_images(options, root)
    masks = dict((root / options.masks).walk()) if options.masks is not None else {}
    pairs = dict(_paired(options, images, masks))
    records = [
        ImageRecord(
            image_id=f"{options.images}/{path}",
            image_uri=f"{options.images}/{path}",
            mask_uri=None if mask is None else f"{options.masks}/{mask}",
            split=config.pool_split,
            num_bytes=images[path],
        )
        for path, mask in pairs.items()
    ]
    sought = _sought(options, pairs, masks, root)
    if options.only_with_masks:
        records = [record for record in records if record.mask_uri is not None]
    classes = (
        read_classes(root, options.void_value, options.class_file)
        if options.classes is None
        else listed(options.classes, options.void_value, "data.folder.classes")
    )
    return Dataset(
        name="folder",
        records=_sorted_into_splits(records, options, root),
        class_names=classes.names,
        mask_values=classes.mask_values,
        colors=classes.colors,
        coding=classes.coding,
        is_mapped=classes.is_mapped,
        mask_sought=sought,
    )


def _list_images(options: FolderConfig, root: Folder) -> dict[str, int]:
    """Return path below `images` -> bytes; masks that lie among them left out."""
    images = {path: size for path, size in (root / options.images).walk() if is_image(path)}
    if options.masks == options.images:  # what would be its own mask is one whose image is gone
        masks = {mask_path(path, options) for path in images}
        images = {path: size for path, size in images.items() if path not in masks}
        if masks and not images:
            raise DataError(
                f"{root}/{options.images}: every file there is a mask by its name, as "
                f"{min(masks)!r}, and none is an image; set data.folder.mask_name (as in "
                f"'{STEM}_mask.png', in quotes), data.folder.masks, or data.folder.masks: null to "
                "go without"
            )
    if not images:
        raise DataError(
            f"{root}/{options.images} holds no images ({', '.join(sorted(SUFFIXES))}): "
            f"{(root / options.images).why_empty()}; set data.root and data.folder.images; `madbal "
            "data check` finds other layouts"
        )
    return images


def is_image(path: str) -> bool:
    """Tell whether a path names an image; macOS leaves files that only seem to be some."""
    pure = PurePosixPath(path)
    return pure.suffix.lower() in SUFFIXES and not pure.name.startswith("._")


def mask_path(image: str, options: FolderConfig) -> str:
    """Return where an image's mask is looked for, both below their folders."""
    path = PurePosixPath(image)
    return path.with_name(options.mask_name.replace(STEM, path.stem)).as_posix()


def _paired(
    options: FolderConfig, images: Mapping[str, int], masks: Mapping[str, int]
) -> Iterator[tuple[str, str | None]]:
    """Yield each image with its mask: of its own path, else of another name of its split."""
    below = {_below_split(path): path for path in masks}
    owners: dict[str, str] = {}
    for image in images:
        mask: str | None = mask_path(image, options)
        mask = mask if mask in masks else below.get(_below_split(mask))
        if mask is not None and owners.setdefault(mask, image) != image:
            raise DataError(
                f"{options.images}/{owners[mask]} and {options.images}/{image} would share one "
                f"mask, {options.masks}/{mask}: give one of the two another name, and its mask"
            )
        yield image, mask


def _sought(
    options: FolderConfig,
    pairs: Mapping[str, str | None],
    masks: Mapping[str, int],
    root: Folder,
) -> str:
    """Return where the first mask that is missing was looked for, as a part of a sentence.

    Raises:
        DataError: there are files for masks, and none is an image's.
    """
    missing = next((image for image, mask in pairs.items() if mask is None), None)
    if missing is None or options.masks is None:
        return ""
    sought = (
        f" (for {options.images}/{missing}, {options.masks}/{mask_path(missing, options)} was "
        "looked for)"
    )
    is_beside = options.masks == options.images
    strangers = [path for path in masks if is_image(path) and not (is_beside and path in pairs)]
    if strangers and not any(pairs.values()):
        raise DataError(
            f"{root}: none of {len(pairs)} images has a mask{sought}, and {options.masks}/ holds "
            f"{len(strangers)} others, the first is {min(strangers)!r}: set data.folder.mask_name "
            f"(as in '{STEM}_mask.png', in quotes), or data.folder.masks: null to go without"
        )
    return sought


# ---- splits ----


def _sorted_into_splits(
    records: list[ImageRecord], options: FolderConfig, root: Folder
) -> list[ImageRecord]:
    if options.splits is not None:
        listed_in = _read_lists(records, options, root)
        return [replace(r, split=listed_in[r.image_id]) for r in records if r.image_id in listed_in]
    start = len(options.images) + 1
    of_folder = {r.image_id: split_of(r.image_id[start:]) for r in records}
    stray = sorted(image_id for image_id, split in of_folder.items() if split is None)
    if len(stray) == len(records):
        return _hold_out(records, options.val_fraction)
    if stray:
        raise DataError(
            f"{root}/{options.images}: {len(stray)} of {len(records)} images lie outside "
            f"{', '.join(SPLITS)}, the first is {stray[0][start:]!r}; move them into a split, or "
            "all images out of them"
        )
    return [replace(record, split=of_folder[record.image_id] or "") for record in records]


def _hold_out(records: list[ImageRecord], fraction: float | None) -> list[ImageRecord]:
    """Make a share of the images split `HELD_OUT`: the same ones wherever they lie."""
    if fraction is None:
        return records
    order = sorted(records, key=lambda r: hashlib.sha256(r.image_id.encode()).digest())
    count = min(len(records) - 1, max(1, round(fraction * len(records))))  # one stays in the pool
    held = {record.image_id for record in order[:count]}
    return [replace(r, split=HELD_OUT) if r.image_id in held else r for r in records]


def _read_lists(records: list[ImageRecord], options: FolderConfig, root: Folder) -> dict[str, str]:
    """Return image_id -> split, of the images that a list names."""
    ids: dict[str, str] = {}
    start = len(options.images) + 1
    for record in records:  # a line may leave folder and suffix out
        for name in (record.image_id, record.image_id[start:]):
            ids |= {name: record.image_id, name.rpartition(".")[0]: record.image_id}
    found: dict[str, str] = {}
    for split, name in (options.splits or {}).items():
        for number, line in enumerate(read_lines(root, name), start=1):
            entry = line.strip().removeprefix("./")
            if not entry:
                continue
            image_id = ids.get(entry)
            if image_id is None:
                raise DataError(
                    f"{root}/{name}, line {number}: {entry[:200]!r} is no image below "
                    f"{options.images}/; expected a path or a stem, as in "
                    f"{records[0].image_id[start:] if records else 'a.jpg'!r}"
                )
            if found.setdefault(image_id, split) != split:
                raise DataError(
                    f"{root}/{name}, line {number}: {entry!r} is of split "
                    f"{found[image_id]!r} already; an image is of one split"
                )
    return found


def split_of(path: str) -> str | None:
    """Return the split that the first folder of a path stands for."""
    folder, slash, _ = path.partition("/")
    return next((n for n, also in SPLITS.items() if slash and folder.casefold() in also), None)


def _below_split(path: str) -> str:
    """Return a path with its split's own name: ``validation/a.png`` is ``val/a.png``."""
    split = split_of(path)
    return path if split is None else f"{split}/{path.partition('/')[2]}"
