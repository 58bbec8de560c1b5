"""A KoproGo of known latency and known faults, on this machine, to check the generator by."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import uvloop
from aiohttp import web

from koprogo_deploy.load.plan import Account, PhasePlan, Plan, Target

PASSWORD = "right-horse"
EMAILS = ("admin@small.be", "admin@medium.be")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Site:
    """Answers as KoproGo does, after a time that `latency` decides.

    Attributes:
        latency: seconds until the answer of the n-th load request (from 0), by when it came
            (seconds since the first).
        token_life: seconds.
        fault: answers in its place; None: right ones.
        logins, refreshes: how many there were, by e-mail.
        served: seconds from the arrival of each load request to its answer, as measured here.
        bodies: what was posted, by path.
        unauthorised: load requests without a valid token.
    """

    latency: Callable[[int, float], float] = lambda _number, _at: 0.0
    token_life: float = 900.0
    fault: Callable[[web.Request, int], Awaitable[web.StreamResponse] | None] | None = None
    login_answer: Callable[[dict[str, Any]], web.Response] | None = None
    tls: ssl.SSLContext | None = None
    backlog: int = 1024
    logins: Counter[str] = field(default_factory=Counter)
    refreshes: Counter[str] = field(default_factory=Counter)
    served: list[float] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    unauthorised: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        self._tokens: dict[str, tuple[str, float]] = {}
        self._refresh: dict[str, str] = {}
        self._serial = itertools.count()
        self._load = itertools.count()
        self._first = 0.0
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    # --- as a context ------------------------------------------------------------------------

    def __enter__(self) -> Site:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/api/v1/auth/login", self._login)
        app.router.add_post("/api/v1/auth/refresh", self._renew)
        app.router.add_route("*", "/api/v1/{path:.*}", self._answer)
        app.router.add_get("/", self._page)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        self._listener = web.TCPSite(
            self._runner, "127.0.0.1", 0, ssl_context=self.tls, backlog=self.backlog
        )
        await self._listener.start()
        self.port = self._runner.addresses[0][1]

    @property
    def url(self) -> str:
        """Base URL of its API."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/api/v1"

    def restart(self) -> None:
        """Forget what was served; the next load request is the first again."""
        self.served.clear()
        self._load, self._first = itertools.count(), 0.0

    def refuse(self) -> None:
        """From now on take no new connection; those there are go on."""
        asyncio.run_coroutine_threadsafe(self._listener.stop(), self._loop).result(10)

    # --- answers -----------------------------------------------------------------------------

    async def _page(self, _request: web.Request) -> web.Response:
        return web.Response(text="<html><body>KoproGo</body></html>\n", content_type="text/html")

    def _pair(self, email: str) -> dict[str, Any]:
        number = next(self._serial)
        token, refresh = f"token-{number}", f"refresh-{number}"
        self._tokens[token] = (email, time.monotonic() + self.token_life)
        self._refresh[refresh] = email
        return {"token": token, "refresh_token": refresh, "user": _user(email)}

    async def _login(self, request: web.Request) -> web.Response:
        given = await request.json()
        self.logins[given["email"]] += 1
        if given["password"] != PASSWORD:
            return web.json_response({"error": "Invalid email or password"}, status=401)
        pair = self._pair(given["email"])
        return self.login_answer(pair) if self.login_answer else web.json_response(pair)

    async def _renew(self, request: web.Request) -> web.Response:
        email = self._refresh.pop((await request.json())["refresh_token"], "")
        if not email:
            return web.json_response({"error": "Invalid refresh token"}, status=401)
        self.refreshes[email] += 1
        return web.json_response(self._pair(email))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        began = time.monotonic()
        path = request.match_info["path"]
        if path == "health":
            return web.json_response({"status": "ok", "service": "koprogo-api"})
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        email, until = self._tokens.get(token, ("", 0.0))
        looks_around = request.query.get("per_page") == "100"
        if began > until:
            self.unauthorised += 1
            return web.Response(status=401, text="Invalid token: ExpiredSignature")
        if looks_around:
            return web.json_response(page(path, email, 100))
        number = next(self._load)
        self._first = self._first or began
        self.seen[f"{request.method} /{path}"] += 1
        sent: dict[str, Any] = {}
        if path == "documents" and request.method == "POST":
            form = await request.post()
            content = form["file"].file.read()  # type: ignore[union-attr]
            sent = {"title": form["title"], "file_size": len(content)}
        elif request.method == "POST":
            sent = await request.json()
        if request.method == "POST":
            self.bodies.append((path, sent))
        wait = self.latency(number, began - self._first)
        wait += int(request.headers.get("X-Standin-Wait", 0)) / 1000
        if wait:
            await asyncio.sleep(wait)
        faulty = self.fault(request, number) if self.fault else None
        self.served.append(time.monotonic() - began)
        if faulty is not None:
            return await faulty
        if path == "auth/me":
            return web.json_response(_user(email))
        if request.method == "POST":
            return web.json_response(created(path, sent), status=201)
        return web.json_response(page(path, email, 20))


def _user(email: str) -> dict[str, Any]:
    return {
        "id": f"user-{email}", "email": email, "first_name": "A", "last_name": "B",
        "role": "syndic", "organization_id": f"org-{email}", "is_active": True,
    }  # fmt: skip


_ITEMS: dict[str, dict[str, Any]] = {
    "buildings": {"name": "Résidence", "address": "Rue 1", "city": "Bruxelles",
                  "postal_code": "1000", "country": "Belgium", "total_units": 6},
    "units": {"building_id": "b", "unit_number": "1.1", "unit_type": "Apartment",
              "surface_area": 80.5, "quota": 100},
    "owners": {"first_name": "Anna", "last_name": "Maes", "email": "anna@small.be"},
    "expenses": {"building_id": "b", "category": "Works", "description": "Toit",
                 "amount": 100.0, "expense_date": "2025-10-01T00:00:00+00:00"},
    "meetings": {"building_id": "b", "meeting_type": "Ordinary", "title": "AG",
                 "scheduled_date": "2025-10-01T00:00:00+00:00"},
}  # fmt: skip


def page(path: str, email: str, size: int, total: int = 23) -> dict[str, Any]:
    """Page 1 of a tenant's list."""
    pages = -(-total // size)
    return {
        "data": [
            {"id": f"{path}-{email}-{number}", **_ITEMS[path]}
            for number in range(min(size, total))
        ],
        "pagination": {
            "current_page": 1, "per_page": size, "total_items": total, "total_pages": pages,
            "has_next": pages > 1, "has_previous": False,
        },
    }  # fmt: skip


def created(path: str, sent: dict[str, Any]) -> dict[str, Any]:
    """The row that a POST makes, as KoproGo shows it."""
    made = {key: value for key, value in sent.items() if key != "organization_id"}
    return {"id": f"new-{path}", **made}


def plan(site: Site | str, *phases: PhasePlan, **changes: Any) -> Plan:
    """A plan for a site, with both logins."""
    url = site if isinstance(site, str) else site.url
    given: dict[str, Any] = {
        "target": Target(url), "run": "0123abcd", "seed": 1, "connections": 50, "timeout": 5.0,
        "accounts": tuple(Account(email, PASSWORD) for email in EMAILS),
    }  # fmt: skip
    return Plan(phases=phases, **{**given, **changes})


def opened(rate: float, seconds: int = 1, *mix: str, **changes: Any) -> PhasePlan:
    """An open loop."""
    names = mix or ("GET /buildings",)
    given: dict[str, Any] = {"judged": True, "mix": tuple((name, 1) for name in names)}
    return PhasePlan(name="open", seconds=seconds, rate=rate, **{**given, **changes})


def closed(users: int, seconds: int = 1, *mix: str, **changes: Any) -> PhasePlan:
    """A closed loop."""
    names = mix or ("GET /buildings",)
    return PhasePlan(
        name="closed", seconds=seconds, users=users, mix=tuple((name, 1) for name in names),
        **changes,
    )  # fmt: skip
