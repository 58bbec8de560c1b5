"""One second of the host, as the monitor saw it. A line of its JSON output is one of these.

A value that could not be read is None, and `unread` says why: None is never "OK". Rates are per
second since the sample before, so a first sample has none of them (reason: "first sample").
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ContainerSample(_Part):
    """One container, from its cgroup (version 1 or 2).

    Attributes:
        cpu_percent: of one CPU.
        memory: bytes, as `docker stats` shows it: what is charged, without inactive file pages.
        memory_charged: bytes, all that the limit counts.
        memory_limit: bytes; None where there is no limit.
        anonymous: bytes that cannot be dropped.
        throttled_ms: milliseconds a second that it waited for its CPU quota.
        major_faults: pages a second that had to be read from disk.
        oom_kills: since the container's start.
        restarts: since the container was made.
    """

    cpu_percent: float | None = None
    memory: int | None = None
    memory_charged: int | None = None
    memory_limit: int | None = None
    anonymous: int | None = None
    throttled_ms: float | None = None
    major_faults: float | None = None
    oom_kills: int | None = None
    restarts: int | None = None


class Pressure(_Part):
    """Share of the second, in percent, that some or all tasks waited (PSI)."""

    some: float | None = None
    full: float | None = None


class Disk(_Part):
    """One block device: busy share in percent, mean milliseconds an operation, bytes a second."""

    busy_percent: float | None = None
    read_ms: float | None = None
    write_ms: float | None = None
    read_bytes: float | None = None
    write_bytes: float | None = None


class Network(_Part):
    """One interface, per second."""

    received_bytes: float | None = None
    sent_bytes: float | None = None
    errors: float | None = None
    dropped: float | None = None


class HostSample(_Part):
    """The machine; in the sandbox: the box, not what is around it.

    Attributes:
        cpus: how many it has.
        cpu_percent: of all its CPUs together, 0 to 100.
        load1: load average of one minute: the kernel's, or in a box counted from its own tasks.
        load_source: `kernel` or `tasks`.
        memory_total, memory_used, memory_available: bytes; used is what cannot be dropped.
        swap_used: bytes.
        pressure: by `cpu`, `memory`, `io`.
        disks, network: by device and interface.
        disk_free, disk_total: bytes of the file system that holds the engine's data.
    """

    cpus: int | None = None
    cpu_percent: float | None = None
    load1: float | None = None
    load_source: str | None = None
    memory_total: int | None = None
    memory_used: int | None = None
    memory_available: int | None = None
    swap_used: int | None = None
    pressure: dict[str, Pressure] = {}
    disks: dict[str, Disk] = {}
    network: dict[str, Network] = {}
    disk_free: int | None = None
    disk_total: int | None = None


class PostgresSample(_Part):
    """The database, asked over one connection, which is not counted.

    Attributes:
        connections: by state as pg_stat_activity names it (`active`, `idle`, …).
        max_connections: what the server allows.
        commits, rollbacks, deadlocks, temp_bytes, wal_bytes: a second.
        cache_hit_percent: of the block reads since the sample before.
        waiting: sessions that wait for a lock.
        longest_transaction: seconds.
        checkpoints_timed, checkpoints_requested: since the statistics were reset.
        size: bytes of the application's database.
    """

    connections: dict[str, int] | None = None
    max_connections: int | None = None
    commits: float | None = None
    rollbacks: float | None = None
    deadlocks: float | None = None
    temp_bytes: float | None = None
    wal_bytes: float | None = None
    cache_hit_percent: float | None = None
    waiting: int | None = None
    longest_transaction: float | None = None
    checkpoints_timed: int | None = None
    checkpoints_requested: int | None = None
    size: int | None = None


class TraefikSample(_Part):
    """The proxy's own counters.

    Attributes:
        requests: a second, by status class (`2xx`, `4xx`, …), without the internal entry point.
        open_connections: now.
    """

    requests: dict[str, float] | None = None
    open_connections: int | None = None


class Sample(_Part):
    """Everything of one second.

    Attributes:
        at: seconds since the epoch, by the host's clock.
        containers: by service without its colour (`backend`); during a switch the second colour
            has its full name (`backend-green`).
        monitor_cpu_percent: of one CPU, what looking cost.
        unread: reason by dotted name, such as `host.pressure.cpu` or `containers.traefik.memory`.
    """

    at: float
    host: HostSample = HostSample()
    containers: dict[str, ContainerSample] = {}
    postgres: PostgresSample = PostgresSample()
    traefik: TraefikSample = TraefikSample()
    monitor_cpu_percent: float | None = None
    unread: dict[str, str] = {}
