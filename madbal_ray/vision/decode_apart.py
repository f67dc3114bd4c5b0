"""Decoding of pictures in a process of its own, which one of them may take down alone.

Decoders are C libraries, and foreign bytes crash them. A pool's pictures are decoded here once,
when it is inspected; what a decoder dies of is quarantined, and only what it survived is decoded
inside a run. Masks are PNGs whose checksums are seen to before any pixel, and stay inside.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from madbal_ray.errors import BadImageError, ResourceError
from madbal_ray.vision.decode import decode_image

COMMAND = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
SECONDS = 120.0
"""That a picture may take; the largest that is opened takes a few on an idle core."""
TRIES = 2
"""Processes that a picture may cost: the first may have been ended for another's memory."""

READY = b"decoder"
_ASKED = struct.Struct("<QQ")  # bytes of the picture, data.max_pixels
_SAID = struct.Struct("<III")  # height, width, bytes of the reason


def image_size(data: bytes, *, max_pixels: int) -> tuple[int, int]:
    """Return (height, width) of a picture that can be decoded whole.

    Raises:
        BadImageError: as `decode_image`; or its decoder died, or took too long.
        ResourceError: no process can be started here.
    """
    death = ""
    for _ in range(TRIES):
        child = _idle.take()
        try:
            size = child.ask(data, max_pixels)
        except _DiedError as died:
            death = str(died)
            continue
        except BadImageError:
            _idle.give(child)
            raise
        _idle.give(child)
        return size
    raise BadImageError(f"cannot be decoded: its decoder was ended by {death}, {TRIES} times")


def serve() -> None:
    """Decode what comes through standard input until it ends: the child's whole life."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sink.write(READY)
    sink.flush()
    while len(head := source.read(_ASKED.size)) == _ASKED.size:
        length, max_pixels = _ASKED.unpack(head)
        data, reason, size = source.read(length), b"", (0, 0)
        try:
            size = decode_image(data, max_pixels=max_pixels).shape[:2]
        except BadImageError as error:
            reason = error.reason.encode(errors="backslashreplace")
        sink.write(_SAID.pack(*size, len(reason)) + reason)
        sink.flush()


class _DiedError(Exception):
    """The child is no more."""


class _Child:
    """A process that decodes."""

    def __init__(self) -> None:
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries grumble there about what they then refuse
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the run, which ends this with its pipe
        )
        source = self.process.stdout
        assert source is not None
        if not self._answers() or source.read(len(READY)) != READY:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=10)  # for its own exit code
            self.end()
            raise ResourceError(
                f"the process that decodes pictures ended with {self.process.returncode} as it "
                f"started: {sys.executable} must be able to import madbal_ray and OpenCV there"
            )

    def _answers(self) -> bool:
        """Wait for an answer, or the end; False: there is neither in time."""
        waiting = select.poll()  # unlike select, for any number of open files
        assert self.process.stdout is not None
        waiting.register(self.process.stdout, select.POLLIN | select.POLLHUP)
        return bool(waiting.poll(SECONDS * 1000))

    def ask(self, data: bytes, max_pixels: int) -> tuple[int, int]:
        """Return a picture's size; see `image_size`.

        Raises:
            _DiedError: the process is gone.
        """
        source, sink = self.process.stdout, self.process.stdin
        assert source is not None
        assert sink is not None
        try:
            sink.write(_ASKED.pack(len(data), max_pixels) + data)
            sink.flush()
        except OSError:
            raise self._died() from None
        if not self._answers():
            self.end()
            raise BadImageError(f"cannot be decoded: not done after {SECONDS:.0f} s")
        height, width, length = _SAID.unpack(self._read(source, _SAID.size))
        if length:
            raise BadImageError(self._read(source, length).decode())
        return height, width

    def _read(self, source: IO[bytes], count: int) -> bytes:
        data = source.read(count)
        if len(data) < count:
            raise self._died()
        return data

    def _died(self) -> _DiedError:
        code = self.process.wait()
        self.end()
        return _DiedError(signal.Signals(-code).name if code < 0 else f"exit code {code}")

    @property
    def is_alive(self) -> bool:
        """Tell whether it can be asked."""
        return self.process.poll() is None

    def end(self) -> None:
        """End the process, whatever it is at."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # of what it did not take
                pipe.close()


class _Idle:
    """Children that wait for work; as many as threads ever asked at once."""

    def __init__(self) -> None:
        self._lock, self._children, self._owner = threading.Lock(), list[_Child](), os.getpid()

    def take(self) -> _Child:
        """Return a child that nobody else asks."""
        with self._lock:
            if self._owner != os.getpid():  # a fork's pipes are its parent's
                self._children, self._owner = [], os.getpid()
            while self._children:
                child = self._children.pop()
                if child.is_alive:
                    return child
                child.end()
        return _Child()

    def give(self, child: _Child) -> None:
        """Take a child back."""
        with self._lock:
            if child.is_alive:
                self._children.append(child)

    def end(self) -> None:
        """End them all."""
        with self._lock:
            if self._owner == os.getpid():
                while self._children:
                    self._children.pop().end()


_idle = _Idle()
atexit.register(_idle.end)
