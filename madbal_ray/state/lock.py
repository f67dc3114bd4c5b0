"""One process per run folder: a kernel lock on a disk, a lease on an object store.

Neither guards correctness: commits are idempotent, so two processes on one folder waste
time and write the same bytes. They keep people from starting the same run twice.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any

from madbal_ray.errors import IntegrityError, LockedError, RunDirError
from madbal_ray.state.storage import Folder

LOCK_NAME = "_lock"
OWNER_NAME = "_owner.json"
LEASE_NAME = "_lease.json"
LEASE_SECONDS = 90.0
RENEW_SECONDS = 20.0
RACE_SECONDS = 1.0
"""Pause between writing a lease and reading it back: of two writers the last one has it. Also how
long a lock on a disk is tried."""
ASK_SECONDS = 0.01
HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
"""How the kernel says that another process has a lock."""


@contextmanager
def hold(folder: Folder, *, take_over: bool = False, option: str = "--run-dir") -> Iterator[None]:
    """Hold a folder. A dead process frees it: at once on a disk, after `LEASE_SECONDS` else.

    Args:
        take_over: end somebody else's lease; on a disk the kernel knows who lives.
        option: that named the folder, for messages.

    Raises:
        LockedError: another process holds it; the message says which.
    """
    held = (
        _flock(folder, option) if folder.is_local else _lease(folder, option, take_over=take_over)
    )
    with held:
        yield


def holder(folder: Folder) -> Mapping[str, Any] | None:
    """Return host, pid and since of the process that holds a folder, None when it is free."""
    if not folder.is_local:
        lease = _read_lease(folder)
        return None if lease is None or lease["expires"] < time.time() else lease
    path = folder.local_path / LOCK_NAME
    if not path.exists():
        return None
    with open(path, "ab") as handle:
        try:
            is_free = _is_locked(handle, fcntl.LOCK_SH)
        except OSError:  # a disk without locks, where nobody can have one
            is_free = True
        if is_free:
            return None
        unknown = {"host": "unknown", "pid": "unknown", "since": path.stat().st_mtime}
        try:
            return unknown | folder.read_json(OWNER_NAME)
        except OSError:
            return unknown


def _is_locked(handle: IO[bytes], kind: int) -> bool:
    """Lock a file where nobody else has; tell whether that was so.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in HELD:
            raise
        return False
    return True


@contextmanager
def _flock(folder: Folder, option: str) -> Iterator[None]:
    path = folder.local_path / LOCK_NAME
    with folder.told("locked", LOCK_NAME, makes=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = open(path, "ab")  # noqa: SIM115  (closed below)
    with opened as handle:
        ends = time.monotonic() + RACE_SECONDS
        while not _locked(folder, handle, option):
            # Who asks for the holder has it for a moment, again and again where `status` is polled.
            if time.monotonic() > ends:
                raise LockedError(_holder_text(folder, holder(folder), option))
            time.sleep(ASK_SECONDS)
        folder.write(OWNER_NAME, json.dumps(_owner()).encode())
        yield


def _locked(folder: Folder, handle: IO[bytes], option: str) -> bool:
    try:
        return _is_locked(handle, fcntl.LOCK_EX)
    except OSError as error:
        raise RunDirError(
            f"{folder} lies on a file system that has no locks ({error.strerror}), so that two "
            "processes could work in it unawares; mount it with locks (Lustre: -o flock; NFS: a "
            f"running lockd), or choose another {option}"
        ) from error


@contextmanager
def _lease(folder: Folder, option: str, *, take_over: bool) -> Iterator[None]:
    current = holder(folder)
    if current is not None and not take_over:
        wait = f"; if that process is dead, wait {LEASE_SECONDS:.0f} s or add --take-over"
        raise LockedError(_holder_text(folder, current, option, wait))
    mine = _owner() | {"token": secrets.token_hex(8)}
    ended = threading.Event()

    def renew() -> None:
        lease = mine | {"expires": time.time() + LEASE_SECONDS}
        folder.write(LEASE_NAME, json.dumps(lease).encode())

    def keep() -> None:
        while not ended.wait(RENEW_SECONDS):
            try:
                if _is_ours(folder, mine):  # somebody took over otherwise: let them have it
                    renew()
            except RunDirError:  # the store hiccups; three more tries before the lease ends
                continue

    renew()
    time.sleep(RACE_SECONDS)
    if not _is_ours(folder, mine):
        raise LockedError(_holder_text(folder, holder(folder), option))
    thread = threading.Thread(target=keep, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(RunDirError):  # it runs out by itself
            if _is_ours(folder, mine):
                folder.delete(LEASE_NAME)


def _owner() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}


def _is_ours(folder: Folder, mine: Mapping[str, Any]) -> bool:
    lease = _read_lease(folder)
    return lease is not None and lease.get("token") == mine["token"]


def _read_lease(folder: Folder) -> dict[str, Any] | None:
    """Return the lease; None where there is none or it is damaged, which then holds nobody."""
    try:
        lease = folder.read_json(LEASE_NAME)
    except (FileNotFoundError, IntegrityError):
        return None
    return lease if isinstance(lease.get("expires"), (int, float)) else None


def _holder_text(
    folder: Folder, held_by: Mapping[str, Any] | None, option: str, hint: str = ""
) -> str:
    if held_by is None:
        return f"{folder} was held by another process a moment ago; start the same command again"
    since = held_by.get("since")
    if isinstance(since, (int, float)):
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
    return (
        f"{folder} is held by process {held_by.get('pid')} on {held_by.get('host')} since {since}; "
        f"wait for it, or end it, or choose another {option}{hint}"
    )
