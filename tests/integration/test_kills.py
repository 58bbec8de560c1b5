"""Containers killed with -9 under writes: what was acknowledged is there, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.integration.rig import Rig
from tests.integration.traffic import Stream, Traffic, losses, told, where

WRITES = (
    Stream("write", 25),
    Stream("write", 5, kept=False),
    Stream("read", 10),
    Stream("read", 5, kept=False),
    Stream("upload", 0.5, steady=True),
)
BACK_WITHIN = {"backend": 20.0, "postgres": 30.0, "traefik": 10.0}  # seconds


@pytest.fixture
def serving(rig: Rig) -> Iterator[Rig]:
    """The rig; whatever was killed is healthy again in the end."""
    yield rig
    rig.wait_until_healthy(within=90)
    assert rig.converge().changed == []


def kill(rig: Rig, service: str) -> float:
    """Kill a service's first process with -9, as the kernel does; when it was done.

    Not by `docker kill`, which the engine takes for a wish that it stay down.
    """
    (found,) = (c for name, c in rig.containers().items() if name.startswith(service))
    before = found["State"]["Pid"]
    rig.on_host(f"kill -9 {before}")
    return time.time()


@pytest.mark.parametrize(
    "service",
    [
        "postgres",
        pytest.param("backend", marks=pytest.mark.faults),
        pytest.param("traefik", marks=pytest.mark.faults),
    ],
)
def test_no_acknowledged_write_is_lost(serving: Rig, service: str) -> None:
    rig = serving
    started = rig.started()[service]
    with Traffic(where(rig.environment), WRITES) as traffic:
        time.sleep(4)
        killed = kill(rig, service)
        time.sleep(1)
        rig.wait_until_healthy(within=60)
        healthy = time.time()
        time.sleep(6)
    assert rig.started()[service] != started, "it was killed, and the engine started it again"
    lost = losses(traffic.ended)
    back = max((each.began for each in lost), default=killed) - killed
    after = [
        each for each in traffic.ended if each.began > killed + back and each.outcome == "right"
    ]
    kinds = {name: count for name, count in traffic.kinds.items() if name != "right"}
    print(
        f"{service} killed: requests are right again after {back:.1f} s (healthy after "
        f"{healthy - killed:.1f} s); {told(traffic, lost=kinds)}"
    )
    try:
        assert traffic.accounted(rig.sql) == []
        assert traffic.uploaded(rig.environment) == []
    finally:
        traffic.clean(rig.sql, rig.on_host)
    assert traffic.acknowledged.count > 150
    assert lost, "nothing was under way when it was killed: the test shows nothing"
    assert min(each.ended for each in lost) >= killed - 5, traffic.lost[:5]
    assert back < BACK_WITHIN[service]
    assert len(after) > 100, "it serves to the end"
