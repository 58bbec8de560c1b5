"""Samples to judge and to show."""

from __future__ import annotations

from typing import Any

from koprogo_deploy.runs.sample import (
    ContainerSample,
    Disk,
    HostSample,
    Network,
    PostgresSample,
    Pressure,
    Sample,
    TraefikSample,
)
from koprogo_deploy.units import GB, MB


def container(cpu: float | None = 1.0, memory: float = 20, **changes: Any) -> ContainerSample:
    size = int(memory * MB)
    return ContainerSample(
        cpu_percent=cpu, memory=size, memory_charged=size, memory_limit=512 * MB, anonymous=size,
        throttled_ms=0.0, major_faults=0.0, oom_kills=0, restarts=0,
    ).model_copy(update=changes)  # fmt: skip


def host(**changes: Any) -> HostSample:
    return HostSample(
        cpus=1, cpu_percent=23.0, load1=0.4, load_source="kernel", memory_total=2 * GB,
        memory_used=480 * MB, memory_available=2 * GB - 480 * MB, swap_used=0,
        pressure={what: Pressure(some=0.0, full=0.0) for what in ("cpu", "memory", "io")},
        disks={"vda": Disk(busy_percent=2.0, read_ms=0.3, write_ms=1.2, read_bytes=0.0,
                           write_bytes=5000.0)},
        network={"eth0": Network(received_bytes=1e5, sent_bytes=3e6, errors=0.0, dropped=0.0)},
        disk_free=15 * GB, disk_total=25 * GB,
    ).model_copy(update=changes)  # fmt: skip


def postgres(**changes: Any) -> PostgresSample:
    return PostgresSample(
        connections={"idle": 7, "active": 1}, max_connections=25, commits=200.0, rollbacks=0.0,
        deadlocks=0.0, temp_bytes=0.0, wal_bytes=1e5, cache_hit_percent=99.9, waiting=0,
        longest_transaction=0.0, checkpoints_timed=1, checkpoints_requested=0, size=26 * MB,
    ).model_copy(update=changes)  # fmt: skip


def sample(at: float = 1_800_000_000.0, **changes: Any) -> Sample:
    """A host that is well, with changes."""
    services = {"backend": container(20, 33), "frontend": container(0, 12)}
    services |= {"postgres": container(15, 80), "traefik": container(9, 26)}
    whole: dict[str, Any] = {
        "at": at,
        "host": host(),
        "containers": services,
        "postgres": postgres(),
        "traefik": TraefikSample(requests={"2xx": 198.0, "4xx": 2.0}, open_connections=8),
        "monitor_cpu_percent": 0.4,
    }
    return Sample(**(whole | changes))


def with_container(name: str, made: ContainerSample, **changes: Any) -> Sample:
    """A host that is well but for one container."""
    return sample(containers=sample().containers | {name: made}, **changes)
