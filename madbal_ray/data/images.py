"""A pool without masks: a tree of images, Parquet files or WebDataset tars.

Class names come from the configuration (`data.folder.classes`), since nothing on disk
tells them. What lies below `data.root` is of one kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from madbal_ray.config.data import DataConfig
from madbal_ray.data.dataset import Dataset, ImageRecord, identity_values, spread_colors
from madbal_ray.data.folder import SUFFIXES
from madbal_ray.data.members import COMPRESSED, Member, list_parquet
from madbal_ray.data.tars import list_tar
from madbal_ray.errors import DataError
from madbal_ray.state.storage import Folder


def open_dataset(config: DataConfig, root: Folder) -> Dataset:
    """List the images of the pool.

    Raises:
        DataError: several kinds of files, a broken or compressed archive, no class names.
    """
    names = config.folder.classes
    if not names:
        raise DataError("a pool without masks has no class list: set data.folder.classes")
    return Dataset(
        name="images",
        records=(
            ImageRecord(member.image_id, member.uri, None, config.pool_split, member.num_bytes)
            for member in _members(root)
        ),
        class_names=tuple(names),
        mask_values=identity_values(len(names), config.folder.void_value),
        colors=spread_colors(len(names)),
    )


def _members(root: Folder) -> Iterator[Member]:
    files: dict[str, list[tuple[str, int]]] = {"images": [], "parquet": [], "tar": []}
    for path, size in root.walk():
        suffix = PurePosixPath(path).suffix.lower()
        if any(part.startswith(("_", ".")) for part in path.split("/")):
            continue
        if path.lower().endswith(COMPRESSED):
            raise DataError(
                f"{root.file_uri(path)} is compressed, so single images cannot be read from it: "
                "unpack it to a .tar or to files, or move it away"
            )
        if suffix in SUFFIXES:
            files["images"].append((path, size))
        elif suffix in (".parquet", ".tar"):
            files[suffix[1:]].append((path, size))
    kinds = [kind for kind, listed in files.items() if listed]
    if len(kinds) > 1:
        counts = ", ".join(f"{len(files[kind])} {kind}" for kind in kinds)
        raise DataError(
            f"{root} holds several kinds of files ({counts}); a pool is of one kind: give the "
            "folder that holds it"
        )
    for path, size in files["images"]:
        yield Member(path, path, size)
    for path, _ in files["parquet"]:
        yield from list_parquet(root, path)
    for path, _ in files["tar"]:
        yield from list_tar(root, path, SUFFIXES)
