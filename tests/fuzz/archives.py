"""Mutated tars and Parquet files: listed whole, refused, or bad images of their own."""

import io
import random
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq

from madbal_ray.data.members import list_parquet, read_image_bytes
from madbal_ray.data.tars import list_tar
from madbal_ray.errors import BadImageError, DataError
from madbal_ray.state.storage import Folder
from tests.fuzz.mutations import mutate

SUFFIXES = {".png"}


class Everything(set[str]):
    """Suffixes of every file."""

    def __contains__(self, item):
        return True


COUNT = 8
MAX_BYTES = 2**20


def bodies():
    return [bytes([index]) * (300 + 97 * index) for index in range(COUNT)]


def seeds():
    """Return (kind, bytes) of small good archives of eight members."""
    found = []
    for format_ in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        for name in ("{}.png", "folder/" + "n" * 90 + "{}.png"):
            sink = io.BytesIO()
            with tarfile.open(fileobj=sink, mode="w", format=format_) as archive:
                for index, body in enumerate(bodies()):
                    entry = tarfile.TarInfo(name.format(index))
                    entry.size = len(body)
                    archive.addfile(entry, io.BytesIO(body))
            found.append(("tar", sink.getvalue()))
    ids = [f"id{index}" for index in range(COUNT)]
    for columns in (
        {"image": bodies()},
        {"image_id": ids, "bytes": bodies()},
        {
            "image": [
                {"bytes": body, "path": name} for body, name in zip(bodies(), ids, strict=True)
            ]
        },
        {"uri": [f"{name}.png" for name in ids], "image_id": ids},
    ):
        for options in ({"compression": "zstd"}, {"compression": "none", "row_group_size": 3}):
            sink = io.BytesIO()
            pq.write_table(pa.table(columns), sink, write_page_checksum=True, **options)
            found.append(("parquet", sink.getvalue()))
    return found


def cases(seed, count):
    """Yield (name, kind, mutated, original) of a seed."""
    sources = seeds()
    for index in range(count):
        chance = random.Random(f"archive {seed} {index}")
        kind, original = sources[index % len(sources)]
        damaged = mutate(original, chance) if chance.random() < 0.9 else original + original
        yield f"archive-{seed}-{index}", kind, original, damaged


def check(kind, data, folder):
    """Return ``refused``, ``whole``, ``renamed``, or ``wrong``: members are lost or others."""
    root, name = Folder(folder), f"a.{kind}"
    (folder / name).write_bytes(data)
    try:
        members = list(
            list_tar(root, name, SUFFIXES) if kind == "tar" else list_parquet(root, name)
        )
    except DataError as error:
        return "wrong" if "\n" in str(error) else "refused"
    for member in members[: 2 * COUNT]:
        try:
            body = read_image_bytes(root, member.uri, max_bytes=MAX_BYTES)
        except (BadImageError, OSError):
            continue
        if kind == "parquet" and body not in bodies():  # its pages have checksums
            return "wrong"
    if len(members) >= COUNT:
        return "whole"
    if kind == "tar" and len(list(list_tar(root, name, Everything()))) >= COUNT:
        return "renamed"  # a long name lies in the data, which has no checksum in a tar
    return "wrong"
