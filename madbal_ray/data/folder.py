"""A user's own images: ``images/``, optionally ``masks/``, and a class list.

``images/<split>/…`` gives splits when images lie below ``train``, ``val`` or ``test``, and then all
must; otherwise all images are the pool (``data.pool_split``). The mask of
``images/a/b.jpg`` is ``masks/a/b.png``. Mask values are positions in the class list:
``classes.yaml`` (``classes: [{name: sky, color: [70, 130, 180]}, …]``, colours optional) or
``classes.txt`` (a name a line).
"""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from madbal_ray.config.data import DataConfig
from madbal_ray.config.documents import parse_yaml
from madbal_ray.data.dataset import Dataset, ImageRecord, identity_values, spread_colors
from madbal_ray.data.members import read_lines
from madbal_ray.errors import ConfigError, DataError
from madbal_ray.state.storage import Folder

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
SPLITS = ("train", "val", "test")
CLASS_FILE = "classes.yaml"
CLASS_LIST = "classes.txt"
MOST_FINDINGS = 3

Byte = Annotated[int, Field(ge=0, le=255)]
Color = tuple[Byte, Byte, Byte]


class _NamedClass(BaseModel, extra="forbid"):
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    color: Color | None = None


class _ClassFile(BaseModel, extra="forbid"):
    classes: list[_NamedClass]


def open_dataset(config: DataConfig, root: Folder) -> Dataset:
    """List the images and pair each with its mask.

    Raises:
        DataError: no images, no classes, an image outside the splits, or a void value that is a
            class.
    """
    options = config.folder
    images = {
        path: size
        for path, size in (root / options.images).walk()
        if PurePosixPath(path).suffix.lower() in SUFFIXES
        and not PurePosixPath(path).name.startswith("._")  # macOS leaves these beside a file
    }
    if not images:
        raise DataError(
            f"{root}/{options.images} holds no images ({', '.join(sorted(SUFFIXES))}); set "
            "data.root and data.folder.images"
        )
    masks: set[str] = set()
    if options.masks is not None:
        masks = {path for path, _ in (root / options.masks).walk()}
    stray = [path for path in images if path.split("/")[0] not in SPLITS or "/" not in path]
    has_splits = len(stray) < len(images)
    if has_splits and stray:
        raise DataError(
            f"{root}/{options.images}: {len(stray)} of {len(images)} images lie outside "
            f"{', '.join(SPLITS)}, the first is {min(stray)!r}; move them into a split, or all "
            "images out of them"
        )
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
    names, colors = _read_classes(root) if options.classes is None else (options.classes, {})
    spread = spread_colors(len(names))
    return Dataset(
        name="folder",
        records=records,
        class_names=tuple(names),
        mask_values=identity_values(len(names), options.void_value),
        colors=tuple(colors.get(name, spread[index]) for index, name in enumerate(names)),
    )


def _read_classes(root: Folder) -> tuple[tuple[str, ...], dict[str, Color]]:
    """Return the names, and the colours of those that have one."""
    found = [name for name in (CLASS_FILE, CLASS_LIST) if root.exists(name)]
    if len(found) != 1:
        raise DataError(
            f"{root} must hold {CLASS_FILE} (classes: [{{name: sky, color: [70, 130, 180]}}, …]) "
            f"or {CLASS_LIST} (a name a line), in order of mask value; found: "
            f"{' and '.join(found) or 'neither'}. Or set data.folder.classes"
        )
    if found == [CLASS_LIST]:
        return tuple(line.strip() for line in read_lines(root, CLASS_LIST) if line.strip()), {}
    try:
        text = "\n".join(read_lines(root, CLASS_FILE))
        listed = _ClassFile.model_validate(parse_yaml(text, f"{root}/{CLASS_FILE}")).classes
    except (ConfigError, ValidationError) as error:
        problem = str(error)
        if isinstance(error, ValidationError):
            found = error.errors()[:MOST_FINDINGS]
            problem = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in found)
        raise DataError(
            f"{root}/{CLASS_FILE} cannot be used: {problem}; expected classes: [{{name: sky, "
            "color: [70, 130, 180]}, …], colours (0..255) optional"
        ) from None
    names = tuple(one.name for one in listed)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{root}/{CLASS_FILE}: class {twice[0]!r} is listed more than once")
    return names, {one.name: one.color for one in listed if one.color is not None}
