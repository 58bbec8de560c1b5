"""What a run comes to: percentiles of added-up histograms, and CPU for each right answer."""

from __future__ import annotations

import numpy as np
import pytest

from koprogo_deploy import figures
from koprogo_deploy.runs.model import Phase
from tests.made_runs import Stretch, encoded, made_run


def test_percentiles_of_several_phases_are_of_all_their_answers_not_a_mean() -> None:
    fast, slow = np.full(9_900, 1_000), np.full(100, 1_000_000)
    total = figures.latency(figures.add_up([encoded(fast), encoded(slow)]))
    assert total.p50 == pytest.approx(1.0, rel=0.002)
    assert total.p999 == pytest.approx(1000, rel=0.002)  # a mean of the two would be 500
    assert total.p99 == pytest.approx(1.0, rel=0.002)


def test_a_sum_with_an_unreadable_part_is_none_not_the_rest() -> None:
    good = encoded(np.full(10, 1_000))
    for broken in ("", "!!", "AAAA", good[:-8]):
        assert figures.add_up([good, broken]) is None
    assert figures.add_up([]) is None


def test_phases_together_count_only_what_is_judged() -> None:
    stretches = [Stretch("warm-up", 50, 10, judged=False), Stretch("a", 100, 20),
                 Stretch("b", 200, 20)]  # fmt: skip
    total = figures.totals(made_run(stretches=stretches, errors={"5xx": 6}))
    assert total.count.sent == 6_000
    assert total.count.errors == {"5xx": 12}
    assert total.achieved_rate == pytest.approx((6_000 - 12) / 40)


def test_cpu_of_an_answer_is_the_cpu_time_by_the_right_answers() -> None:
    run = made_run(rate=200, seconds=60, cpu={"backend": 40.0})
    used = figures.totals(run).use["backend"]
    # 40 % of a CPU is 400 ms a second, for 200 answers.
    assert used.cpu_ms == pytest.approx(2.0, rel=0.02)
    assert used.cpu_max is not None and used.cpu_mean is not None
    assert used.cpu_max >= used.cpu_mean


def test_a_container_that_was_hardly_watched_has_no_figures() -> None:
    run = made_run(seconds=60)
    run.samples = run.samples[:40]
    used = figures.totals(run).use["backend"]
    assert used.cpu_mean is None and used.memory_max is None


def test_restarts_and_oom_kills_are_those_of_the_run() -> None:
    run = made_run(seconds=20)
    for number, sample in enumerate(run.samples):
        part = sample.containers["backend"]
        changed = part.model_copy(update={"restarts": 3 + (number > 10), "oom_kills": 7})
        run.samples[number] = sample.model_copy(
            update={"containers": sample.containers | {"backend": changed}}
        )
    used = figures.totals(run).use["backend"]
    assert (used.restarts, used.oom_kills) == (1, 0)


def test_the_load_average_leaves_out_what_was_before_the_phase() -> None:
    run = made_run(seconds=120, load=0.5)
    host = run.samples[3].host.model_copy(update={"load1": 9.0})
    run.samples[3] = run.samples[3].model_copy(update={"host": host})
    assert figures.totals(run).load_max == pytest.approx(0.5, abs=0.05)


def test_a_phase_without_a_single_answer_has_no_percentiles() -> None:
    phase = Phase(name="x", mode="open", began=0, seconds=1, achieved_rate=0, sent_rate=0)
    assert figures.added([phase, phase]).latency.p50 is None
    assert figures.curve(None) == []
