"""Runs of the generator in this process, several at a time."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from koprogo_deploy.load import generator
from koprogo_deploy.load.generator import Failed, Generator
from koprogo_deploy.load.ledger import Ledger
from koprogo_deploy.load.plan import Plan

PATIENCE = 60.0  # seconds


def done(*plans: Plan) -> list[Ledger]:
    """Do them all at once; what each told.

    However long a slow machine takes: what is looked at is what was sent, and not how fast.
    """

    async def one(plan: Plan) -> Ledger:
        ledger = Ledger(plan)
        try:
            await Generator(plan, ledger.take).run()
        except Failed as failed:
            ledger.failed = str(failed)
        return ledger

    async def every() -> list[Ledger]:
        return list(await asyncio.gather(*map(one, plans)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "BEHIND", PATIENCE)
        return uvloop.run(every())
