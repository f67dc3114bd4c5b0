"""The server's addresses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import unquote

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from madbal_ray.annotate.desk import Desk
from madbal_ray.annotate.guard import Guard, read_json
from madbal_ray.annotate.messages import AnswersMessage, LeaseMessage
from madbal_ray.annotate.sign_in import SESSION_SECONDS
from madbal_ray.errors import DataError, LabelError

MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
ENTER = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>madbal annotate</title>'
    '<link rel="icon" href="/page/icon.svg">'
    '<meta http-equiv="refresh" content="0;url=/"><p><a href="/">Open the page</a></p></html>'
)
"""A page and no redirect: a strict cookie does not follow one that began at another site."""

ANNOTATOR_HEADER = "x-annotator"
"""Whom a page speaks for, percent-encoded: the cookie says who signed in last in the browser."""

RUN_HEADER = "x-run"
"""Which run a page speaks of: the next run's server may have the port of the one that served it."""

CLOSED = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>madbal annotate</title>'
    "<p>Open the link that <code>madbal annotate</code> printed for you; "
    "the server draws a new one at each start.</p></html>"
)


def create_app(desk: Desk) -> Starlette:
    """Return the application that serves a desk."""
    assets = {
        entry.name: (entry.read_bytes(), MEDIA_TYPES[entry.name[entry.name.rindex(".") :]])
        for entry in files("madbal_ray.annotate").joinpath("page").iterdir()
    }
    cookie = f"madbal-{desk.run_id[:16]}"

    async def start(request: Request) -> Response:
        token = request.query_params.get("token")
        if token is None:
            if desk.annotator(request.cookies.get(cookie)) is None:
                return HTMLResponse(CLOSED, 401)
            body, media_type = assets["index.html"]
            return Response(body, media_type=media_type)
        session = await run_in_threadpool(desk.exchange, token)
        if session is None:
            return HTMLResponse(CLOSED, 403)
        response = HTMLResponse(ENTER)
        response.set_cookie(
            cookie, session, max_age=SESSION_SECONDS, httponly=True, samesite="strict", path="/"
        )
        return response

    def signed_in(
        endpoint: Callable[[Request, str], Awaitable[Response]],
    ) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            if request.headers.get(RUN_HEADER, desk.run_id) != desk.run_id:
                raise HTTPException(
                    403,
                    "this page belongs to another run than this server: open the link that its own "
                    "server printed; what it has not sent stays in this browser",
                )
            annotator = desk.annotator(request.cookies.get(cookie))
            if annotator is None:
                raise HTTPException(401, "open the link that `madbal annotate` printed for you")
            claimed = unquote(request.headers.get(ANNOTATOR_HEADER, ""))
            if claimed != annotator and (claimed or request.method == "POST"):
                raise HTTPException(
                    401,
                    f"this browser is signed in as {annotator!r}, the page speaks for {claimed!r}: "
                    "open that annotator's link again, or use a browser profile for each",
                )
            return await endpoint(request, annotator)

        return checked

    async def asset(request: Request, annotator: str) -> Response:
        found = assets.get(request.path_params["name"])
        if found is None:
            raise HTTPException(404, "there is no such file")
        return Response(found[0], media_type=found[1])

    async def introduction(request: Request, annotator: str) -> Response:
        return JSONResponse(await run_in_threadpool(desk.introduction, annotator))

    async def numbers(request: Request, annotator: str) -> Response:
        return JSONResponse(await run_in_threadpool(desk.numbers))

    async def outline(request: Request, annotator: str) -> Response:
        query_id = request.path_params["query_id"]
        found = await run_in_threadpool(desk.outline, annotator, query_id)
        if found is None:
            raise HTTPException(404, "you were given no such query")
        return JSONResponse({"segments": found})

    async def lease(request: Request, annotator: str) -> Response:
        message = LeaseMessage.model_validate(await read_json(request))
        return JSONResponse(await run_in_threadpool(desk.lease, annotator, message.have))

    async def renew(request: Request, annotator: str) -> Response:
        return JSONResponse(await run_in_threadpool(desk.renew, annotator))

    async def answers(request: Request, annotator: str) -> Response:
        message = AnswersMessage.model_validate(await read_json(request))
        return JSONResponse(await run_in_threadpool(desk.record, annotator, message))

    def picture(kind: Literal["crop", "whole"]) -> Callable[[Request], Awaitable[Response]]:
        async def shown(request: Request, annotator: str) -> Response:
            query_id = request.path_params["query_id"]
            found = await run_in_threadpool(desk.picture, annotator, query_id, kind)
            if found is None:
                raise HTTPException(404, "you were given no such query")
            return Response(
                found[0], media_type=found[1], headers={"Cache-Control": "private, max-age=3600"}
            )

        return signed_in(shown)

    return Starlette(
        routes=[
            Route("/", start),
            Route("/page/{name}", signed_in(asset)),
            Route("/api/introduction", signed_in(introduction)),
            Route("/api/numbers", signed_in(numbers)),
            Route("/api/outline/{query_id}", signed_in(outline)),
            Route("/api/lease", signed_in(lease), methods=["POST"]),
            Route("/api/renew", signed_in(renew), methods=["POST"]),
            Route("/api/answers", signed_in(answers), methods=["POST"]),
            Route("/images/{query_id}/crop.png", picture("crop")),
            Route("/images/{query_id}/whole.jpg", picture("whole")),
        ],
        middleware=[Middleware(Guard)],
        exception_handlers={
            HTTPException: _refused,
            ValidationError: _unusable,
            LabelError: _conflict,
            DataError: _unreadable,
            OSError: _unreadable,
            ClientDisconnect: _cut_off,
        },
    )


async def _refused(request: Request, error: Any) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _unusable(request: Request, error: Any) -> Response:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return JSONResponse({"error": f"{where}: {first['msg']}"}, 400)


async def _conflict(request: Request, error: Any) -> Response:
    return JSONResponse({"error": str(error)}, 409)


async def _cut_off(request: Request, error: Any) -> Response:
    """Answer a browser that went away in the middle of a request: a page that was closed."""
    return JSONResponse({"error": "the request was cut off"}, 408)


async def _unreadable(request: Request, error: Any) -> Response:
    return JSONResponse({"error": f"the server cannot read it: {error}"}, 503)
