"""From what value on something is raised, and when it is an alert. Pure.

The first ones are the performance guide's, of the limits and the one vCPU that it had. Where a
container has a limit, its memory is judged by that: a process is killed there, whatever a guide
says. A value that could not be read is unknown, which is never normal.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from koprogo_deploy.monitor import reading
from koprogo_deploy.runs.sample import ContainerSample, Disk, Sample
from koprogo_deploy.units import MB


class Level(enum.StrEnum):
    """How a value stands; the order is that of their gravity."""

    normal = "normal"
    raised = "raised"
    unknown = "unknown"
    alert = "alert"


@dataclass(frozen=True)
class Threshold:
    """Bounds of one figure.

    Attributes:
        name: for people, such as `CPU`.
        normal: up to here it is as it should be.
        alert: above this somebody should look.
        unit: of the bounds, for people.
        ours: not one of the guide's.
    """

    name: str
    normal: float
    alert: float
    unit: str
    ours: bool = False

    def level(self, value: float | None) -> Level:
        """How a value stands."""
        if value is None:
            return Level.unknown
        if value > self.alert:
            return Level.alert
        return Level.raised if value > self.normal else Level.normal


@dataclass(frozen=True)
class Finding:
    """A figure of a sample, and how it stands.

    Attributes:
        subject: whose figure it is, such as `backend` or `host`.
        path: its dotted name in the sample.
        value: in the threshold's unit; None if it could not be read.
        why: why it could not.
    """

    subject: str
    threshold: Threshold
    path: str
    value: float | None
    why: str = ""

    @property
    def level(self) -> Level:
        """How it stands. With nothing to measure, there is nothing to be alarmed at."""
        return self.threshold.level(self.value)

    def __str__(self) -> str:
        bound = f"{self.threshold.unit}"
        what = f"{self.subject} {self.threshold.name}"
        if self.value is None:
            return f"{what}: unknown, {self.why}"
        limit = self.threshold.alert if self.level is Level.alert else self.threshold.normal
        return f"{what} {self.value:.4g}{bound} ({self.level}: > {limit:g}{bound})"


# The guide's, "15–30 %" and the like: below the range it is idle, which is no trouble.
CONTAINERS = {
    "backend": (Threshold("CPU", 30, 80, " %"), Threshold("memory", 50, 200, " MB")),
    "postgres": (Threshold("CPU", 30, 60, " %"), Threshold("memory", 100, 400, " MB")),
    "traefik": (None, Threshold("memory", 60, 75, " MB")),
}
# Of a container's limit; the guide's own share for Traefik, 75 of 80 MB.
ALERT_SHARE, RAISED_SHARE = 15 / 16, 1 / 2
LOAD = Threshold("load average", 1.5, 3.0, "")
DISK = Threshold("busy", 20, 80, " %")
# The guide warns from 10 connections of 15 on.
CONNECTIONS = Threshold("connections", 100 * 10 / 15, 90, " % of the most", ours=True)
SPACE = Threshold("disk space used", 70, 85, " %", ours=True)
THROTTLED = Threshold("throttled", 10, 100, " ms/s", ours=True)
FAULTS = Threshold("major faults", 10, 100, "/s", ours=True)
OOM_KILLS = Threshold("processes killed at the limit", 0, 0, "", ours=True)
WAITING = Threshold("sessions waiting for locks", 0, 5, "", ours=True)


def memory_bounds(guide: Threshold | None, limit: int | None) -> Threshold | None:
    """Bounds of a container's memory in MB: of its limit; the guide's where it has none.

    Args:
        guide: what the guide says of it; None where it is silent.
        limit: bytes at which the kernel kills; None for none.
    """
    if not limit:
        return guide
    alert = limit * ALERT_SHARE / MB
    normal = max(limit * RAISED_SHARE / MB, guide.normal if guide else 0.0)
    return Threshold("memory", min(normal, alert), alert, " MB", ours=True)


def load_bounds(cpus: int | None) -> Threshold:
    """Bounds of the load average: the guide's for each CPU."""
    each = max(1, cpus or 1)
    return replace(LOAD, normal=LOAD.normal * each, alert=LOAD.alert * each, ours=each > 1)


def findings(sample: Sample) -> list[Finding]:
    """Every judged figure of a sample."""
    found = [
        finding
        for name, container in sample.containers.items()
        for finding in _container(sample, name, container)
    ]
    load = load_bounds(sample.host.cpus)
    found.append(_finding(sample, "host", load, "host.load1", sample.host.load1))
    free, total = sample.host.disk_free, sample.host.disk_total
    used = None if free is None or not total else 100 * (1 - free / total)
    found.append(_finding(sample, "host", SPACE, "host.disk_free", used))
    disks = sample.host.disks or {"": Disk()}
    for name, disk in disks.items():
        path = f"host.disks.{name}.busy_percent" if name else "host.disks"
        found.append(_finding(sample, f"disk {name}".strip(), DISK, path, disk.busy_percent))
    database = sample.postgres
    share = None
    if database.connections is not None and database.max_connections:
        share = 100 * sum(database.connections.values()) / database.max_connections
    found.append(_finding(sample, "postgres", CONNECTIONS, "postgres.connections", share))
    found.append(_finding(sample, "postgres", WAITING, "postgres.waiting", database.waiting))
    return found


def _container(sample: Sample, name: str, container: ContainerSample) -> Iterator[Finding]:
    def finding(threshold: Threshold, field: str, scale: float = 1.0) -> Finding:
        value: float | None = getattr(container, field)
        scaled = None if value is None else value / scale
        return _finding(sample, name, threshold, f"containers.{name}.{field}", scaled)

    cpu, guide = CONTAINERS.get(name.partition("-")[0], (None, None))
    memory = memory_bounds(guide, container.memory_limit)
    if cpu:
        yield finding(cpu, "cpu_percent")
    if memory:
        yield finding(memory, "memory", MB)
    yield finding(THROTTLED, "throttled_ms")
    yield finding(FAULTS, "major_faults")
    yield finding(OOM_KILLS, "oom_kills")


def _finding(
    sample: Sample, subject: str, threshold: Threshold, path: str, value: float | None
) -> Finding:
    why = reading.reason(sample, path) if value is None else ""
    return Finding(subject, threshold, path, value, why)


def worst(found: list[Finding], wanted: Callable[[Finding], bool] = lambda _: True) -> Level:
    """The gravest level of some findings; unknown without any."""
    order = list(Level)
    levels = [finding.level for finding in found if wanted(finding)]
    return max(levels, key=order.index, default=Level.unknown)
