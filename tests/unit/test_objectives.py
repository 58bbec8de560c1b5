"""The gate: each objective can be missed, and is named with by how much and what was busy then.

What could not be read is a miss, and so is a run that its generator held up.
"""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from koprogo_deploy import figures
from koprogo_deploy.objectives import busy_at, judge
from koprogo_deploy.runs.model import Judgement, Run, Verdict
from koprogo_deploy.runs.sample import Sample
from tests.made_runs import Stretch, made_run
from tests.project import settings

SETTINGS = settings("sandbox")
GOOD = made_run()
OBJECTIVES = {
    "rate", "p99", "p50", "errors", "backend_memory", "postgres_memory", "traefik_memory",
    "load_average",
}  # fmt: skip


def verdict(run: Run, **changes: Any) -> Verdict:
    return judge(run, settings("sandbox", **changes) if changes else SETTINGS)


def missed(found: Verdict) -> dict[str, Judgement]:
    return {one.name: one for one in found.judgements if not one.met}


def changed(run: Run, **parts: Any) -> Run:
    """The run with every sample's parts replaced by what the functions make of them."""
    run.samples = [
        sample.model_copy(update={name: change(sample) for name, change in parts.items()})
        for sample in run.samples
    ]
    return run


def without(container: str, attribute: str) -> Any:
    def change(sample: Sample) -> dict[str, Any]:
        part = sample.containers[container].model_copy(update={attribute: None})
        return sample.containers | {container: part}

    return change


def test_a_healthy_run_passes_and_every_objective_was_judged() -> None:
    found = verdict(made_run())
    assert found.passed and not found.problems
    assert {one.name for one in found.judgements} == OBJECTIVES | {"goal_p99"}
    assert all(one.by is not None and one.by < 0 and not one.busy for one in found.judgements)


# --- each objective, missed ----------------------------------------------------------------------
def test_too_few_right_answers() -> None:
    found = verdict(made_run(rate=150))
    assert not found.passed and set(missed(found)) == {"rate"}
    rate = missed(found)["rate"]
    assert (rate.measured, rate.wanted, rate.by) == ("150 req/s", "> 200 req/s", 25.0)
    assert rate.busy.startswith("CPU ")


def test_wrong_answers_do_not_count_as_achieved() -> None:
    found = verdict(made_run(rate=220, errors={"4xx": 4000}))
    assert missed(found)["rate"].value == pytest.approx(220 - 4000 / 180, abs=0.1)


def test_a_slow_tail() -> None:
    found = verdict(made_run(slow_seconds=dict.fromkeys(range(60, 66), 60.0), cpu={"postgres": 66}))
    assert set(missed(found)) == {"p99", "goal_p99"}
    p99 = missed(found)["p99"]
    assert p99.value is not None and p99.value > 100
    assert p99.by == pytest.approx(p99.value - 100, abs=0.1)
    assert "postgres 6" in p99.busy


def test_a_slow_median() -> None:
    found = verdict(made_run(p50=31, spread=0.1))
    assert {"p50", "goal_p99"} == set(missed(found))
    assert missed(found)["p50"].wanted == "< 30 ms"


def test_errors_are_named_by_kind() -> None:
    found = verdict(made_run(errors={"5xx": 400, "timeout": 100}))
    assert set(missed(found)) == {"errors"}
    errors = missed(found)["errors"]
    assert errors.measured == "1.26%"
    assert errors.by == pytest.approx(26.3, abs=0.1)
    assert errors.busy.startswith("400 × 5xx, 100 × timeout; CPU ") or errors.busy.startswith(
        "100 × timeout, 400 × 5xx; CPU "
    )


@pytest.mark.parametrize(
    ("service", "wanted", "held"),
    [("backend", "< 128 MB", 130), ("postgres", "< 512 MB", 520), ("traefik", "< 75 MB", 78)],
)
def test_memory_that_a_service_should_not_use(service: str, wanted: str, held: float) -> None:
    found = verdict(made_run(memory={service: held}, cpu={service: 44}))
    (miss,) = missed(found).values()
    assert (miss.name, miss.wanted) == (f"{service}_memory", wanted)
    assert miss.measured == f"{held:.0f} MB"
    assert f"{service} 4" in miss.busy, "what was busy when it was highest"


def test_a_high_load_average() -> None:
    found = verdict(made_run(load=2.6, cpu={"backend": 80}))
    (miss,) = missed(found).values()
    assert miss.name == "load_average" and miss.measured == "2.51" and miss.wanted == "< 2"
    assert re.search(r"backend [78]\d%", miss.busy)


# --- boundaries ----------------------------------------------------------------------------------
def at_p99(value: float) -> Judgement:
    run = GOOD.model_copy(deep=True)
    run.phases[0].latency.p99 = value
    return next(one for one in verdict(run).judgements if one.name == "p99")


def test_a_value_at_its_bound_has_missed_it() -> None:
    assert not at_p99(100.0).met and at_p99(100.0).by == 0
    assert at_p99(99.9).met
    assert not at_p99(100.1).met


def test_what_is_shown_never_contradicts_the_verdict() -> None:
    assert at_p99(100.2).measured == "100.2 ms"
    assert at_p99(99.996).measured == "99.996 ms"
    found = verdict(made_run(memory={"backend": 128.3}))
    assert missed(found)["backend_memory"].measured == "128.3 MB"


def test_environments_have_objectives_of_their_own() -> None:
    run = made_run(memory={"traefik": 60})
    assert verdict(run).passed
    found = verdict(run, objective_traefik_memory="50MB")
    assert missed(found)["traefik_memory"].by == pytest.approx(20, abs=0.1)


# --- what could not be read, and what is no measurement ------------------------------------------
@pytest.mark.parametrize("service", ["backend", "postgres", "traefik"])
def test_memory_that_could_not_be_read_is_a_miss_with_its_reason(service: str) -> None:
    run = changed(
        made_run(),
        containers=without(service, "memory"),
        unread=lambda s: {
            f"containers.{service}.memory": "no such cgroup",
            f"containers.{service}.cpu_percent": "another reason",
            "containers.frontend.memory": "not asked for",
        },
    )
    found = verdict(run)
    assert not found.passed
    (miss,) = missed(found).values()
    assert miss.name == f"{service}_memory" and miss.value is None
    assert miss.measured == "could not be read: no such cgroup (read in 0 of 180 s)"


def test_a_load_average_that_could_not_be_read_is_a_miss() -> None:
    run = changed(
        made_run(),
        host=lambda s: s.host.model_copy(update={"load1": None}),
        unread=lambda s: {"host": "SSH ended"},
    )
    assert missed(verdict(run))["load_average"].measured.startswith("could not be read: SSH ended")


def test_a_value_read_now_and_then_was_not_watched() -> None:
    run = made_run()
    run.samples = run.samples[::2]
    found = verdict(run)
    assert set(missed(found)) == {
        "backend_memory", "postgres_memory", "traefik_memory", "load_average",
    }  # fmt: skip
    assert "read in 90 of 180 s" in missed(found)["backend_memory"].measured


def test_without_a_monitor_nothing_of_the_host_is_ok() -> None:
    found = verdict(made_run(monitor=False, monitor_problem="SSH was refused"))
    assert not found.passed and "monitor: SSH was refused" in found.problems
    assert set(missed(found)) >= {"backend_memory", "load_average"}


def test_no_answer_at_all_is_no_success() -> None:
    run = made_run(rate=0, seconds=60)
    found = verdict(run)
    assert not found.passed
    for name in ("p99", "p50", "errors"):
        assert missed(found)[name].measured == "nothing was answered"


def test_an_invalid_run_fails_though_every_figure_is_good() -> None:
    found = verdict(made_run(invalid=["its CPU was at 99%"]))
    assert not found.passed and not missed(found)
    assert found.problems == ["invalid run: its CPU was at 99%"]


def test_an_interrupted_run_fails() -> None:
    found = verdict(made_run(interrupted=True))
    assert not found.passed and found.problems == ["the run was interrupted"]


def test_a_run_in_which_nothing_is_judged_does_not_pass() -> None:
    found = verdict(made_run(stretches=[Stretch("warm-up", 220, 60, judged=False)]))
    assert not found.passed and found.problems == ["nothing was judged: no such phase"]


@pytest.mark.parametrize("what", ["oom_kills", "restarts"])
def test_a_service_that_was_killed_or_restarted_has_no_known_memory(what: str) -> None:
    run = made_run()
    for number, sample in enumerate(run.samples[100:], start=100):
        part = sample.containers["backend"].model_copy(update={what: 1})
        containers = sample.containers | {"backend": part}
        run.samples[number] = sample.model_copy(update={"containers": containers})
    (miss,) = missed(verdict(run)).values()
    assert miss.name == "backend_memory" and miss.value is None
    assert miss.measured.startswith("unknown: it was killed or restarted 1 ×, with 2")


# --- which phases, which seconds -----------------------------------------------------------------
def test_a_warm_up_is_not_judged() -> None:
    stretches = [Stretch("warm-up", 50, 10, judged=False), Stretch("realistic", 220, 90)]
    slow = dict.fromkeys(range(10), 100.0)
    assert verdict(made_run(stretches=stretches, slow_seconds=slow)).passed


def test_the_worst_of_several_phases_counts_not_their_mean() -> None:
    stretches = [Stretch("a", 220, 60), Stretch("b", 220, 60)]
    slow = dict.fromkeys(range(60, 120), 12.0)
    assert "p50" in missed(verdict(made_run(stretches=stretches, slow_seconds=slow)))
    uneven = [Stretch("a", 300, 60), Stretch("b", 150, 60)]
    assert missed(verdict(made_run(stretches=uneven)))["rate"].value == 150


def test_the_load_of_before_is_not_held_against_the_phase() -> None:
    run = made_run()
    host = run.samples[5].host.model_copy(update={"load1": 9.0})
    run.samples[5] = run.samples[5].model_copy(update={"host": host})
    assert verdict(run).passed
    run.samples[90] = run.samples[90].model_copy(update={"host": host})
    assert set(missed(verdict(run))) == {"load_average"}


def test_samples_are_set_against_the_run_by_the_clocks_offset() -> None:
    assert verdict(made_run(clock_offset=3600.0)).passed
    run = made_run(clock_offset=3600.0)
    run.clock_offset = 0.0
    assert "backend_memory" in missed(verdict(run)), "an hour away is not during the run"


def test_during_a_switch_each_colour_is_held_to_the_limit_by_itself() -> None:
    def two(megabytes: int) -> Run:
        def colours(sample: Sample) -> dict[str, Any]:
            part = sample.containers["backend"].model_copy(update={"memory": megabytes << 20})
            return sample.containers | {"backend": part, "backend-green": part}

        return changed(made_run(), containers=colours)

    assert verdict(two(100)).passed, "two of 100 MB are not one of 200"
    assert set(missed(verdict(two(130)))) == {"backend_memory"}


def unseen(run: Run, began: float, ended: float) -> Run:
    """The run without the monitor's samples of these of its seconds."""
    run.samples = [s for s in run.samples if not began <= s.at - run.began <= ended]
    return run


@pytest.mark.parametrize("hole", [(90, 97), (173, 180), (-1, 7)])
def test_seconds_on_end_that_nobody_watched_are_a_miss(hole: tuple[float, float]) -> None:
    """It may have been worst just then, however well the rest of a long phase was watched."""
    found = missed(verdict(unseen(made_run(), *hole)))
    assert set(found) == {
        "backend_memory", "postgres_memory", "traefik_memory", "load_average",
    }  # fmt: skip
    assert "on end" in found["load_average"].measured
    assert verdict(unseen(made_run(), 90, 93)).passed, "one sample or three may fail"


@pytest.mark.parametrize(
    ("source", "before", "makes", "seconds", "judged"),
    [
        ("kernel", 0.0, 3.5, 40, 3.5),  # it shows 1.7 by then
        ("kernel", 0.5, 0.5, 40, 0.5),
        ("kernel", 3.5, 0.1, 40, 1.85),  # what was before is still in it: not held to be less
        ("kernel", 0.0, 3.5, 180, 3.35),  # a minute is over: what it says is what it is
        ("tasks", 0.0, 3.5, 40, 1.7),  # a box's counts nothing from before it is watched
    ],
)
def test_a_short_phase_is_judged_by_the_load_that_it_leads_to(
    source: str, before: float, makes: float, seconds: int, judged: float
) -> None:
    run = made_run(seconds=seconds)

    def host(sample: Sample) -> Any:
        passed = sample.at - run.began
        now = makes + (before - makes) * math.exp(-passed / 60)
        return sample.host.model_copy(update={"load1": now, "load_source": source})

    found = {one.name: one for one in verdict(changed(run, host=host)).judgements}
    value = found["load_average"].value
    assert value == pytest.approx(judged, abs=0.1)
    assert figures.totals(run).load_max == value, "the report says the same"


# --- our own goals -------------------------------------------------------------------------------
def test_the_tighter_p99_is_judged_at_the_rate_it_is_for() -> None:
    found = verdict(made_run(rate=220, p50=5))
    (miss,) = missed(found).values()
    assert miss.name == "goal_p99" and miss.ours and miss.wanted == "< 10 ms"
    assert "goal_p99" not in {one.name for one in verdict(made_run(rate=400)).judgements}


def test_at_600_none_of_the_objectives_may_be_missed() -> None:
    good = verdict(made_run(rate=600, cpu=dict.fromkeys(("backend", "postgres", "traefik"), 25)))
    goal = next(one for one in good.judgements if one.name == "goal_rate")
    assert good.passed and goal.ours and goal.label == "All at 600 req/s"
    slow = verdict(made_run(rate=600, p50=31, spread=0.1))
    goal = missed(slow)["goal_rate"]
    assert goal.measured == "600 req/s, missed: P50" and goal.busy
    assert goal.by is None, "the rate itself was met: by how much is the P50's to say"
    assert "goal_rate" not in {one.name for one in verdict(made_run(rate=500)).judgements}


def test_600_asked_and_a_hundredth_not_achieved_is_a_miss() -> None:
    run = made_run(rate=600, seconds=70, cpu={"backend": 30})
    run.phases[0].achieved_rate = 595
    assert verdict(run).passed
    run.phases[0].achieved_rate = 594
    assert set(missed(verdict(run))) == {"goal_rate"}


def test_a_closed_loop_asks_for_no_rate_and_has_no_goals() -> None:
    found = verdict(made_run(mode="closed"))
    assert {one.name for one in found.judgements} == OBJECTIVES


# --- what was busy -------------------------------------------------------------------------------
def test_what_was_busy_names_quotas_faults_locks_and_disks() -> None:
    run = made_run()

    def containers(sample: Sample) -> dict[str, Any]:
        part = sample.containers["traefik"].model_copy(
            update={"throttled_ms": 310.0, "major_faults": 420.0}
        )
        return sample.containers | {"traefik": part}

    def host(sample: Sample) -> Any:
        disk = sample.host.disks["sda"].model_copy(update={"busy_percent": 93.0})
        return sample.host.model_copy(update={"disks": {"sda": disk}})

    changed(
        run,
        containers=containers,
        host=host,
        postgres=lambda s: s.postgres.model_copy(update={"waiting": 3}),
    )
    said = busy_at(run, [60.0])
    for part in (
        "traefik throttled 310 ms/s", "traefik 420 major faults/s", "disk sda 93% busy",
        "3 sessions waiting for locks",
    ):  # fmt: skip
        assert part in said


def test_nothing_seen_is_not_the_same_as_nothing_busy() -> None:
    assert busy_at(made_run(monitor=False), [10.0]) == "nothing was watching then"
    idle = made_run(seconds=20, rate=0, cpu=dict.fromkeys(("backend", "postgres", "traefik"), 0.0))
    assert busy_at(idle, [10.0]) == "CPU 4%"
