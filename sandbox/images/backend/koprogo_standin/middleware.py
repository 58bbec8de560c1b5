"""Around every request: the access log, the mis-set rate limiter, the faults."""

import asyncio
import logging
import math
import time

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from koprogo_standin.errors import TEXT, json_error
from koprogo_standin.faults import Faults

log = logging.getLogger("koprogo_standin.requests")

HEALTH = "/api/v1/health"
MOST_WAIT = 60_000  # ms


class AccessLog:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, started = 0, time.perf_counter()

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            peer = scope["client"][0] if scope.get("client") else "-"
            seconds = time.perf_counter() - started
            # The path as it was sent: a decoded one could forge lines of its own.
            path = scope["raw_path"].decode("ascii", "backslashreplace")
            log.info('%s "%s %s" %d %.6f', peer, scope["method"], path, status, seconds)


class RateLimit:
    """KoproGo's limiter as it is set there: a burst of 100, then ONE request in 6000 s.

    Per peer address, and behind a proxy all users have the proxy's. Health counts as well.
    """

    BURST = 100
    PERIOD = 6000.0

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.full_again: dict[str, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        peer = scope["client"][0] if scope.get("client") else ""
        now = time.monotonic()
        full_again = max(self.full_again.get(peer, now), now)
        wait = full_again - now - (self.BURST - 1) * self.PERIOD
        if wait > 0:
            seconds = str(math.ceil(wait))
            response = Response(
                f"Too many requests, retry in {seconds}s", 429, media_type=TEXT,
                headers={"retry-after": seconds, "x-ratelimit-after": seconds},
            )  # fmt: skip
            await response(scope, receive, send)
            return
        self.full_again[peer] = full_again + self.PERIOD
        await self.app(scope, receive, send)


def asked_wait(scope: Scope) -> float:
    """Seconds that a request asks to wait."""
    value = dict(scope.get("headers", ())).get(b"x-standin-wait", b"")
    return min(int(value), MOST_WAIT) / 1000 if value.isdigit() else 0.0


class Disturb:
    """Faults for a smoke test or the gate to notice, so health is spared."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self.app = app
        self.pause = faults.slow_ms / 1000
        self.on_request = "slow_on_request" in faults
        self.percent = faults.errors_percent
        self.due = 0
        self.leak = faults.leak_kb * 1024
        self.leaked: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == HEALTH:
            await self.app(scope, receive, send)
            return
        if self.leak:
            # Written to, or the kernel would give no memory for it.
            self.leaked.append(b"x" * self.leak)
        pause = max(self.pause, asked_wait(scope) if self.on_request else 0.0)
        if pause:
            await asyncio.sleep(pause)
        # Spread evenly rather than thrown: a test can count on the share.
        self.due += self.percent
        if self.due >= 100:
            self.due -= 100
            await json_error(500, "stand-in fault: errors_percent")(scope, receive, send)
            return
        await self.app(scope, receive, send)
