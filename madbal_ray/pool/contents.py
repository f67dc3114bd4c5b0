"""What files held when a pool was inspected, and which of them hold something else.

Inspection notes the sha256 of every image and mask in its tables, and beside them, per shard, how
each file looked just before it was read (`SEEN`: size and times; no result, so no marker names it).
At the next start a file that looks the same is trusted, any other is read and hashed again.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from madbal_ray.config.pool import GridsConfig
from madbal_ray.data.members import file_of
from madbal_ray.errors import BadImageError, IntegrityError
from madbal_ray.pool.reader import ImageReader
from madbal_ray.state.marker import digest
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder

SEEN = "_seen"

Changed = tuple[str, str | None]
"""The URI of an image or mask, and the sha256 of what it holds instead; None: it cannot be read."""


class Looks:
    """How files look: quick to ask, and other when somebody wrote to them.

    A disk is asked file by file, an object store with one listing of the data root.
    """

    def __init__(self, root: Folder) -> None:
        self.root = root

    @functools.cached_property
    def _listed(self) -> Mapping[str, str]:
        return dict(self.root.looks())

    def of(self, uri: str) -> str | None:
        """Return size and time of the file that a URI points into, None where there is none."""
        name = file_of(uri)
        is_listed = not self.root.is_local and not name.startswith("/") and "://" not in name
        return self._listed.get(name) if is_listed else self.root.look(name)


def plan_inspection(
    folder: Folder,
    grids: GridsConfig,
    index: StageDir,
    shard_ids: Sequence[int],
    reader: ImageReader,
    say: Callable[[str], None],
) -> StageDir:
    """Name the folder of an inspection of what the files hold at this moment.

    Args:
        say: told when other contents were inspected before; these have another folder then.
    """
    settings, inputs = grids.result_settings(), {"index": index.digest()}
    images = StageDir.plan(folder, "images", settings, inputs)
    changed = changed_files(images, index, shard_ids, reader) if images.is_done else []
    if not changed:
        return images
    say(
        f"{len(changed)} files of the data set have changed since the pool was prepared, the first "
        f"is {changed[0][0]}; it is prepared anew"
    )
    return StageDir.plan(folder, "images", settings | {"changed": digest(changed)}, inputs)


def note_looks(images: StageDir, shard_id: int, root: Folder, uris: Sequence[str]) -> None:
    """Write how the files of a shard look; to be called before they are read."""
    looks = {uri: root.look(file_of(uri)) for uri in uris}
    images.folder.write(_seen_name(shard_id), json.dumps(looks).encode())


def uris_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the URIs of images and masks of table rows."""
    return [row[name] for row in rows for name in ("image_uri", "mask_uri") if row[name]]


def changed_files(
    images: StageDir, index: StageDir, shard_ids: Sequence[int], reader: ImageReader
) -> list[Changed]:
    """Return which files of an inspected pool hold something else, by URI.

    Files that could not be read at the inspection are not asked.
    """
    looks = Looks(reader.root)
    return sorted(
        changed
        for shard_id in shard_ids
        for changed in _changed_in_shard(images, index, shard_id, reader, looks)
    )


def _changed_in_shard(
    images: StageDir, index: StageDir, shard_id: int, reader: ImageReader, looks: Looks
) -> Iterator[Changed]:
    seen = _seen(images, shard_id)
    promised = _promised(images, index, shard_id)
    now = {uri: looks.of(uri) for uri in promised}
    doubtful = [uri for uri, look in now.items() if look is None or look != seen.get(uri)]
    changed = []
    for uri in doubtful:
        sha256 = _hash(reader, uri)
        if sha256 != promised[uri]:
            changed.append((uri, sha256))
    if doubtful and not changed:
        images.folder.write(_seen_name(shard_id), json.dumps(seen | now).encode())
    yield from changed


def _promised(images: StageDir, index: StageDir, shard_id: int) -> dict[str, str]:
    """Return the sha256 of every file of a shard that was read, by URI."""
    rows = images.read_table("images", [shard_id]).to_pylist()
    promised = {row["image_uri"]: row["image_sha256"] for row in rows}
    promised |= {row["mask_uri"]: row["mask_sha256"] for row in rows}
    bad = images.read_table("quarantine", [shard_id], ["image_id", "sha256"]).to_pylist()
    if bad:
        listed = index.read_table("images", [shard_id], ["image_id", "image_uri"]).to_pylist()
        uri_of = {row["image_id"]: row["image_uri"] for row in listed}
        promised |= {uri_of[row["image_id"]]: row["sha256"] for row in bad}
    return {uri: sha256 for uri, sha256 in promised.items() if uri and sha256}


def _seen(images: StageDir, shard_id: int) -> dict[str, Any]:
    try:
        return images.folder.read_json(_seen_name(shard_id))
    except (FileNotFoundError, IntegrityError):  # a hint: without it, everything is read
        return {}


def _hash(reader: ImageReader, uri: str) -> str | None:
    try:
        return hashlib.sha256(reader.encoded(uri)).hexdigest()
    except (OSError, BadImageError):
        return None


def _seen_name(shard_id: int) -> str:
    return f"{SEEN}/{shard_id:05d}.json"
