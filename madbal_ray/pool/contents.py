"""What files held when a pool was inspected, and which of them hold something else.

Inspection notes the sha256 of every image and mask in its tables, and beside them, per shard, how
each file looked just before it was read (`SEEN`: size and times; no result, so no marker names it).
At the next start a file that looks the same is trusted, any other is read and hashed again, once:
what it held is noted beside its look.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from madbal_ray.config.pool import GridsConfig
from madbal_ray.data.members import file_of, forget_row_groups
from madbal_ray.errors import BadImageError, IntegrityError
from madbal_ray.pool.reader import ImageReader
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.marker import digest
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import IN_FLIGHT, Folder

SEEN = "_seen"
HASHED_AT_ONCE = 4
"""Shards of a disk that are looked at together."""

PROMISES = ["image_uri", "image_sha256", "mask_uri", "mask_sha256"]

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

    def of(self, name: str) -> str | None:
        """Return size and time of a file, None where there is none."""
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
    anew = StageDir.plan(folder, "images", settings | {"changed": digest(changed)}, inputs)
    if not anew.is_done:
        say(
            f"{len(changed)} files of the data set have changed since the pool was prepared, the "
            f"first is {changed[0][0]}; it is prepared anew"
        )
    return anew


def note_looks(images: StageDir, shard_id: int, root: Folder, uris: Sequence[str]) -> None:
    """Write how the files of a shard look; to be called before they are read."""
    threads = 1 if root.is_local else IN_FLIGHT
    names = sorted({file_of(uri) for uri in uris})
    looked = map_ahead(root.look, names, threads=threads, ahead=threads)
    look_of = dict(zip(names, looked, strict=True))
    looks = {uri: [look_of[file_of(uri)]] for uri in uris}
    images.folder.write(_seen_name(shard_id), json.dumps(looks).encode())


def uris_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the URIs of images and masks of table rows."""
    return [row[name] for row in rows for name in ("image_uri", "mask_uri") if row[name]]


def changed_files(
    images: StageDir, index: StageDir, shard_ids: Sequence[int], reader: ImageReader
) -> list[Changed]:
    """Return which files of an inspected pool hold something else, by URI.

    A file that could not be read at the inspection is read where it looks otherwise now.

    Raises:
        RunDirError: a disk or a store refuses a file that is there.
    """
    forget_row_groups()
    looks = Looks(reader.root)
    threads = IN_FLIGHT if not reader.root.is_local else HASHED_AT_ONCE
    of_shards = map_ahead(
        lambda shard_id: _changed_in_shard(images, index, shard_id, reader, looks),
        shard_ids,
        threads=threads,
        ahead=threads,
    )
    return sorted((uri, held) for changed in of_shards for uri, held in changed)


def _changed_in_shard(
    images: StageDir, index: StageDir, shard_id: int, reader: ImageReader, looks: Looks
) -> list[Changed]:
    seen = _seen(images, shard_id)
    promised = _promised(images, index, shard_id)
    of_file = {name: looks.of(name) for name in {file_of(uri) for uri in promised}}
    now = {uri: of_file[file_of(uri)] for uri in promised}
    held, notes = {}, {}
    for uri, look in now.items():
        known = seen.get(uri)
        if promised[uri] is None and (look is None or known == [look]):
            sha256 = None  # as unreadable as it was
        elif look is None or known is None or known[0] != look:
            sha256 = _hash(reader, uri)
        else:  # the second: what it holds, where that is not what was promised
            sha256 = promised[uri] if len(known) == 1 else known[1]
        held[uri] = sha256
        notes[uri] = [look] if sha256 == promised[uri] else [look, sha256]
    if notes != seen:
        images.folder.write(_seen_name(shard_id), json.dumps(notes).encode())
    return [(uri, sha256) for uri, sha256 in held.items() if sha256 != promised[uri]]


def _promised(images: StageDir, index: StageDir, shard_id: int) -> dict[str, str | None]:
    """Return the sha256 of every file of a shard by URI; None: it could not be read."""
    table = images.read_table("images", [shard_id], PROMISES)
    promised: dict[str, str | None] = {}
    for kind in ("image", "mask"):
        columns = (table[f"{kind}_{what}"].to_pylist() for what in ("uri", "sha256"))
        promised |= {uri: sha256 for uri, sha256 in zip(*columns, strict=True) if sha256}
    bad = images.read_table("quarantine", [shard_id], ["image_id", "sha256"]).to_pylist()
    if bad:
        listed = index.read_table("images", [shard_id], ["image_id", "image_uri"]).to_pylist()
        uri_of = {row["image_id"]: row["image_uri"] for row in listed}
        promised |= {uri_of[row["image_id"]]: row["sha256"] for row in bad}
    return promised


def _seen(images: StageDir, shard_id: int) -> dict[str, list[str | None]]:
    """Return by URI how a file looked, and what it held where that is not what was promised."""
    try:
        seen = images.folder.read_json(_seen_name(shard_id))
    except (FileNotFoundError, IntegrityError):  # a hint: without it, everything is read
        return {}
    return {uri: known for uri, known in seen.items() if isinstance(known, list) and known}


def _hash(reader: ImageReader, uri: str) -> str | None:
    """Return the sha256 of what a file holds; None: it is gone, or no image is there any more."""
    try:
        with reader.root.told("read", file_of(uri)):
            return hashlib.sha256(reader.encoded(uri)).hexdigest()
    except (FileNotFoundError, BadImageError):
        return None


def _seen_name(shard_id: int) -> str:
    return f"{SEEN}/{shard_id:05d}.json"
