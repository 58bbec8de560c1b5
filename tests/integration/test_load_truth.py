"""The load generator tells the truth: against a server on this machine whose latency is known.

Latencies of 0.2 s and more: two percent of them are more than what others on a busy machine cost. A
run counts only if the generator was not held up by them; it knows that itself, and is repeated.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from koprogo_deploy.load.ledger import Ledger
from koprogo_deploy.load.plan import PhasePlan
from koprogo_deploy.load.run import generate
from koprogo_deploy.runs.model import Phase
from tests.unit.load.server import Site, closed, opened, plan

TRIES = 5
QUIET_MS = 1.0
Check = Callable[[Phase, Ledger], None]


def measured(site: Site, phase: PhasePlan, seed: int = 1) -> tuple[Phase, Ledger]:
    ledger = Ledger(plan(site, phase, seed=seed, connections=200, timeout=10.0))
    generate(ledger.plan, ledger)
    assert not ledger.failed
    assert not ledger.words, ledger.words
    (found,) = ledger.phases()
    return found, ledger


def exact(values: list[float], percent: float) -> float:
    """Milliseconds that so many percent took at most, by what the server measured itself."""
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def told(site: Site, phase: PhasePlan, check: Check) -> None:
    """Measure until the check holds; a run that was held up by others does not count.

    Whoever tells something else than the truth does so in every run.
    """
    late: list[float] = []
    wrong: AssertionError | None = None
    for seed in range(TRIES):
        site.restart()
        found, ledger = measured(site, phase, seed)
        late.append(ledger.generator([found]).late_p99_ms)
        try:
            check(found, ledger)
            return
        except AssertionError as error:
            wrong = error if late[-1] < QUIET_MS else wrong
    if wrong is not None:
        raise wrong
    pytest.skip(f"this machine is too busy to measure on: requests were late by {late} ms")


@pytest.mark.parametrize("rate", [40, 250])
def test_fixed_latency_is_reported_to_two_percent(rate: int) -> None:
    def check(found: Phase, _: Ledger) -> None:
        assert found.right == rate * 4
        for percent, value in ((50, found.latency.p50), (90, found.latency.p90)):
            assert value == pytest.approx(exact(site.served, percent), rel=0.02)
            assert value == pytest.approx(250, rel=0.03)

    with Site(latency=lambda _number, _at: 0.25) as site:
        told(site, opened(rate, 4), check)


def test_bimodal_latency_is_reported_to_two_percent_at_every_percentile() -> None:
    slow = random.Random(7)

    def check(found: Phase, _: Ledger) -> None:
        latency = found.latency
        pairs = {50: latency.p50, 90: latency.p90, 95: latency.p95, 99: latency.p99,
                 99.9: latency.p999}  # fmt: skip
        for percent, value in pairs.items():
            assert value == pytest.approx(exact(site.served, percent), rel=0.02), percent
        assert latency.p50 == pytest.approx(200, rel=0.03)
        assert latency.p99 == pytest.approx(1000, rel=0.03)

    with Site(latency=lambda _number, _at: 1.0 if slow.random() < 0.04 else 0.2) as site:
        told(site, opened(200, 5), check)


def test_the_asked_rate_is_met_to_one_percent_and_exactly_in_every_second() -> None:
    with Site(latency=lambda _number, _at: 0.02) as site:
        found, ledger = measured(site, opened(333.5, 4))
    assert found.sent == 1334
    assert found.sent_rate == pytest.approx(333.5, rel=0.001)
    assert found.achieved_rate == pytest.approx(333.5, rel=0.01)
    assert [second.sent for second in ledger.series()] == [333, 334, 333, 334]
    assert [second.asked for second in ledger.series()] == [333, 334, 333, 334]


def _stall(_number: int, at: float) -> float:
    """Nothing is answered between the 4th and the 6th second; then all of it at once."""
    return 6 - at if 4 <= at < 6 else 0.005


def test_a_stall_of_two_seconds_is_seen_by_the_open_loop() -> None:
    """A fifth of the requests falls into it, evenly: the slowest took two seconds, and one in ten
    of all more than one.
    """

    def check(found: Phase, ledger: Ledger) -> None:
        assert found.right == 1000
        for percent, value in ((99, found.latency.p99), (90, found.latency.p90)):
            assert value == pytest.approx(exact(site.served, percent), rel=0.02)
        assert found.latency.p99 == pytest.approx(1900, rel=0.05)
        assert found.latency.p90 == pytest.approx(1000, rel=0.1)
        assert found.latency.max == pytest.approx(2000, rel=0.02)
        by_second = {second.at: second.p50 or 0 for second in ledger.series()}
        assert by_second[4] == pytest.approx(1500, rel=0.1)
        assert by_second[2] < 100

    with Site(latency=_stall) as site:
        told(site, opened(100, 10), check)


@pytest.mark.slow
def test_a_stall_behind_few_connections_is_on_the_servers_account() -> None:
    """Ten connections are all taken after 0.1 s of the stall. Who waits for one is late by the
    server's fault, and counted from the moment it was to be sent.
    """
    with Site(latency=_stall) as site:
        ledger = Ledger(plan(site, opened(100, 10), connections=10, timeout=10.0))
        generate(ledger.plan, ledger)
    (found,) = ledger.phases()
    assert found.right == 1000
    assert found.latency.p99 is not None
    assert found.latency.p99 > 1800
    assert found.latency.p90 is not None
    assert found.latency.p90 > 900


def test_a_closed_loop_is_timed_from_its_sending() -> None:
    def check(found: Phase, _: Ledger) -> None:
        assert found.latency.p50 == pytest.approx(exact(site.served, 50), rel=0.02)
        assert found.achieved_rate == pytest.approx(2 / 0.25, rel=0.07)

    with Site(latency=lambda _number, _at: 0.25) as site:
        told(site, closed(2, 4), check)
