"""A release that comes up healthy and does not work: the smoke tests notice, it is taken back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from koprogo_deploy import remote
from tests.integration.rig import Rig, Run, Watch, instead_of, said

# Well while it is asked directly, by thirteen requests; of those after them some are answered 500.
# A release of its own each time: one that was taken back stays marked.
BROKEN = {"STANDIN_FAULTS": "errors_percent=7", "TEST_RUN": str(time.time_ns())}


def test_release_that_fails_its_smoke_tests_is_taken_back(rig: Rig) -> None:
    before, started = rig.manifest()["id"], rig.started()
    with Watch(rig) as watch:
        run = rig.deploy(backend_environment=BROKEN)
    assert run.code == 1, run.output
    assert "Traceback" not in run.output
    assert f"was taken back; {before} serves again" in run.output
    assert "FAILED tests/smoke/test_" in run.output, "which test failed is said"
    assert watch.failures == []
    written = remote.journal_of(rig.environment).runs[-1]
    assert (written["outcome"], written["unrouted_backend"]) == ("taken back", "passed")
    assert written["back_after"] < 2, "seconds from the verdict to Traefik's own word"
    print(f"{written['back_after']} s from the verdict until {before} served again")
    assert rig.manifest()["id"] == before
    assert {name: rig.started()[name] for name in started} == started, "nothing was restarted"
    assert rig.deploy(deploy="verify").code == 0


def test_it_is_not_deployed_again_as_it_is(rig: Rig) -> None:
    run = rig.deploy(backend_environment=BROKEN)
    assert run.code == 1, run.output
    assert "this very release was taken back: smoke tests failed" in run.output
    assert "Starting operation: Migrate" not in run.output


@pytest.mark.slow
def test_another_release_is_deployed_as_ever(rig: Rig) -> None:
    run = rig.deploy(backend_log_level="error")
    assert run.code == 0, run.output
    rig.converge()
    assert rig.leftovers() == []


@pytest.mark.slow
def test_changed_routes_and_a_changed_traefik_are_taken_back_too(rig: Rig) -> None:
    before = rig.manifest()
    # Nobody's address is listed: the load client's, which is ours, is limited at once.
    run = rig.deploy(
        load_client_addresses=["203.0.113.1"],
        login_limit_per_minute=1,
        rate_limit_burst=400 + time.time_ns() % 10000,
        traefik_memory="96MB",
    )
    assert run.code == 1, run.output
    assert "was taken back" in run.output
    traefik = rig.containers()["traefik"]["Config"]["Labels"]["koprogo.spec"]
    assert traefik == before["specs"]["traefik"]
    assert rig.deploy(deploy="verify").code == 0
    rig.converge()
    assert rig.leftovers() == []


# A disk that is 90 % full, for who asks in this way alone: the smoke tests.
FULL = """\
case "$*" in
  "-P /") /usr/bin/df -P / | sed 's/ [0-9]*%/ 90%/' ;;
  *) exec /usr/bin/df "$@" ;;
esac
"""


@pytest.mark.slow
def test_a_host_that_is_not_well_takes_no_release_back(rig: Rig) -> None:
    """Neither a deploy nor a rollback: the release counts, and the run fails at its end."""
    before = rig.converge() and rig.manifest()["id"]
    values = {"TEST_RUN": f"{time.time_ns()}"}
    with instead_of(rig, "df", FULL), Watch(rig) as watch:
        run = rig.deploy(backend_environment=values)
        new, written = rig.manifest()["id"], remote.journal_of(rig.environment).runs[-1]
        again = rig.deploy(backend_environment=values)
        back = rig.deploy(deploy="rollback", reason="a test")
        last, there = rig.manifest()["id"], remote.journal_of(rig.environment).runs[-1]
    assert run.code == 1, run.output
    assert "Traceback" not in run.output
    assert "the host is not well: test_disk_has_room" in run.output
    assert "taken back" not in run.output
    assert new != before, "it counts"
    assert (written["outcome"], written["serves"]) == ("deployed", new)
    assert written["reason"] == "the host is not well: test_disk_has_room"
    assert again.code == 1, again.output
    assert again.changed == [], "nothing was left half done"
    assert back.code == 1, back.output
    assert (there["outcome"], there["serves"]) == ("rolled back", last)
    assert last == before
    marks = rig.on_host(f"cd /opt/koprogo/releases; cat {new}/bad {before}/bad 2>/dev/null; true")
    assert marks.startswith("rolled back by ")
    assert len(marks.splitlines()) == 1
    assert watch.failures == []
    assert rig.deploy(deploy="verify").code == 0
    rig.converge()
    assert rig.leftovers() == []


# Traefik's answers about a backend of this colour come to nobody.
SILENT = """\
case "$*" in
  */http/services/*) /usr/bin/curl "$@" | grep -v 'backend-COLOUR' ;;
  *) exec /usr/bin/curl "$@" ;;
esac
"""


@pytest.mark.slow
def test_any_step_that_fails_after_the_switch_takes_the_release_back(rig: Rig) -> None:
    """Here the switch's own last word: the routes were replaced, and Traefik does not say so."""
    before = rig.manifest()
    new = "green" if before["colours"]["backend"] == "blue" else "blue"
    values = {"TEST_RUN": f"{time.time_ns()}"}
    with Watch(rig) as watch:
        with instead_of(rig, "curl", SILENT.replace("COLOUR", new)):
            run = rig.deploy(backend_environment=values)
        again = rig.deploy(backend_environment=values)
    assert run.code == 1, run.output
    assert "Traceback" not in run.output
    assert "Traefik does not serve backend from " in run.output
    assert f"was taken back; {before['id']} serves again" in run.output
    assert "Starting operation: Verify" not in run.output
    assert watch.failures == []
    assert rig.routed()["id"] == rig.manifest()["id"] == before["id"]
    written = remote.journal_of(rig.environment).runs[-1]
    told = (written["outcome"], written["step"], written["serves"])
    assert told == ("taken back", "Cut over | Switch to the release", before["id"])
    mark = rig.on_host(f"cat /opt/koprogo/releases/{written['release']}/bad")
    assert mark.endswith(" UTC at Cut over | Switch to the release\n")
    assert again.code == 1
    assert "this very release was taken back: failed " in again.output
    assert rig.converge().changed == ["Settle | Let the release count"]
    assert rig.leftovers() == []


def while_it_verifies(rig: Rig, disturb: Callable[[], object], **data: Any) -> Run:
    """A deploy that is disturbed as soon as it verifies the release it has switched to."""
    process = rig.start(**data)
    lines = said(process, "Starting operation: Verify")
    disturb()
    rest, _ = process.communicate()
    return Run(process.returncode, "".join(lines) + rest)


@pytest.mark.slow
def test_what_was_kept_warm_and_ended_meanwhile_is_started_before_it_serves_again(rig: Rig) -> None:
    rig.converge()
    before = rig.manifest()
    old = f"koprogo-backend-{before['colours']['backend']}-1"
    broken = {**BROKEN, "TEST_RUN": f"{time.time_ns()}"}
    run = while_it_verifies(
        rig, lambda: rig.on_host(f"docker kill {old}"), backend_environment=broken
    )
    assert run.code == 1, run.output
    assert f"was taken back; {before['id']} serves again" in run.output
    assert rig.routed()["id"] == rig.manifest()["id"] == before["id"]
    assert rig.deploy(deploy="verify").code == 0
    rig.converge()
    assert rig.leftovers() == []


@pytest.mark.slow
def test_where_nothing_is_left_to_go_back_to_the_new_release_serves_on(rig: Rig) -> None:
    """The database has a migration that no image knows: what is started on it ends at once."""
    rig.converge()
    before = rig.manifest()
    old = f"koprogo-backend-{before['colours']['backend']}-1"
    values = {"TEST_RUN": f"{time.time_ns()}"}
    unknown = 29990101000000

    def disturb() -> None:
        rig.sql(f"INSERT INTO _sqlx_migrations VALUES ({unknown}, 'x', now(), true, '\\x00', 0);")
        rig.on_host(f"docker kill {old}")

    try:
        with Watch(rig) as watch:
            run = while_it_verifies(rig, disturb, backend_environment=values)
        routed, written = rig.routed()["id"], remote.journal_of(rig.environment).runs[-1]
    finally:
        rig.sql(f"DELETE FROM _sqlx_migrations WHERE version = {unknown};")
    assert run.code == 1, run.output
    assert "Traceback" not in run.output
    assert f"serves on nevertheless, and is not marked as bad, for {before['id']}" in run.output
    assert routed == written["release"] == written["serves"] != before["id"]
    assert (written["outcome"], written["step"]) == ("failed", "Verify | Run the smoke tests")
    assert "cannot serve again: backend-" in written["reason"]
    assert watch.failures == [], "requests go to what answers"
    again = rig.deploy(backend_environment=values)
    assert again.code == 0, again.output
    assert rig.manifest()["id"] == routed, "it counts, now that its smoke tests pass"
    rig.converge()
    assert rig.leftovers() == []
