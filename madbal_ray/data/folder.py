"""A user's own images: ``images/``, optionally ``masks/``, and a class list.

``images/<split>/…`` gives splits when every image lies below ``train``, ``val`` or
``test``; otherwise all images are the pool (``data.pool_split``). The mask of
``images/a/b.jpg`` is ``masks/a/b.png``. Mask values are positions in the class list.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from madbal_ray.config.data import DataConfig
from madbal_ray.data.dataset import Dataset, ImageRecord, identity_values, spread_colors
from madbal_ray.errors import DataError
from madbal_ray.state.storage import Folder

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
SPLITS = ("train", "val", "test")
CLASS_LIST = "classes.txt"


def open_dataset(config: DataConfig, root: Folder) -> Dataset:
    """List the images and pair each with its mask."""
    options = config.folder
    images = {
        path: size
        for path, size in (root / options.images).walk()
        if PurePosixPath(path).suffix.lower() in SUFFIXES
    }
    if not images:
        raise DataError(
            f"{root}/{options.images} holds no images ({', '.join(sorted(SUFFIXES))}); set "
            "data.root and data.folder.images"
        )
    masks: set[str] = set()
    if options.masks is not None:
        masks = {path for path, _ in (root / options.masks).walk()}
    has_splits = all(path.split("/")[0] in SPLITS and "/" in path for path in images)
    records = []
    for path, size in images.items():
        mask = PurePosixPath(path).with_suffix(".png").as_posix()
        uri = f"{options.images}/{path}"
        records.append(
            ImageRecord(
                image_id=uri,
                image_uri=uri,
                mask_uri=f"{options.masks}/{mask}" if mask in masks else None,
                split=path.split("/")[0] if has_splits else config.pool_split,
                num_bytes=size,
            )
        )
    names = options.classes or _read_classes(root)
    return Dataset(
        name="folder",
        records=records,
        class_names=tuple(names),
        mask_values=identity_values(len(names), options.void_value),
        colors=spread_colors(len(names)),
    )


def _read_classes(root: Folder) -> tuple[str, ...]:
    if not root.exists(CLASS_LIST):
        raise DataError(
            f"{root}/{CLASS_LIST} is missing: list one class a line in order of mask value, or set "
            "data.folder.classes"
        )
    lines = root.read(CLASS_LIST).decode().splitlines()
    return tuple(line.strip() for line in lines if line.strip())
