"""Reading and writing again where a disk or a store failed in passing."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable
from typing import TypeVar

from madbal_ray.errors import MadbalError
from madbal_ray.state import notices

Result = TypeVar("Result")

ATTEMPTS = 4
PAUSE_SECONDS = 0.5
"""Before the second attempt; each later pause is twice the one before."""

PASSING = {
    errno.EIO,
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.ESTALE,
    errno.EREMOTEIO,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNREFUSED,
    errno.EPIPE,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
}

REFUSED = re.compile(
    r"HTTP status 4(?!08|29)\d\d|ACCESS_DENIED|NO_SUCH_|INVALID_|SIGNATURE_|UNRECOGNIZED_CLIENT"
    r"|NOT_FOUND|MISSING_"
)
"""How a store's client says that asking again is of no use; its errors have no number."""


def tried(act: Callable[[], Result], what: str) -> Result:
    """Return what `act` gives, which may be done several times; pauses between attempts double.

    Args:
        what: the file, for the notice.

    Raises:
        OSError: the last attempt's, or one that another attempt would meet again.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return act()
        except OSError as error:
            if not is_passing(error):
                raise
            reason = " ".join(str(error).split())[:300]
            notices.note("tried again", f"{what} ({reason}), attempt {attempt} of {ATTEMPTS}")
        time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))
    return act()


def is_passing(error: OSError) -> bool:
    """Tell whether another attempt may go well."""
    if isinstance(error, (MadbalError, FileNotFoundError, PermissionError)):
        return False
    return error.errno in PASSING if error.errno else REFUSED.search(str(error)) is None
