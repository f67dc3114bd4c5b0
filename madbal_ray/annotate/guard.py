"""Which requests are heard at all: Host, Origin, size, form; and the headers of every reply."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
HEADER = "x-madbal"
"""On every POST: a form of another site cannot set it."""

MOST_BODY = 64 * 1024
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """Refuses what does not come from this server's own page; adds `HEADERS`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        problem = _problem(Request(scope))
        if problem is None:
            await self._app(scope, receive, send_guarded)
        else:
            status, text = problem
            await JSONResponse({"error": text}, status)(scope, receive, send_guarded)


def _problem(request: Request) -> tuple[int, str] | None:
    host = request.headers.get("host", "")
    if len(request.headers.getlist("host")) != 1 or _name_of(host) not in LOOPBACK:
        return 421, "this server answers to 127.0.0.1 and localhost"
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{host}":
        return 403, "another site's page asked"
    if request.method == "POST" and origin is None:
        return 403, "a POST says its Origin"
    if request.method == "POST" and request.headers.get(HEADER) != "1":
        return 403, f"a POST has the header {HEADER}: 1"
    return None


def _name_of(host: str) -> str | None:
    try:
        parts = urlsplit(f"http://{host}")
        _ = parts.port
    except ValueError:
        return None
    is_plain = parts.netloc == host and not parts.path and "@" not in host
    return parts.hostname if is_plain else None


async def read_json(request: Request) -> Mapping[str, Any]:
    """Return the object in a request's body.

    Raises:
        HTTPException: 413 too large, 415 no JSON by its header, 400 none by its content.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "expected Content-Type: application/json")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            raise HTTPException(413, f"a body of more than {MOST_BODY} bytes")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is no JSON") from None
    if not isinstance(value, dict):
        raise HTTPException(400, "the body is no JSON object")
    return value
