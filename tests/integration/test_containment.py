"""1 CPU and 2 GiB hold for all that runs inside the box: figures measured in it are honest."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from koprogo_deploy.units import MB
from sandbox import containment
from sandbox.client import Docker
from tests.integration.rig import Rig, Watch

SPIN = "sudo docker run --rm --detach --entrypoint sh {image} -c 'while :; do :; done'"


def cpu_seconds(docker: Docker, container: str) -> float:
    """CPU time of a container of the engine outside, from its cgroup on this machine."""
    pid = docker.inspect("container", container)[0]["State"]["Pid"]
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        pytest.skip("the engine outside runs on another machine")
    paths = {tuple(line.split(":")[1].split(",")): line.split(":", 2)[2] for line in lines}
    for controllers, path in paths.items():
        if "cpuacct" in controllers:
            usage = Path(f"/sys/fs/cgroup/cpuacct{path}/cpuacct.usage")
            return int(usage.read_text()) / 1e9
    stat = Path(f"/sys/fs/cgroup{paths[('',)].removesuffix('/init.scope')}/cpu.stat").read_text()
    return int(dict(line.split() for line in stat.splitlines())["usage_usec"]) / 1e6


def own_cgroup(path: str) -> str:
    """The box's own path: systemd moves itself into a scope below it."""
    return path.removesuffix("/init.scope")


def test_two_that_spin_share_one_cpu(rig: Rig) -> None:
    image = rig.manifest()["images"]["postgres"]
    made = rig.on_host("\n".join([SPIN.format(image=image).replace("sudo ", "")] * 2)).split()
    try:
        time.sleep(1)
        began, used = time.monotonic(), cpu_seconds(rig.docker, rig.sandbox.vps)
        time.sleep(5)
        took = time.monotonic() - began
        share = (cpu_seconds(rig.docker, rig.sandbox.vps) - used) / took
    finally:
        rig.on_host(f"docker rm -f {' '.join(made)}")
    print(f"two that spin, and the stack: {share:.2f} CPU")
    # Less than 1 where the machine itself has no CPU to give; never more.
    assert 0.3 < share <= 1.1


def test_memory_hogs_are_stopped_at_2_gib_and_the_stack_lives_on(rig: Rig) -> None:
    before = rig.started()
    with Watch(rig) as watch:
        print(containment.memory(rig.state))
    failed, answered = len(watch.failures), watch.answered
    print(f"{failed} of {failed + answered} requests failed meanwhile")
    assert answered > 20
    assert failed <= answered / 100, watch.failures[:5]
    rig.wait_until_healthy()
    assert rig.started() == before
    assert rig.deploy("--dry").would_change == []


def test_container_cannot_pass_its_own_limit(rig: Rig) -> None:
    image = rig.manifest()["images"]["postgres"]
    output = rig.on_host(
        "docker run --rm --memory 80m --memory-swap 80m --entrypoint tail "
        f"{image} /dev/zero; echo $?"
    )
    assert output.split()[-1] == "137"
    assert rig.cgroup("traefik")["used"] < 75 * MB
