"""Traefik within 80 MB from a cold page cache: what a warm machine hides."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import pytest

from koprogo_deploy.units import MB
from tests.integration.rig import Load, Rig, can_drop_page_cache, load

pytestmark = pytest.mark.skipif(
    not can_drop_page_cache(), reason="only root can drop this machine's page cache"
)
UNIT = "koprogo-traefik-binary.service"


@dataclass
class Cold:
    """One cold start: seconds from dockerd's start to the first 200, then 10 s of load."""

    first_answer: float
    load: Load
    peak: int
    anonymous: int
    faults: int

    def __str__(self) -> str:
        return (
            f"first 200 after {self.first_answer:.1f} s; {self.load.rate:.0f} req/s, "
            f"P99 {self.load.percentile(99):.0f} ms, {len(self.load.failures)} failed; "
            f"peak {self.peak / MB:.0f} MB, anonymous {self.anonymous / MB:.0f} MB, "
            f"{self.faults} major faults under load"
        )


def cold_start(rig: Rig, within: float) -> Cold:
    rig.reboot(cold=True)
    answered = rig.wait_for_site(within)
    rig.wait_for_ssh()
    # Of the kernel's monotonic clock, which the box shares with this machine.
    text = rig.on_host("systemctl show docker -p ExecMainStartTimestampMonotonic --value")
    first_answer = answered - int(text) / 1e6
    before = rig.cgroup("traefik")
    seen = [before]
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(1):
            seen.append(rig.cgroup("traefik"))

    sampler = threading.Thread(target=sample)
    sampler.start()
    result = load(rig, connections=100, seconds=10)
    stop.set()
    sampler.join()
    return Cold(
        first_answer,
        result,
        max(s["used"] for s in seen),
        max(s["anonymous"] for s in seen),
        seen[-1]["pgmajfault"] - before["pgmajfault"],
    )


def test_traefik_serves_at_once_after_a_cold_boot(rig: Rig) -> None:
    cold = cold_start(rig, within=90)
    print(cold)
    total = rig.cgroup("traefik")["pgmajfault"]
    print(f"{total} major faults since the container's start")
    assert cold.first_answer < 5
    assert cold.peak < 75 * MB
    assert cold.faults < 500 and total < 500
    assert cold.load.rate > 500
    assert cold.load.failures == []


def test_binary_is_locked_and_in_the_budget(rig: Rig) -> None:
    script = (
        "file=$(cat /opt/koprogo/traefik/binary); stat -c %s $file; "
        "awk '/^VmLck/ {print $2 * 1024}' /proc/$(cat /run/koprogo-traefik-binary.pid)/status; "
        "vmtouch -v $file | sed -n 's/.*Resident Pages: \\([0-9/]*\\).*/\\1/p'; "
        "pid=$(docker inspect -f '{{.State.Pid}}' koprogo-traefik-1); stat -Lc %s /proc/$pid/exe"
    )
    size, locked, resident, running = rig.on_host(script).split()
    assert int(size) == int(running), "another binary is held than the one that runs"
    assert int(locked) >= int(size)
    assert len(set(resident.split("/"))) == 1, resident
    assert int(size) <= rig.environment.settings.traefik_binary_memory


def test_locked_pages_survive_a_dropped_cache(rig: Rig) -> None:
    from tests.integration.rig import drop_page_cache

    before = rig.cgroup("traefik")["pgmajfault"]
    drop_page_cache()
    began = time.monotonic()
    rig.on_host("docker restart -t 15 koprogo-traefik-1")
    took = rig.wait_for_site(within=30) - began
    result = load(rig, connections=100, seconds=3)
    print(f"restarted and serving after {took:.1f} s, {result.rate:.0f} req/s")
    assert result.rate > 500
    assert rig.cgroup("traefik")["pgmajfault"] - before < 500
    rig.wait_until_healthy()


@pytest.mark.slow
def test_without_the_locked_binary_it_is_bad(rig: Rig) -> None:
    """The counter-proof: were this to pass, the unit and its 192 MB would be for nothing."""
    rig.on_host(f"systemctl disable --quiet --now {UNIT}")
    try:
        cold = cold_start(rig, within=180)
        print(cold)
        assert cold.first_answer > 5 or cold.load.rate < 500
    finally:
        rig.wait_for_ssh()
        run = rig.converge()
    assert "Cut over | Keep Traefik's binary in memory" in run.changed
    cold = cold_start(rig, within=90)
    assert cold.first_answer < 5
