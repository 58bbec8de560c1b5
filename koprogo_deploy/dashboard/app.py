"""The web part of the dashboard: routes, the guard before all of them, the stream of events."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterator, Callable
from importlib import resources
from typing import Any

import anyio
from jinja2 import Environment as Templates
from jinja2 import PackageLoader, StrictUndefined
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request, cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from koprogo_deploy.dashboard import guard, view
from koprogo_deploy.dashboard.desk import Desk, NotNow, Wanted
from koprogo_deploy.dashboard.guard import Keys
from koprogo_deploy.dashboard.jobs import Busy, words
from koprogo_deploy.problems import Refusal
from koprogo_deploy.visible import everywhere, finalized

# How often a stream looks for something new, seconds.
PULSE = 0.5
BODY = 4096  # bytes of a request at most
_TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_templates = Templates(
    loader=PackageLoader("koprogo_deploy.dashboard", "pages"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=finalized,
)


class Guard:
    """Refuses what `guard.refusal` refuses, before any route sees it."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self.app = app
        self.keys = keys
        self.used = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        cookie = cookie_parser(headers.get("cookie", "")).get(self.keys.cookie)
        refused = guard.refusal(self.keys, scope["method"], headers, cookie, scope["path"])
        if refused is not None:
            response = self._entrance(scope, headers) or _refused(refused, headers)
            await response(scope, receive, functools.partial(_sealed, send))
            return
        if scope["path"] == "/" and Request(scope).query_params.get("token"):
            response = _to_the_page(self.keys, plain=True)  # the link again, in the same browser
            await response(scope, receive, functools.partial(_sealed, send))
            return
        await self.app(scope, receive, functools.partial(_sealed, send))

    def _entrance(self, scope: Scope, headers: Headers) -> Response | None:
        """The cookie for the link's token, once, and away from the link."""
        token = Request(scope).query_params.get("token")
        if scope["path"] != "/" or scope["method"] != "GET":
            return None
        if not guard.opens(self.keys, headers.get("host"), token):
            return None
        if self.used:
            return _refused(guard.USED, headers)
        self.used = True
        # A browser keeps a Strict cookie back on a redirect that another site's link began.
        plain = headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        return _to_the_page(self.keys, plain)


async def _sealed(send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        headers = MutableHeaders(scope=message)
        for name, value in guard.HEADERS.items():
            headers.setdefault(name, value)
        headers.setdefault("Content-Security-Policy", guard.PAGE_POLICY)
    await send(message)


def _to_the_page(keys: Keys, plain: bool) -> Response:
    if plain:
        response = Response(status_code=303, headers={"Location": "/"})
    else:
        response = HTMLResponse("", headers={"Refresh": "0; url=/"})
    response.set_cookie(keys.cookie, keys.session, httponly=True, samesite="strict", path="/")
    return response


def _refused(refused: guard.Refused, headers: Headers) -> Response:
    if "text/html" in headers.get("accept", ""):
        page = _templates.get_template("refused.html").render(words=refused.words)
        return HTMLResponse(page, refused.status)
    return JSONResponse({"problem": refused.words}, refused.status)


def build(desk: Desk, keys: Keys, closing: asyncio.Event, report: Callable[..., str]) -> Starlette:
    """The application.

    Args:
        desk: what it shows and does.
        keys: who may.
        closing: set when the program ends, so that streams do.
        report: makes the HTML of runs.
    """

    async def page(_: Request) -> Response:
        try:
            host = (await asyncio.to_thread(desk.open)).host
        except Refusal:
            host = "?"  # the page shows the reason where it needs the settings
        return HTMLResponse(
            _templates.get_template("page.html").render(
                environment=desk.name,
                host=host,
                careful=desk.name in view.CAREFUL,
                profiles=dict(desk.profiles),
            )
        )

    def looked(look: Callable[[], dict[str, Any]]) -> Callable[[Request], Any]:
        async def answer(_: Request) -> Response:
            try:
                return _json(await asyncio.to_thread(look))
            except Refusal as refusal:
                return _problem(200, words(refusal))

        return answer

    async def events(_: Request) -> Response:
        return StreamingResponse(_stream(desk, closing), media_type="text/event-stream")

    async def start(request: Request) -> Response:
        try:
            wanted = Wanted.model_validate_json(await _body(request))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(step) for step in first["loc"])
            return _problem(400, f"{where}: {first['msg']}" if where else first["msg"])
        if not guard.name_typed(desk.name, wanted.name):
            return _problem(
                403, f'"{wanted.name}" is not {desk.name}. Nothing was started or changed.'
            )
        try:
            job = desk.start(wanted)
        except Busy as busy:
            return _problem(409, f"one thing at a time; still running: {busy}")
        except NotNow as reason:
            return _problem(409, str(reason))
        except Refusal as refusal:
            return _problem(409, words(refusal))
        return _json(job.show(), 202)

    async def cancel(request: Request) -> Response:
        try:
            number = int(json.loads(await _body(request))["number"])
        except (ValueError, KeyError, TypeError):
            return _problem(400, "which job? {number: …}")
        if not desk.jobs.cancel(number):
            return _problem(409, "that job does not run any more")
        return JSONResponse({}, 202)

    async def run_report(request: Request) -> Response:
        try:
            run = await asyncio.to_thread(desk.run, request.path_params["id"])
        except Refusal as refusal:
            return _problem(404, words(refusal))
        if run is None:
            return _problem(404, "no such run")
        text = await asyncio.to_thread(report, [run])
        return HTMLResponse(text, headers={"Content-Security-Policy": guard.REPORT_POLICY})

    return Starlette(
        routes=[
            Route("/", page),
            Route("/events", events),
            Route("/static/plotly.js", _plotly),
            Route("/static/{name}", _static),
            Route("/facts/release", looked(desk.release)),
            Route("/facts/seed", looked(desk.seeded)),
            Route("/facts/measured", looked(desk.measured)),
            Route("/runs/{id}", run_report),
            Route("/jobs", start, methods=["POST"]),
            Route("/jobs/cancel", cancel, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, keys=keys)],
    )


def _problem(status: int, text: str) -> Response:
    return _json({"problem": text}, status)


def _json(value: object, status: int = 200) -> Response:
    """What the page shows: nothing in it turns a line around or hides one."""
    return JSONResponse(everywhere(value), status)


async def _body(request: Request) -> bytes:
    read = b""
    async for part in request.stream():
        read += part
        if len(read) > BODY:
            return b""
    return read


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    folder = resources.files("koprogo_deploy.dashboard") / "static"
    known = {entry.name: entry for entry in folder.iterdir()}
    if name not in known:
        return _problem(404, "no such file")
    return Response(known[name].read_bytes(), media_type=_TYPES[name.rpartition(".")[2]])


@functools.cache
def _plotly_js() -> bytes:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).encode()


async def _plotly(_: Request) -> Response:
    script = await asyncio.to_thread(_plotly_js)
    # Five megabytes that do not change while the program runs.
    keep = {"Cache-Control": "private, max-age=3600"}
    return Response(script, media_type="text/javascript", headers=keep)


async def _stream(desk: Desk, closing: asyncio.Event) -> AsyncIterator[str]:
    """Server-sent events: `points` (new samples), `now` (each second), `job` (as it changes)."""
    count, told, shown = 0, 0.0, (-1, -1)
    while not closing.is_set():
        seen = desk.watch.seen()
        if seen.count > count or not told:
            new = desk.watch.since(count)
            count = seen.count
            yield _event("points", [view.point(sample) for sample in new])
        if time.monotonic() - told >= 1.0:
            told = time.monotonic()
            yield _event("now", view.now(desk.watch.latest, seen))
        job = desk.jobs.job
        if job is not None and (job.running or (job.number, job.version) != shown):
            shown = (job.number, job.version)
            yield _event("job", job.show())
        with anyio.move_on_after(PULSE):
            await closing.wait()


def _event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(everywhere(data))}\n\n"
