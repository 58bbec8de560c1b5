"""The values of the page: unknown is not zero, old is not live, each reason is there."""

from __future__ import annotations

from typing import Any

import pytest

from koprogo_deploy.dashboard import view
from koprogo_deploy.dashboard.watch import Seen
from koprogo_deploy.facts.stack import Container, StackState
from koprogo_deploy.monitor import reading
from koprogo_deploy.runs.model import Judgement, Verdict
from koprogo_deploy.runs.sample import (
    ContainerSample,
    HostSample,
    PostgresSample,
    Sample,
    TraefikSample,
)
from koprogo_deploy.units import MB
from tests import made_runs, project
from tests.unit.dashboard.conftest import seeded

LIVE = Seen(1, 0.4, "")
MANIFEST: dict[str, Any] = {
    "id": "20261125T035220Z-ddc28e16", "made": "2026-11-25T03:52:20+00:00", "by": "ops@desk",
    "revision": "b5cda49", "hash": "ddc28e169989", "dynamic": "d1",
    "colours": {"backend": "green", "frontend": "blue"},
    "images": dict.fromkeys(("traefik", "postgres", "backend", "frontend"), "r/x@sha256:1"),
    "requested": dict.fromkeys(("traefik", "postgres", "backend", "frontend"), "r/x:1"),
}  # fmt: skip


def container(service: str, status: str = "running", health: str = "healthy") -> Container:
    return Container("id", service, "spec", status, health, "2026-11-25T03:52:22Z")


def tile(found: dict[str, object], name: str) -> dict[str, str]:
    tiles = found["tiles"]
    assert isinstance(tiles, list)
    return dict(tiles)[name]  # type: ignore[no-any-return]


def test_a_value_that_was_not_read_is_unknown_and_says_why() -> None:
    sample = Sample(
        at=1.0,
        containers={"backend": ContainerSample(cpu_percent=0.0)},
        unread={"traefik": "no answer on 8082", "containers.backend.memory": "no such cgroup"},
    )
    found = view.now(sample, LIVE)
    assert tile(found, "Requests") == {"text": "?", "level": "unknown", "why": "no answer on 8082"}
    assert tile(found, "Load average")["why"] == reading.NO_REASON
    backend = found["containers"][0]
    assert backend["cpu"] == {"text": "0.0%", "level": "normal", "why": ""}
    assert backend["level"] == "unknown"
    assert backend["memory"] == {"text": "?", "level": "unknown", "why": "no such cgroup"}
    assert "containers.backend.memory: no such cgroup" in found["unread"]
    assert "traefik: no answer on 8082" in found["unread"]
    assert found["unjudged"], "and all is not said to be well"


@pytest.mark.parametrize(
    ("read", "drawn"),
    [
        ({"idle": 8}, {"active": 0, "idle": 8, "idle in transaction": 0}),
        (
            {"active": 1, "disabled": 2},
            {"active": 1, "idle": 0, "idle in transaction": 0, "disabled": 2},
        ),
        (None, None),
    ],
)
def test_a_state_that_no_connection_is_in_is_zero(
    read: dict[str, int] | None, drawn: dict[str, int] | None
) -> None:
    """Postgres counts the states that there are: a gap in the line would say "unknown"."""
    sample = Sample(at=1.0, postgres=PostgresSample(connections=read))
    assert view.point(sample)["connections"] == drawn


def test_nothing_requested_is_zero_and_not_unknown() -> None:
    sample = Sample(at=1.0, traefik=TraefikSample(requests={}))
    assert tile(view.now(sample, LIVE), "Requests")["text"] == "0/s"


def test_values_carry_their_level_and_their_limit() -> None:
    part = ContainerSample(memory=70 * MB, memory_limit=80 * MB)
    sample = Sample(at=1.0, containers={"traefik": part}, host=HostSample(load1=3.4))
    found = view.now(sample, LIVE)
    assert found["findings"] == [
        ["raised", "traefik memory 70 MB (raised: > 60 MB)"],
        ["alert", "host load average 3.4 (alert: > 3)"],
    ]
    assert found["containers"][0]["memory"]["text"] == "70 MB of 80 MB"
    assert found["containers"][0]["memory"]["level"] == "raised"
    assert tile(found, "Load average") == {"text": "3.40", "level": "alert", "why": ""}


def test_before_the_first_sample_there_are_no_values() -> None:
    assert view.now(None, Seen(0, None, "connecting")) == {
        "live": False, "age": None, "problem": "connecting",
    }  # fmt: skip


def test_the_release_that_serves_with_what_is_wrong_with_it() -> None:
    state = StackState(
        docker=True, current=MANIFEST, releases=["20261124T000000Z-1", MANIFEST["id"]],
        containers={
            "traefik": container("traefik", health=""),
            "backend-green": container("backend-green", health="unhealthy"),
            "backend-blue": container("backend-blue", status="exited", health=""),
            "frontend-blue": container("frontend-blue"),
        },
        bad={"abc123": "smoke: certificate"},
    )  # fmt: skip
    found = view.release(state)
    health = {row["service"]: (row["good"], row["health"]) for row in found["services"]}
    assert health == {
        "traefik": (True, "running"),
        "postgres": (False, "there is no container"),
        "backend": (False, "unhealthy"),
        "frontend": (True, "healthy"),
    }
    assert found["services"][2]["colour"] == "green"
    assert found["others"] == [{"service": "backend-blue", "health": "exited"}]
    assert found["kept"] == [
        {"id": MANIFEST["id"], "serving": True}, {"id": "20261124T000000Z-1", "serving": False},
    ]  # fmt: skip
    assert found["bad"] == [{"hash": "abc123", "why": "smoke: certificate"}]


def test_an_empty_host_has_no_release() -> None:
    assert view.release(StackState())["serving"] is None


def test_the_objectives_are_the_environments_own() -> None:
    settings = project.settings("production", objective_p99="40ms", objective_traefik_memory="70MB")
    judged = [
        Judgement(
            name="p99", label="P99", met=False, wanted="< 100 ms", measured="120 ms",
            busy="backend 90%",
        )
    ]  # fmt: skip
    rows = {row["label"]: row for row in view.objectives(settings, judged)}
    assert rows["P99"]["wanted"] == "< 40 ms"
    assert (rows["P99"]["met"], rows["P99"]["measured"]) == (False, "120 ms")
    assert rows["P99"]["judged_by"] == "< 100 ms"  # the run was judged by another bound
    assert rows["Traefik memory"]["wanted"] == "< 70 MB"
    assert (rows["P50"]["met"], rows["P50"]["measured"]) == (None, "")


def test_a_row_of_a_run() -> None:
    run = made_runs.made_run(seconds=5)
    row = view.run_row(run)
    assert (row["id"], row["profile"]) == (run.id, run.profile)
    assert row["p99"] == max(p.latency.p99 or 0 for p in run.phases if p.judged)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (None, "not judged"),
        (Verdict(passed=True), "passed"),
        (Verdict(passed=False, problems=["monitor: lost"]), "monitor: lost"),
        (
            Verdict(
                passed=False,
                judgements=[
                    Judgement(name="p99", label="P99", met=False, wanted="", measured=""),
                    Judgement(name="p50", label="P50", met=True, wanted="", measured=""),
                ],
            ),
            "missed P99",
        ),
    ],
)
def test_a_verdict_in_words(verdict: Verdict | None, words: str) -> None:
    run = made_runs.made_run(seconds=5).model_copy(update={"verdict": verdict})
    assert view.verdict_words(run) == words


def test_a_run_that_was_held_up_or_cut_is_never_a_pass() -> None:
    run = made_runs.made_run(seconds=5).model_copy(update={"verdict": Verdict(passed=True)})
    slow = run.generator.model_copy(update={"valid": False})
    assert "invalid" in view.verdict_words(run.model_copy(update={"generator": slow}))
    assert view.verdict_words(run.model_copy(update={"interrupted": True})) == "interrupted"


def test_what_each_seed_button_would_do() -> None:
    settings = project.settings("sandbox")
    empty = view.seeded(seeded(), settings)
    assert (empty["cannot_generate"], empty["complete"]) == ("", False)
    assert empty["cannot_clear"] == "nothing seeded is there"
    there = view.seeded(seeded(organizations=3, buildings=23), settings)
    assert there["cannot_clear"] == ""
    assert there["counts"][:2] == [["organizations", 3], ["buildings", 23]]
