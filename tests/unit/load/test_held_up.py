"""A generator that is held up knows it, and calls its run invalid."""

from __future__ import annotations

import asyncio
import time

import pytest
import uvloop

from koprogo_deploy.load import generator as module
from koprogo_deploy.load.generator import Generator
from koprogo_deploy.load.ledger import Ledger
from tests.unit.load.runs import PATIENCE
from tests.unit.load.server import Site, opened, plan


def test_a_blocked_generator_is_late_counts_it_and_is_invalid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its loop stands still for 0.2 s twice a second: what was due meanwhile is sent late, and
    timed from when it was to be sent.
    """
    monkeypatch.setattr(module, "BEHIND", PATIENCE)

    async def run(ledger: Ledger) -> None:
        generator = asyncio.create_task(Generator(ledger.plan, ledger.take).run())
        while not generator.done():
            await asyncio.sleep(0.3)
            time.sleep(0.2)  # that is the point
        await generator

    with Site() as site:
        ledger = Ledger(plan(site, opened(200)))
        uvloop.run(run(ledger))
    (phase,) = ledger.phases()
    own = ledger.generator([phase])
    assert phase.sent == phase.right == 200
    assert not own.valid
    assert 100 < own.late_p99_ms < 400
    assert "the generator sent late by" in own.reasons[0]
    assert phase.latency.p99 is not None
    assert phase.latency.p99 >= own.late_p99_ms * 0.9
    assert max(second.late_ms for second in ledger.series()) == own.late_max_ms


def test_a_backlog_is_not_sent_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than it can send: it gives up a moment after the end, and the run is invalid."""
    monkeypatch.setattr(module, "BEHIND", 0.3)
    with Site() as site:
        ledger = Ledger(plan(site, opened(60_000), timeout=1.0, most_under_way=500))
        began = time.monotonic()
        uvloop.run(Generator(ledger.plan, ledger.take).run())
        took = time.monotonic() - began
    assert ledger.done
    assert took < 5, "60 000 requests take it far longer"
    (note,) = ledger.notes
    assert "of 60000 requests were not sent yet: this machine cannot send so many" in note
    assert not ledger.generator(ledger.phases()).valid


def test_answers_are_not_waited_for_beyond_their_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEHIND", 0.2)
    site = Site()
    with site:
        ledger = Ledger(plan(site, opened(5), timeout=0.5))
        generator = Generator(ledger.plan, ledger.take)

        async def never(*_: object) -> tuple[int, float]:
            await asyncio.sleep(3600)
            raise AssertionError

        monkeypatch.setattr(generator, "_ask", never)
        began = time.monotonic()
        uvloop.run(generator.run())
    assert time.monotonic() - began < 4
    assert ledger.phases()[0].sent in (0, 5)
