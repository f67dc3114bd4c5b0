"""What tests on a CUDA device share."""

import contextlib
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def never_waiting() -> Iterator[None]:
    """Let every operation fail for which the host waits for the device."""
    torch.cuda.synchronize()
    _set_mode("error")
    try:
        yield
    finally:
        _set_mode("default")


def _set_mode(mode: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls itself a prototype, at every call
        torch.cuda.set_sync_debug_mode(mode)
