"""A generator that is held up knows it, and calls its run invalid."""

from __future__ import annotations

import asyncio
import time

import uvloop

from koprogo_deploy.load.generator import Generator
from koprogo_deploy.load.ledger import Ledger
from tests.unit.load.server import Site, opened, plan


def test_a_blocked_generator_is_late_counts_it_and_is_invalid() -> None:
    """Its loop stands still for 0.2 s twice a second: what was due meanwhile is sent late, and
    timed from when it was to be sent.
    """

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
