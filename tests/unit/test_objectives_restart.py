"""A container that is killed at its limit never shows more memory than that: the gate sees it."""

from __future__ import annotations

from typing import Any

import pytest

from koprogo_deploy import objectives
from koprogo_deploy.runs.model import Judgement, Run
from koprogo_deploy.units import MB
from tests.made_runs import Stretch, made_run
from tests.project import settings


def with_backend(run: Run, changes: dict[int, dict[str, Any]]) -> Run:
    """A run whose backend has other values from these seconds on."""
    changed: dict[str, Any] = {}
    samples = []
    for second, sample in enumerate(run.samples):
        changed |= changes.get(second, {})
        backend = sample.containers["backend"].model_copy(update=changed)
        containers = {**sample.containers, "backend": backend}
        samples.append(sample.model_copy(update={"containers": containers}))
    return run.model_copy(update={"samples": samples})


def judged(run: Run) -> Judgement:
    verdict = objectives.judge(run, settings())
    found = {judgement.name: judgement for judgement in verdict.judgements}
    assert found["postgres_memory"].met, "only the backend"
    return found["backend_memory"]


def test_a_backend_that_lives_on_is_judged_by_its_memory() -> None:
    judgement = judged(with_backend(made_run(seconds=30), {0: {"oom_kills": 3, "restarts": 2}}))
    assert judgement.met, "what was before the run is no part of it"


@pytest.mark.parametrize(
    ("then", "shown"),
    [
        ({"oom_kills": 1}, "killed or restarted 1 ×"),
        ({"restarts": 2, "memory": 30 * MB}, "killed or restarted 2 ×"),
    ],
)
def test_one_that_died_meanwhile_is_missed_at_whatever_it_was_last_seen(
    then: dict[str, Any], shown: str
) -> None:
    run = with_backend(
        made_run(seconds=30),
        {
            0: {"memory": 118 * MB, "memory_limit": 128 * MB, "oom_kills": 0, "restarts": 0},
            20: then,
        },
    )
    judgement = judged(run)
    assert not judgement.met
    assert judgement.value is None
    assert shown in judgement.measured
    assert "with 118 MB of its 128 MB in use" in judgement.measured
    assert judgement.measured.startswith("unknown")


def test_counts_that_begin_anew_with_a_restart_are_no_kills_undone() -> None:
    run = with_backend(
        made_run(seconds=30),
        {0: {"oom_kills": 5, "restarts": 0}, 10: {"oom_kills": 0, "restarts": 1}},
    )
    assert "1 ×" in judged(run).measured


def test_a_warm_up_is_not_judged() -> None:
    stretches = [Stretch("warm-up", 110, 10, judged=False), Stretch("realistic", 220, 20)]
    run = made_run(stretches=stretches)
    assert judged(with_backend(run, {0: {"restarts": 0}, 5: {"restarts": 1}})).met
    assert not judged(with_backend(run, {0: {"restarts": 0}, 15: {"restarts": 1}})).met
