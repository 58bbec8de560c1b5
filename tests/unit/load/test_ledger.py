"""The figures that are made of what the generator told, and how it judges itself."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram

from koprogo_deploy.load.generator import KIND_NAMES, OUTCOMES, UNFINISHED
from koprogo_deploy.load.ledger import Ledger, verdict_on_itself
from koprogo_deploy.runs.model import Latency, Phase
from tests.unit.load.server import closed, opened, plan

BUILDINGS, UNITS = KIND_NAMES.index("GET /buildings"), KIND_NAMES.index("POST /units")


def told(*rows: tuple[int, int, int, int, int, int], seconds: int = 2, **given: Any) -> Ledger:
    """A ledger of a run at 2 requests a second that told these rows."""
    ledger = Ledger(plan("http://127.0.0.1:9", opened(2, seconds), **given))
    ledger.take({"event": "began", "at": 1000.0})
    ledger.take({"event": "phase", "phase": 0, "began": 0})
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * 6
    ledger.take({"event": "rows", "at": 1.0, "cpu": 5.0, "under_way": 0, "rows": columns})
    ledger.take({"event": "phase ended", "phase": 0, "ended": seconds * 1_000_000})
    ledger.take({"event": "done", "stopped": False})
    return ledger


def test_totals_are_the_added_histograms_of_the_endpoints() -> None:
    rng = random.Random(5)
    rows = [(0, rng.choice((BUILDINGS, UNITS)), 0, n, rng.randrange(1, 90_000), 0)
            for n in range(5000)]  # fmt: skip
    (phase,) = told(*rows).phases()
    added = HdrHistogram(1, 3_600_000_000, 3)
    for endpoint in phase.endpoints:
        added.decode_and_add(endpoint.histogram)
    assert phase.latency.p99 == pytest.approx(added.get_value_at_percentile(99) / 1000, rel=1e-3)
    ordered = sorted(row[4] for row in rows)
    assert phase.latency.p99 == pytest.approx(ordered[4950] / 1000, rel=0.002)
    assert phase.latency.max == pytest.approx(ordered[-1] / 1000, abs=0.001)
    decoded = HdrHistogram.decode(phase.histogram)
    assert decoded.get_total_count() == 5000


def test_a_percentile_is_never_above_the_highest_value() -> None:
    (phase,) = told((0, BUILDINGS, 0, 0, 12_345, 0)).phases()
    latency = phase.latency
    assert latency.p50 == latency.p999 == latency.max == 12.345


def test_a_queue_that_is_worked_off_after_the_phase_is_no_throughput() -> None:
    in_time, after = (0, BUILDINGS, 0, 1_500_000, 400_000, 0), (0, BUILDINGS, 0, 1_600_000,
                                                                 900_000, 0)  # fmt: skip
    (phase,) = told(in_time, after).phases()
    assert (phase.right, phase.sent, phase.achieved_rate) == (2, 2, 0.5)


def test_a_second_is_that_of_the_intended_send_time() -> None:
    ledger = told(
        (0, BUILDINGS, 0, 100, 1_900_000, 7000),
        (0, BUILDINGS, OUTCOMES.index("5xx"), 999_999, 5, 0),
        (0, UNITS, UNFINISHED, 1_000_000, 0, 0),
    )
    first, second = ledger.series()
    assert (first.at, first.asked, first.sent, first.right) == (0, 2, 2, 1)
    assert first.errors == {"5xx": 1}
    assert first.max == 1900
    assert first.late_ms == 7
    assert (second.at, second.sent, second.right, second.errors) == (1, 1, 0, {})
    assert second.p99 is None
    assert first.generator_cpu_percent == 5


def test_only_right_answers_say_that_a_row_was_created() -> None:
    rows = [(0, UNITS, outcome, 0, 1, 0) for outcome in (0, 0, 4, 6, UNFINISHED)]
    assert told(*rows).created() == {"units": 2}


def test_progress_says_what_a_person_wants_to_know() -> None:
    progress = told((0, BUILDINGS, 0, 0, 5000, 0), (0, BUILDINGS, 4, 0, 9000, 0)).progress
    assert (progress.phase, progress.asked, progress.rate) == ("open", 2, 1)
    assert (progress.p50, progress.p99, progress.errors) == (5.003, 9.0, {OUTCOMES[4]: 1})
    assert progress.left == 1


def phase(**changes: Any) -> Phase:
    given: dict[str, Any] = {
        "name": "realistic", "mode": "open", "asked_rate": 200, "began": 0, "seconds": 10,
        "achieved_rate": 200, "sent_rate": 200, "latency": Latency(p99=20),
    }  # fmt: skip
    return Phase(**given | changes)


def test_a_generator_that_kept_up_is_valid() -> None:
    assert verdict_on_itself([phase()], 0.4, [20.0] * 10) == []
    assert verdict_on_itself([phase(latency=Latency(p99=2))], 0.9, [20.0] * 10) == []


@pytest.mark.parametrize(
    ("late", "p99", "bound"), [(51.1, 500, "50.0"), (2.1, 20, "2.0"), (1.1, 3, "1.0")]
)
def test_a_generator_that_sends_late_is_invalid(late: float, p99: float, bound: str) -> None:
    (reason,) = verdict_on_itself([phase(latency=Latency(p99=p99))], late, [20.0] * 10)
    assert reason == (
        f"realistic: the generator sent late by {late} ms (P99), more than {bound} ms"
    )


def test_a_generator_without_cpu_is_invalid() -> None:
    assert verdict_on_itself([phase()], 0.1, [95.0] + [50.0] * 9) == []
    (reason,) = verdict_on_itself([phase()], 0.1, [95.0] * 2 + [50.0] * 8)
    assert reason == "the generator used 90 % of a CPU or more in 2 of 10 seconds"
    assert verdict_on_itself([phase(mode="closed", asked_rate=None)], 0.0, [99.0] * 10)


def test_a_rate_that_was_not_offered_is_invalid() -> None:
    assert verdict_on_itself([phase(sent_rate=198.1)], 0.1, []) == []
    (reason,) = verdict_on_itself([phase(sent_rate=197.9)], 0.1, [])
    assert reason == "realistic: 197.9 requests a second were sent of 200 asked"


def test_a_closed_loop_is_never_late() -> None:
    ledger = Ledger(plan("http://127.0.0.1:9", closed(2)))
    ledger.take({"event": "phase", "phase": 0, "began": 0})
    found = ledger.generator(ledger.phases())
    assert (found.late_p99_ms, found.valid) == (0, True)
