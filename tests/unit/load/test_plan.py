"""What a run will do, and what it refuses to."""

from __future__ import annotations

from typing import Any

import pytest

from koprogo_deploy.load import plan
from koprogo_deploy.load.plan import Options
from koprogo_deploy.load.profiles import PROFILES
from koprogo_deploy.problems import Problem
from koprogo_deploy.settings import Settings
from tests.project import settings


def planned(name: str, **given: Any) -> tuple[plan.PhasePlan, ...]:
    return plan.phases(PROFILES[name], Options(**given), 200)


def refused(settings: Settings | None, name: str = "realistic", **given: Any) -> list[str]:
    options = Options(**given)
    phases = plan.phases(PROFILES[name], options, 200)
    return [
        f"{problem.where}: {problem.what}"
        for problem in plan.problems(PROFILES[name], options, phases, settings)
    ]


def test_realistic_asks_for_a_little_more_than_the_objective() -> None:
    warm_up, realistic = planned("realistic")
    assert (warm_up.rate, warm_up.judged, warm_up.warm_up) == (100, False, True)
    assert realistic.rate == pytest.approx(220)
    assert (realistic.seconds, realistic.judged) == (180, True)


def test_rate_and_seconds_are_those_of_what_is_judged() -> None:
    warm_up, realistic = planned("realistic", rate=600, seconds=20)
    assert (warm_up.rate, warm_up.seconds) == (300, 10)
    assert (realistic.rate, realistic.seconds) == (600, 20)
    assert planned("realistic", seconds=3)[0].seconds == 3


def test_a_closed_loop_is_not_judged_and_becomes_an_open_one_with_a_rate() -> None:
    assert [phase.users for phase in planned("light")] == [10]
    assert not planned("light")[0].judged
    (light,) = planned("light", rate=220)
    assert (light.users, light.rate, light.judged) == (None, 220, True)
    (_, realistic) = planned("realistic", users=50)
    assert (realistic.users, realistic.rate, realistic.judged) == (50, None, False)


def test_spike_and_suite_have_the_guides_shapes() -> None:
    assert [(p.users, p.seconds) for p in planned("spike")] == [
        (10, 30), (50, 30), (200, 60), (50, 30), (10, 30),
    ]  # fmt: skip
    assert [(p.name, p.users, p.rate) for p in planned("suite")] == [
        ("warm-up", None, 50), ("light", 10, None), ("medium", 50, None), ("heavy", 100, None),
    ]  # fmt: skip
    assert planned("soak")[1].seconds == 1800


def test_every_user_of_a_closed_loop_has_a_connection() -> None:
    phases = planned("spike")
    assert plan.connections(PROFILES["spike"], Options(connections=5), phases) == 200
    assert plan.connections(PROFILES["realistic"], Options(), planned("realistic")) == 20
    options = Options(connections=7)
    assert plan.connections(PROFILES["realistic"], options, planned("realistic")) == 7


def test_the_sandbox_is_this_machine_and_nothing_else() -> None:
    assert refused(settings("sandbox")) == []
    away = settings("sandbox", public_address="203.0.113.9")
    assert refused(away) == ["public_address: 203.0.113.9 is not an address of this machine"]
    by_name = settings("sandbox", public_address=None)
    assert refused(by_name) == [
        "public_address: api.koprogo.localhost is not an address of this machine"
    ]


def test_production_only_with_its_name_typed() -> None:
    (problem,) = refused(settings())
    assert problem == "--on: production is no place for a load test without saying so"
    (problem,) = refused(settings(), on="produktion")
    assert problem == '--on: "produktion" is not production'
    assert refused(settings(), on="production") == []


def test_production_is_bounded_in_rate_and_time_and_every_reason_is_said() -> None:
    assert refused(settings(), on="production", rate=1001, seconds=600) == [
        "group_data/production.py: load_max_rate: 1001 requests a second are above 1000",
        "group_data/production.py: load_max_duration: a run of 610 s is above 600 s",
    ]
    assert refused(settings(), on="production", rate=1000, seconds=590) == []


def test_what_no_generator_can_send_is_refused_in_the_sandbox_too() -> None:
    assert refused(settings("sandbox"), rate=99999) == [
        "--rate: 99999 requests a second are more than this generator can send"
    ]
    assert refused(settings("sandbox"), rate=11000) == []
    steep = plan.phases(PROFILES["realistic"], Options(), 20000)
    (problem,) = plan.problems(PROFILES["realistic"], Options(), steep, settings("sandbox"))
    assert (problem.where, problem.fix) == ("objective_rate", "11000 or less")


def test_production_is_not_asked_as_fast_as_it_can() -> None:
    (problem,) = refused(settings(), name="heavy", on="production")
    assert "no bound on their rate" in problem


@pytest.mark.parametrize(
    ("given", "where"),
    [({"rate": 0}, "--rate"), ({"users": -1}, "--users"), ({"seconds": 0}, "--seconds"),
     ({"connections": 0}, "--connections"), ({"rate": 1, "users": 1}, "--rate, --users")],
)  # fmt: skip
def test_impossible_numbers_are_refused(given: dict[str, Any], where: str) -> None:
    assert [problem.partition(":")[0] for problem in refused(settings("sandbox"), **given)] == [
        where
    ]


def test_a_url_without_inventory_is_only_read_unless_rows_may_stay() -> None:
    given: dict[str, Any] = {
        "url": "http://127.0.0.1:9/", "logins": ("a@b.be",), "password": "x",
    }  # fmt: skip
    assert refused(None, **given) == ["--url: what is written could not be removed again"]
    assert refused(None, **given, keep=True) == []
    assert refused(None, "light", **given) == []


def test_a_url_elsewhere_needs_the_word_too_and_is_bounded() -> None:
    given: dict[str, Any] = {
        "url": "https://api.koprogo.be", "logins": ("a@b.be",), "password": "x", "rate": 1100,
        "seconds": 700,
    }  # fmt: skip
    assert refused(None, "soak", **given) == [
        "--on: api.koprogo.be is not this machine",
        "--rate: 1100 requests a second are above 1000",
        "--seconds: a run of 710 s is above 600 s",
    ]
    given |= {"rate": 10, "seconds": 60, "on": "api.koprogo.be"}
    assert refused(None, "soak", **given) == []


def test_a_url_needs_somebody_who_logs_in() -> None:
    assert refused(None, "light", url="http://localhost") == ["--login: no login for this URL"]
    assert refused(None, "light", url="http://localhost", logins=("a@b.be",)) == [
        "KOPROGO_LOAD_PASSWORD: no password of the login"
    ]
    assert refused(None, "light", url="localhost:80")[0].startswith("--url")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "api.koprogo.localhost"])
def test_this_machine(host: str) -> None:
    assert plan.is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "koprogo.be", "localhost.koprogo.be", "0.0.0.0"])
def test_not_this_machine(host: str) -> None:
    assert not plan.is_loopback(host)


def test_a_gate_needs_something_that_is_judged() -> None:
    assert plan.ungateable(planned("realistic"), "realistic") == []
    (problem,) = plan.ungateable(planned("heavy"), "heavy")
    assert "closed loops" in problem.what


def test_a_misspelt_profile_is_guessed() -> None:
    found = plan.profile_named("realstic")
    assert isinstance(found, Problem)
    assert found.fix == "did you mean realistic?"


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("3min", 180), ("2m", 120)])
def test_durations(text: str, seconds: int) -> None:
    assert plan.parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "3h", "-5", "1.5min"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="90s or 3min"):
        plan.parse_seconds(text)


def test_passwords_are_not_shown() -> None:
    assert "horse" not in repr(Options(password="right-horse"))
    assert "horse" not in repr(plan.Account("a@b.be", "right-horse"))
