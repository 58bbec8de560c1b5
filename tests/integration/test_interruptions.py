"""A deploy cut off in the middle: the site serves, and the next run ends what was begun.

Where it is cut is enumerated: each step of a run as it begins, and those that change something
also in their midst. A sample is part of `make test`, all of it of `make test-faults`. Each cut is
shown to have interrupted something, and each in the midst of a step to have met that step.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from koprogo_deploy.render import container_names
from tests.integration.rig import Rig, Run, Watch, end, said

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
    ("cut", SWITCH, 0.1),
]
HOW = ("killed", "cut")
# How far into a step, of the time that it took when nothing was cut.
MIDST = [
    (how, operation, share)
    for operation in (*MUTATING, VERIFY)
    for how in HOW
    for share in (0.3, 0.7)
]
TRIES = 3
# The last ones do nothing on the host any more: a connection that is lost there interrupts nothing.
AFTER_ALL = ("Record | Find the host well",)
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


@dataclass(frozen=True)
class Cut(Run):
    """A run that was cut off, or was over before it could be."""

    @property
    def within(self) -> str:
        """The operation that was interrupted; empty if none was."""
        return self.begun[-1] if self.code != 0 else ""


def interrupted(rig: Rig, data: dict[str, Any], how: str, operation: str, delay: float) -> Cut:
    """A deploy that is killed, or loses its connection, so long after an operation began."""
    rig.hang_up()  # our own commands' connection would be cut as well
    process = rig.start(**data)
    lines = said(process, f"Starting operation: {operation}")
    time.sleep(delay)
    if how == "killed":
        end(process)
    else:
        # Held meanwhile: to find the connections takes longer than many a step.
        os.killpg(process.pid, signal.SIGSTOP)
        try:
            rig.cut_ssh()
        finally:
            os.killpg(process.pid, signal.SIGCONT)
    began = time.monotonic()
    rest, _ = process.communicate(timeout=60)
    return Cut(process.returncode, "".join(lines) + rest, time.monotonic() - began)


def check(rig: Rig, how: str, operation: str, delay: float) -> Cut:
    """Cut a deploy off; whatever it met, the next one ends what was begun."""
    data, before = other(rig), rig.manifest()["id"]
    with Watch(rig) as watch:
        cut = interrupted(rig, data, how, operation, delay)
        run = rig.deploy(**data)
    assert run.code == 0, f"{cut.output[-1500:]}\n--- the next run\n{run.output[-5000:]}"
    assert watch.failures == []
    assert rig.manifest()["id"] != before
    assert rig.leftovers() == []
    again = rig.deploy("--dry", **data)
    assert again.would_change == []
    assert again.asked == run.begun, "the points are the steps of a run"
    print(f"{how} {delay:.2f} s after {operation} began: {cut.within or 'nothing'} interrupted")
    return cut


def check_midst(rig: Rig, how: str, operation: str, delay: float) -> None:
    """As `check`, sooner and sooner until it has interrupted this very operation."""
    met = []
    for number in range(TRIES):
        met.append(check(rig, how, operation, delay / 2**number).within)
        if met[-1] == operation:
            return
    raise AssertionError(f"{operation} was never interrupted, but {met}")


@pytest.fixture(scope="module")
def lasting(changed: Rig) -> dict[str, float]:
    """Seconds that each operation of a deploy takes when nothing interrupts it."""
    process = changed.start(**other(changed))
    times: list[tuple[str, float]] = []
    assert process.stdout
    for line in process.stdout:
        if line.startswith("--> Starting operation: "):
            times.append((line.partition(": ")[2].strip(), time.monotonic()))
    assert process.wait() == 0
    times.append(("", time.monotonic()))
    return {name: after - at for (name, at), (_, after) in itertools.pairwise(times)}


@pytest.fixture(scope="module")
def steps(rig: Rig) -> list[str]:
    """Every step of a run, in its order."""
    return rig.deploy("--dry", **CHANGE).asked


def test_points_are_all_the_mutating_ones(rig: Rig) -> None:
    assert rig.deploy("--dry", **CHANGE).would_change == list(MUTATING)


def test_every_step_is_a_point(steps: list[str]) -> None:
    assert {*MUTATING, VERIFY} <= set(steps)
    assert len(set(steps)) == len(steps) <= MOST_STEPS, "a longer road: raise MOST_STEPS"


@pytest.mark.parametrize(("how", "operation", "delay"), SAMPLE)
def test_next_run_converges(changed: Rig, how: str, operation: str, delay: float) -> None:
    check_midst(changed, how, operation, delay)


@pytest.mark.faults
@pytest.mark.parametrize("operation", [BACKEND, SETTLE])
def test_usual_settings_take_the_place_of_what_was_cut_off(changed: Rig, operation: str) -> None:
    """Somebody cuts a deploy off, thinks better of it, and deploys what was there before."""
    changed.converge()
    cut = interrupted(changed, CHANGE, "killed", operation, 1.0 if operation == BACKEND else 0.1)
    assert cut.within == operation, cut.output[-3000:]
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
        said(process, f"Starting operation: {BACKEND}")
        firewall("-I")
        try:
            output, _ = process.communicate(timeout=120)
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
    cut = check(changed, how, steps[number], 0.0)
    assert cut.within or (how == "cut" and steps[number] in AFTER_ALL), cut.output[-3000:]


@pytest.mark.faults
@pytest.mark.parametrize(("how", "operation", "share"), MIDST)
def test_next_run_converges_from_the_midst_of_a_step(
    changed: Rig, lasting: dict[str, float], how: str, operation: str, share: float
) -> None:
    check_midst(changed, how, operation, share * lasting[operation])


@pytest.mark.faults
@pytest.mark.parametrize("operation", RESETS)
def test_hard_reset_leaves_one_of_the_two_releases_whole(changed: Rig, operation: str) -> None:
    data = other(changed)
    changed.hang_up()
    process = changed.start(**data)
    said(process, f"Starting operation: {operation}")
    time.sleep(0.2)
    assert process.poll() is None, "it was over before the reset"
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
