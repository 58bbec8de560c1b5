"""A deploy cut off in the middle: the site serves, and the next run ends what was begun."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from koprogo_deploy.render import container_names
from tests.integration.rig import Rig, Run, Watch, end

CHANGE: dict[str, Any] = {"frontend_memory": "40MB", "backend_log_level": "error"}
PUSH = "Release | Push the release"
BACKEND = "Migrate | Start the backend unrouted and verify its migrations"
FRONTEND = "Cut over | Run frontend and Traefik"
SWITCH = "Cut over | Switch to the release"
SETTLE = "Settle | Let the release count"
MUTATING = (PUSH, BACKEND, FRONTEND, SWITCH, SETTLE)

SAMPLE = [
    ("killed", PUSH, 0.2),
    ("killed", BACKEND, 0.5),
    ("cut", BACKEND, 0.5),
    ("killed", FRONTEND, 0.3),
    ("killed", SWITCH, 0.1),
    ("cut", SWITCH, 0.3),
    ("killed", SETTLE, 0.1),
]
REST = [
    (how, operation, delay)
    for operation in (*MUTATING, "Host | Configure the host", "Verify | Run the smoke tests")
    for how in ("killed", "cut")
    for delay in (0.0, 0.4, 1.2)
    if (how, operation, delay) not in SAMPLE
]


@pytest.fixture(scope="module")
def changed(rig: Rig) -> Iterator[Rig]:
    """The rig; whatever release the tests end with, group data's serves in the end."""
    yield rig
    rig.converge()


def other(rig: Rig) -> dict[str, Any]:
    """Values that ask for another release than the serving one."""
    name = container_names(rig.manifest()["colours"])["frontend"]
    limit = rig.containers()[name]["HostConfig"]["Memory"]
    return CHANGE if limit == rig.environment.settings.frontend_memory else {}


def interrupted(rig: Rig, data: dict[str, Any], how: str, operation: str, delay: float) -> Run:
    """A deploy that is killed, or loses its connection, so long after an operation began."""
    rig.hang_up()  # our own commands' connection would be cut as well
    process = rig.start(**data)
    assert process.stdout
    said = []
    for line in process.stdout:
        said.append(line)
        if f"Starting operation: {operation}" in line:
            break
    time.sleep(delay)
    if how == "killed":
        end(process)
    else:
        rig.cut_ssh()
    began = time.monotonic()
    rest, _ = process.communicate(timeout=60)
    return Run(process.returncode, "".join(said) + rest, time.monotonic() - began)


def check(rig: Rig, how: str, operation: str, delay: float) -> None:
    data, before = other(rig), rig.manifest()["id"]
    with Watch(rig) as watch:
        cut = interrupted(rig, data, how, operation, delay)
        run = rig.deploy(**data)
    # A second or more later a quick machine may be done.
    assert cut.code != 0 or delay > 1, cut.output
    assert run.code == 0, f"{cut.output[-1500:]}\n--- the next run\n{run.output[-5000:]}"
    assert watch.failures == []
    assert rig.manifest()["id"] != before
    assert rig.leftovers() == []
    assert rig.deploy("--dry", **data).would_change == []


def test_points_are_all_the_mutating_ones(rig: Rig) -> None:
    assert rig.deploy("--dry", **CHANGE).would_change == list(MUTATING)


@pytest.mark.parametrize(("how", "operation", "delay"), SAMPLE)
def test_next_run_converges(changed: Rig, how: str, operation: str, delay: float) -> None:
    check(changed, how, operation, delay)


@pytest.mark.parametrize("operation", [BACKEND, SETTLE])
def test_usual_settings_take_the_place_of_what_was_cut_off(changed: Rig, operation: str) -> None:
    """Somebody cuts a deploy off, thinks better of it, and deploys what was there before."""
    changed.converge()
    interrupted(changed, CHANGE, "killed", operation, 1.0 if operation == BACKEND else 0.2)
    with Watch(changed) as watch:
        run = changed.deploy()
    assert run.code == 0, run.output
    assert watch.failures == []
    assert changed.leftovers() == []
    assert changed.deploy("--dry").would_change == []


@pytest.mark.slow
def test_network_that_goes_silent_ends_the_run(changed: Rig) -> None:
    """No packet comes back, not even one that ends the connection."""
    rule = ("-p", "tcp", "--sport", "22", "-j", "DROP")

    def firewall(verb: str) -> None:
        changed.docker.call("exec", changed.sandbox.vps, "iptables", verb, "OUTPUT", *rule)

    data = other(changed)
    changed.hang_up()
    with Watch(changed) as watch:
        process = changed.start(**data)
        assert process.stdout
        for line in process.stdout:
            if f"Starting operation: {BACKEND}" in line:
                break
        firewall("-I")
        try:
            output, _ = process.communicate(timeout=90)
        finally:
            end(process)
            firewall("-D")
        # The host notices by itself as well, a little later; until then its lock is held.
        run = changed.deploy(**data, lock_wait="3min")
    assert process.returncode == 1
    assert "no answer from the host" in output
    assert "Traceback" not in output
    assert run.code == 0, run.output
    assert watch.failures == []
    assert changed.leftovers() == []


@pytest.mark.slow
@pytest.mark.parametrize(("how", "operation", "delay"), REST)
def test_next_run_converges_from_anywhere(
    changed: Rig, how: str, operation: str, delay: float
) -> None:
    check(changed, how, operation, delay)
