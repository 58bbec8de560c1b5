"""The watch of the integration tests: it says that nothing failed only when it has asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from tests.integration import rig

OK = httpx2.Response(200)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., rig.Watch]:
    """A watch over a site that answers so on its kept connection, and well on new ones."""

    def make(answer: Callable[[], httpx2.Response], seconds: float = 0.1) -> rig.Watch:
        def outside(_settings: object, timeout: float) -> Any:
            mine = threading.current_thread() is watch._threads[0]
            api = SimpleNamespace(get=lambda _: answer() if mine else OK, close=lambda: None)
            return SimpleNamespace(api=api)

        monkeypatch.setattr(rig, "Outside", outside)
        environment = SimpleNamespace(settings=None)
        watch = rig.Watch(SimpleNamespace(environment=environment), pause=0.001)  # type: ignore[arg-type]
        with watch:
            time.sleep(seconds)
        return watch

    return make


def test_all_that_was_answered_is_no_failure(watched: Callable[..., rig.Watch]) -> None:
    watch = watched(lambda: OK)
    assert watch.failures == []
    assert watch.answered > 10


def test_what_is_not_answered_200_is_one(watched: Callable[..., rig.Watch]) -> None:
    def refused() -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    assert "refused" in watched(refused).failures[0]
    assert ": 503 " in watched(lambda: httpx2.Response(503)).failures[0]


def test_a_watch_that_never_asked_does_not_say_that_nothing_failed() -> None:
    environment = SimpleNamespace(settings=None)
    watch = rig.Watch(SimpleNamespace(environment=environment))  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="nothing was asked on a kept connection"):
        _ = watch.failures


def test_nor_does_one_that_broke_off(watched: Callable[..., rig.Watch]) -> None:
    def broken() -> httpx2.Response:
        raise ValueError("no answer of HTTP")

    with pytest.raises(AssertionError, match=r"broke off.*no answer of HTTP"):
        _ = watched(broken).failures
