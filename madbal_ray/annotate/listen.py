"""The server itself: one for a store, on 127.0.0.1 alone."""

from __future__ import annotations

import fcntl
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from madbal_ray.annotate.app import create_app
from madbal_ray.annotate.desk import Desk
from madbal_ray.errors import LockedError, ResourceError

HOST = "127.0.0.1"
PORT = 8470
"""The same at every start: a browser keeps its outbox by address and port."""

CLOSING_SECONDS = 3


@contextmanager
def only_server(path: Path) -> Iterator[None]:
    """Hold a store's server lock; the kernel lets go of it when this process ends.

    Raises:
        LockedError: another process has it.
    """
    with path.with_name(f"{path.name}.server").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LockedError(
                f"{path} has a server already; open the link that it printed, or end it first"
            ) from None
        yield


def listen(desk: Desk, *, port: int, say: Callable[[str], None]) -> None:
    """Serve a desk until interrupted; hold `only_server` meanwhile.

    Args:
        port: of `HOST`; 0: any that is free.
        say: takes the lines with the links.

    Raises:
        ResourceError: the port is taken.
    """
    # With the protocol named: asyncio sets TCP_NODELAY only then, and a reply in two writes would
    # wait 40 ms for the acknowledgement of the first.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen()
        except OSError as error:
            raise ResourceError(
                f"port {port} of {HOST} cannot be had ({error.strerror}); choose one with --port"
            ) from None
        for name, token in desk.tokens.items():
            say(f"{name}: http://{HOST}:{listener.getsockname()[1]}/?token={token}")
        say("Ctrl-C ends the server; answers are stored as they come")
        config = uvicorn.Config(
            create_app(desk),
            log_level="warning",
            access_log=False,  # it would hold the tokens
            server_header=False,
            timeout_graceful_shutdown=CLOSING_SECONDS,
        )
        uvicorn.Server(config).run(sockets=[listener])
