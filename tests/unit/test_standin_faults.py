"""The stand-in's faults do what their names say: tests of the deploy and the gate rest on them."""

from __future__ import annotations

import asyncio
import importlib
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

STANDIN = Path(__file__).parents[2] / "sandbox" / "images" / "backend"


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the stand-in, which is a program of its own."""
    monkeypatch.syspath_prepend(str(STANDIN))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return lambda name: importlib.import_module(f"koprogo_standin.{name}")


class Counting:
    """The application behind the middleware."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def ask(
    middleware: Any, path: str, times: int, headers: list[tuple[bytes, bytes]] | None = None
) -> list[int]:
    """Statuses of so many requests."""
    statuses: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def receive() -> Any:
        raise AssertionError("nobody reads a body here")

    async def everything() -> None:
        for _ in range(times):
            scope = {"type": "http", "path": path, "method": "GET", "headers": headers or []}
            await middleware(scope, receive, send)

    asyncio.run(everything())
    return statuses


def test_a_leak_keeps_what_each_request_took(standin: Any) -> None:
    faults = standin("faults").parse("leak_kb=64")
    disturbed = standin("middleware").Disturb(Counting(), faults)
    tracemalloc.start()
    try:
        assert ask(disturbed, "/api/v1/buildings", 100) == [200] * 100
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 6400 * 1024 < kept < 6600 * 1024
    ask(disturbed, "/api/v1/health", 100)
    assert len(disturbed.leaked) == 100, "a healthcheck leaks nothing"


def test_errors_come_in_their_share(standin: Any) -> None:
    faults = standin("faults").parse("errors_percent=5")
    disturbed = standin("middleware").Disturb(Counting(), faults)
    assert ask(disturbed, "/api/v1/units", 200).count(500) == 10
    assert set(ask(disturbed, "/api/v1/health", 40)) == {200}


@pytest.mark.parametrize(
    ("text", "disturbs"),
    [
        ("", False),
        ("never_healthy", False),
        ("slow_ms=1", True),
        ("tenant_filter,leak_kb=1", True),
        ("slow_on_request", True),
    ],
)
def test_only_what_requests_notice_is_put_around_them(
    standin: Any, text: str, disturbs: bool
) -> None:
    assert standin("faults").parse(text).disturb is disturbs


def test_unknown_fault_is_refused_with_those_there_are(standin: Any) -> None:
    with pytest.raises(ValueError, match=r"no fault 'leak'; there are: .*leak_kb=N"):
        standin("faults").parse("leak")


def test_a_request_waits_as_long_as_it_asks_to(standin: Any, monkeypatch: Any) -> None:
    middleware, waited = standin("middleware"), []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(middleware.asyncio, "sleep", sleep)
    disturbed = middleware.Disturb(Counting(), standin("faults").parse("slow_on_request"))
    for wait in (b"5000", b"9999999", b"-1", b"soon"):
        ask(disturbed, "/api/v1/units", 1, headers=[(b"x-standin-wait", wait)])
    ask(disturbed, "/api/v1/units", 1)
    ask(disturbed, "/api/v1/health", 1, headers=[(b"x-standin-wait", b"5000")])
    assert waited == [5.0, 60.0]
    undisturbed = middleware.Disturb(Counting(), standin("faults").parse("slow_ms=0"))
    ask(undisturbed, "/api/v1/units", 1, headers=[(b"x-standin-wait", b"5000")])
    assert waited == [5.0, 60.0], "nobody can slow down a backend without the fault"
