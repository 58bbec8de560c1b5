"""A deploy cut off in the middle: the site serves, and the next run ends what was begun.

Where it is cut is enumerated: each step of a run as it begins, and those that change something
also in their midst. A sample is part of `make test`, all of it of `make test-faults`.
"""

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
VERIFY = "Verify | Run the smoke tests"
MUTATING = (PUSH, BACKEND, FRONTEND, SWITCH, SETTLE)

SAMPLE = [
    ("killed", BACKEND, 0.5),
    ("cut", SWITCH, 0.3),
]
HOW = ("killed", "cut")
MIDST = [
    ("killed", SETTLE, 0.1),
    ("killed", PUSH, 0.2),
    ("cut", BACKEND, 0.5),
    ("killed", FRONTEND, 0.3),
    ("killed", SWITCH, 0.1),
] + [
    (how, operation, delay)
    for operation in (*MUTATING, VERIFY)
    for how in HOW
    for delay in (0.4, 1.2)
    if (how, operation, delay) not in SAMPLE
]
# Steps of a run are found by looking; a test says if there are more than this.
MOST_STEPS = 30
RESETS = (BACKEND, FRONTEND, SWITCH, VERIFY, SETTLE)


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
    # A second or more later a quick machine may be done, and the last step is one of milliseconds.
    assert cut.code != 0 or delay > 1 or operation.startswith("Record | "), cut.output
    assert run.code == 0, f"{cut.output[-1500:]}\n--- the next run\n{run.output[-5000:]}"
    assert watch.failures == []
    assert rig.manifest()["id"] != before
    assert rig.leftovers() == []
    assert rig.deploy("--dry", **data).would_change == []


@pytest.fixture(scope="module")
def steps(rig: Rig) -> list[str]:
    """Every step of a run, in its order."""
    return rig.deploy("--dry", **CHANGE).asked


def test_points_are_all_the_mutating_ones(rig: Rig) -> None:
    assert rig.deploy("--dry", **CHANGE).would_change == list(MUTATING)


def test_every_step_is_a_point(steps: list[str]) -> None:
    assert {*MUTATING, VERIFY} <= set(steps)
    assert len(steps) <= MOST_STEPS, "a longer road: raise MOST_STEPS"
    assert len(HOW) * len(steps) + len(MIDST) + len(SAMPLE) >= 20


@pytest.mark.parametrize(("how", "operation", "delay"), SAMPLE)
def test_next_run_converges(changed: Rig, how: str, operation: str, delay: float) -> None:
    check(changed, how, operation, delay)


@pytest.mark.faults
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


@pytest.fixture
def pushed(changed: Rig) -> Rig:
    """The rig; a run was killed after its backend was up, and none of its release ever served."""
    changed.converge()
    interrupted(changed, CHANGE, "killed", FRONTEND, 0.0)
    assert "candidate" in changed.leftovers()
    return changed


@pytest.mark.slow
def test_a_release_that_never_served_does_not_count_by_asking_for_it(pushed: Rig) -> None:
    rig, before = pushed, pushed.manifest()["id"]
    containers = {name: found["Id"] for name, found in rig.containers().items()}
    with Watch(rig) as watch:
        run = rig.deploy(deploy="settle")
    assert run.code == 1, run.output
    assert "does not count yet, for requests do not go to it; nothing was removed" in run.output
    assert watch.failures == []
    assert rig.manifest()["id"] == before
    assert {name: found["Id"] for name, found in rig.containers().items()} == containers
    assert rig.converge(**CHANGE).changed != []
    assert rig.leftovers() == []


@pytest.mark.slow
def test_going_back_to_what_serves_lets_go_what_never_did(pushed: Rig) -> None:
    rig, before = pushed, pushed.manifest()["id"]
    started = {name: found["State"]["StartedAt"] for name, found in rig.containers().items()}
    with Watch(rig) as watch:
        run = rig.deploy(deploy="rollback", release=before)
    assert run.code == 0, run.output
    assert watch.failures == []
    assert rig.manifest()["id"] == before
    assert rig.leftovers() == []
    for name, found in rig.containers().items():
        assert found["State"]["StartedAt"] == started[name], name
    assert not rig.on_host(f"ls /opt/koprogo/releases/{before} | grep -x bad; true")
    assert rig.deploy("--dry").would_change == []


@pytest.mark.slow
def test_a_restore_leaves_what_never_served_out_of_the_data(pushed: Rig) -> None:
    """Its backend would come up on what is restored, and migrate it."""
    rig, before = pushed, pushed.manifest()["id"]
    names = container_names(rig.manifest()["colours"])
    made = rig.deploy(deploy="backup")
    assert made.code == 0, made.output
    run = rig.deploy(deploy="restore", backup="latest")
    dropped = rig.deploy(deploy="restore", backup="drop_old")
    assert run.code == 0, run.output
    assert "Restore | Let go what a cut run left" in run.changed
    assert dropped.code == 0, dropped.output
    assert rig.manifest()["id"] == before
    status = {name: found["State"]["Status"] for name, found in rig.containers().items()}
    assert {name for name in status if status[name] == "running"} == set(names.values())
    assert set(rig.leftovers()) == set(status) - set(names.values()), "its logs stay"
    rig.converge()
    assert rig.leftovers() == []


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


@pytest.mark.faults
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("number", range(MOST_STEPS))
def test_next_run_converges_from_the_beginning_of_each_step(
    changed: Rig, steps: list[str], number: int, how: str
) -> None:
    if number >= len(steps):
        pytest.skip(f"a run has {len(steps)} steps")
    check(changed, how, steps[number], 0.0)


@pytest.mark.faults
@pytest.mark.parametrize(("how", "operation", "delay"), MIDST)
def test_next_run_converges_from_the_midst_of_a_step(
    changed: Rig, how: str, operation: str, delay: float
) -> None:
    check(changed, how, operation, delay)


@pytest.mark.faults
@pytest.mark.parametrize("operation", RESETS)
def test_hard_reset_leaves_one_of_the_two_releases_whole(changed: Rig, operation: str) -> None:
    data = other(changed)
    changed.hang_up()
    process = changed.start(**data)
    assert process.stdout
    for line in process.stdout:
        if f"Starting operation: {operation}" in line:
            break
    time.sleep(0.2)
    changed.reboot(hard=True)
    try:
        process.communicate(timeout=90)
    finally:
        end(process)
    changed.wait_for_ssh()
    changed.wait_for_site(within=90)
    changed.wait_until_healthy(within=60, only=container_names(changed.routed()["colours"]))
    run = changed.deploy(**data)
    assert run.code == 0, run.output
    assert changed.leftovers() == []
    assert changed.deploy("--dry", **data).would_change == []
