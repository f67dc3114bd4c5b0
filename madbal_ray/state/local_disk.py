"""Whether a path lies on a disk of this machine: SQLite's log is safe nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

from madbal_ray.errors import RunDirError
from madbal_ray.state.storage import local_name

MOUNTS = Path("/proc/self/mountinfo")

SHARED_TYPES = frozenset(
    {"9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse", "gfs", "gfs2"}
    | {"glusterfs", "gpfs", "juicefs", "lustre", "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2"}
    | {"orangefs", "pvfs2", "smb2", "smb3", "smbfs", "sshfs", "vboxsf", "virtiofs", "vmhgfs"}
    | {"wekafs"}
)
"""File systems whose locks or shared memory reach other machines badly or not at all. What a
program mounts (``fuse.*``: sshfs, s3fs, gcsfuse, rclone) counts as one of them."""


def check_local_disk(place: str, *, what: str, instead: str, mounts: str | None = None) -> Path:
    """Return a path once it is known to lie on a local disk.

    Args:
        place: path, or URI of an object store.
        what: lies there, for the message.
        instead: what to do about it, for the message.
        mounts: content of ``/proc/self/mountinfo``; None: this machine's. Systems that have no
            such file (macOS) are not checked.

    Raises:
        RunDirError: the place is an object store or a network file system.
    """
    if "://" in place and not place.startswith("file://"):
        raise RunDirError(
            f"{what} cannot lie in {place}, an object store: it is a database that needs a local "
            f"disk; {instead}"
        )
    path = Path(local_name(place)).absolute()
    if mounts is None:
        mounts = MOUNTS.read_text() if MOUNTS.exists() else ""
    kind = filesystem_of(path.parent.resolve(), mounts)
    if kind is not None and (kind in SHARED_TYPES or kind.startswith("fuse.")):
        raise RunDirError(
            f"{what} cannot lie at {path}, on a network file system ({kind}): it is a database "
            f"whose locks need a local disk; {instead}"
        )
    return path


def filesystem_of(path: Path, mounts: str) -> str | None:
    """Return the type of the file system that holds a path, None where no mount is known.

    >>> filesystem_of(Path("/data/runs"), "36 35 0:9 / /data rw - nfs4 host:/export rw")
    'nfs4'
    """
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if not separator or len(fields) < 5 or not kinds:
            continue
        point = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), fields[4]))
        depth = len(point.parts)
        # Of two mounts at one place the later one covers the other.
        if path.is_relative_to(point) and (found is None or depth >= found[0]):
            found = depth, kinds[0]
    return None if found is None else found[1]
