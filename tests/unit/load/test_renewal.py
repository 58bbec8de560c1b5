"""Tokens are renewed until it succeeds: what is refused for an old one is no server's error."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from koprogo_deploy.load.generator import Failed, Generator
from tests.unit.load.server import Site, opened, plan


def test_an_api_that_is_away_for_long_is_asked_until_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[dict[str, Any]] = []
    slept: list[float] = []
    asked = 0

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def renewed(_caller: object) -> None:
        nonlocal asked
        asked += 1
        if asked == 9:
            raise asyncio.CancelledError  # the run's end
        if asked <= 7:
            raise Failed("503")

    with Site() as site:
        generator = Generator(plan(site, opened(1), renew_after=720.0), told.append)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(generator, "_renewed", renewed)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(generator._renew(None))  # type: ignore[arg-type]
    # After the seventh refusal it succeeds, and is next due as ever.
    assert slept == [720.0, 1.0, 5.0, *[15.0] * 5, 720.0]
    assert [event["text"][:25] for event in told] == ["renewing a token: 503; ag"] * 7
