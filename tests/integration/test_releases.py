"""Releases, rollbacks and bad releases under traffic of every sort: not one request is lost.

The sample is part of `make test`; the whole, ten releases and three rollbacks, of `make
test-faults`.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.rig import Rig, Run
from tests.integration.traffic import SLOW_RELEASE, Traffic, told, where

NOW = time.time_ns()
# What serves at the beginning of a run has no slow requests to give: give it a moment.
SETTLED = 7.0  # seconds, longer than any request of the traffic takes
# Through all the roads: what a rollback left is marked, and not released again.
NUMBERS = itertools.count(1)


def another(number: int) -> dict[str, Any]:
    """Values of a release of its own; every other one has a new frontend, too."""
    return {
        "backend_environment": {**SLOW_RELEASE, "TEST_RUN": f"{NOW}-{number}"},
        "frontend_memory": f"{36 + number // 2 % 2}MB",
    }


@pytest.fixture(scope="module")
def slow(rig: Rig) -> Iterator[Rig]:
    """The rig with a release whose backend can be slow; group data's serves in the end."""
    rig.converge(**another(0))
    yield rig
    rig.converge()
    assert rig.leftovers() == []


def nothing_lost(rig: Rig, traffic: Traffic, since: float, until: float) -> None:
    """Every request came back right, every write is there once, and long ones were under way."""
    print(told(traffic, under_way=traffic.under_way(since, until)))
    try:
        assert traffic.lost == []
        assert traffic.accounted(rig.sql) == []
        assert traffic.uploaded(rig.environment) == []
        assert min(traffic.under_way(since, until).values()) >= 1
        assert traffic.acknowledged.count > 50
    finally:
        traffic.clean(rig.sql, rig.on_host)


def released(rig: Rig, road: str) -> None:
    """A release for each D, a rollback for each R, under one traffic."""
    runs = []
    with Traffic(where(rig.environment)) as traffic:
        time.sleep(SETTLED)
        since = time.time()
        for way in road:
            before = rig.manifest()["id"]
            data = {"deploy": "rollback"} if way == "R" else another(next(NUMBERS))
            run = rig.deploy(**data)
            assert run.code == 0, run.output
            assert rig.manifest()["id"] != before
            runs.append(run)
        until = time.time()
    print(f"{road}: {', '.join(f'{run.seconds:.1f} s' for run in runs)}")
    nothing_lost(rig, traffic, since, until)
    assert rig.leftovers() == []


def test_a_release_and_a_rollback_lose_nothing(slow: Rig) -> None:
    released(slow, "DR")


# Ten releases and three rollbacks, under two traffics: each is minutes long.
ROADS = ("DDDRDD", "DDRDDDR")


@pytest.mark.faults
@pytest.mark.parametrize("road", ROADS)
def test_ten_releases_and_three_rollbacks_lose_nothing(slow: Rig, road: str) -> None:
    ways = "".join(ROADS)
    assert (ways.count("D"), ways.count("R")) == (10, 3)
    released(slow, road)


def fault(name: str) -> dict[str, Any]:
    values = {"STANDIN_FAULTS": f"slow_on_request,{name}", "TEST_RUN": f"{NOW}-{name}"}
    return {"backend_environment": values, "backend_start_timeout": "20s"}


def other_image(rig: Rig, ending: str) -> dict[str, Any]:
    repository = rig.environment.settings.backend_image.rpartition(":")[0]
    return {**another(0), "backend_image": repository + ending}


# What the message has to tell: what is wrong, and where to look.
LOG = r"Last lines of its log:\n(.*\] {5,}\S.*\n)+"
BAD: dict[str, tuple[str, ...]] = {
    "never healthy": (r"backend-\w+ did not come up: ", LOG),
    "crash loop": (r"backend-\w+ did not come up: ", LOG, "crash_loop"),
    "smoke fails": (r"gets no traffic: \S", r"docker logs"),
    "migration fails": (r"backend-\w+ did not come up: ", LOG, "Failed to run migrations: "),
    "image missing": (r"cannot pull \S+:no-such-tag", r"not found|manifest unknown"),
    "digest wrong": (r"\S+@sha256:0{64}", r"not found|manifest unknown"),
}
SAMPLE = ("smoke fails",)


def bad(rig: Rig, name: str) -> dict[str, Any]:
    match name:
        case "never healthy":
            return fault("never_healthy")
        case "crash loop":
            return fault("crash_loop")
        case "smoke fails":
            return fault("errors_percent=100")
        case "migration fails":
            return fault("migration_fails")
        case "image missing":
            return other_image(rig, ":no-such-tag")
        case _:
            return other_image(rig, f"@sha256:{'0' * 64}")


def refused(rig: Rig, name: str) -> Run:
    """A bad release under traffic: it ends with 1, says why, and nobody notices."""
    rig.converge(**another(0))  # a rollback may have left another one
    before, started = rig.manifest()["id"], rig.started()
    with Traffic(where(rig.environment)) as traffic:
        time.sleep(SETTLED)
        since = time.time()
        run = rig.deploy(**bad(rig, name))
        until = time.time()
        serving, now = rig.manifest()["id"], rig.started()
        good = rig.deploy(**another(0))
    assert run.code == 1, run.output
    assert "Traceback" not in run.output
    for words in BAD[name]:
        assert re.search(words, run.output), f"no {words!r} in\n{run.output}"
    assert serving == before
    # A new colour that was stopped is there for its log.
    assert {service: now[service] for service in started} == started, "something was restarted"
    assert good.code == 0, good.output
    print(f"{name}: refused after {run.seconds:.1f} s")
    nothing_lost(rig, traffic, since, until)
    assert rig.leftovers() == []
    assert rig.manifest()["id"] == before
    return run


@pytest.mark.parametrize("name", SAMPLE)
def test_a_bad_release_loses_nothing(slow: Rig, name: str) -> None:
    refused(slow, name)


@pytest.mark.faults
@pytest.mark.parametrize("name", [name for name in BAD if name not in SAMPLE])
def test_no_bad_release_loses_anything(slow: Rig, name: str) -> None:
    refused(slow, name)
