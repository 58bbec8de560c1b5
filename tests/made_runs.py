"""Made-up load runs for tests: every part fits the others, and one number gives one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from hdrh.histogram import HdrHistogram

from koprogo_deploy.runs.model import (
    Cleanup,
    Count,
    Deployed,
    Endpoint,
    ErrorKind,
    Generator,
    Latency,
    Machine,
    Phase,
    Run,
    Second,
)
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

BEGAN = 1_795_578_000.0  # 2026-11-25 03:40:00 UTC

# Name, share of all requests, whether it writes, and its median as a multiple of the run's.
ENDPOINTS: tuple[tuple[str, float, bool, float], ...] = (
    ("GET /buildings", 0.20, False, 0.9),
    ("GET /units", 0.18, False, 1.0),
    ("GET /owners", 0.12, False, 0.9),
    ("GET /expenses", 0.12, False, 1.1),
    ("GET /auth/me", 0.08, False, 0.6),
    ("POST /buildings", 0.09, True, 1.5),
    ("POST /units", 0.09, True, 1.5),
    ("POST /owners", 0.06, True, 1.6),
    ("POST /expenses", 0.06, True, 1.7),
)
# Service: share of a CPU for each request a second (percent), memory in MB, its limit in MB.
CONTAINERS: dict[str, tuple[float, float, int]] = {
    "backend": (0.11, 24.0, 128),
    "frontend": (0.0, 4.0, 64),
    "postgres": (0.07, 118.0, 512),
    "traefik": (0.05, 36.0, 80),
}
WRITTEN = {"buildings": 120, "units": 90}
LIMITS = {service: limit * MB for service, (_, _, limit) in CONTAINERS.items()}


@dataclass(frozen=True)
class Stretch:
    """One phase to make: its name, rate (requests a second), length (seconds), and if judged."""

    name: str
    rate: float
    seconds: int
    judged: bool = True


def made_run(
    profile: str = "realistic",
    rate: float = 220,
    seconds: int = 180,
    seed: int = 1,
    *,
    p50: float = 3.0,
    spread: float = 0.35,
    errors: Mapping[ErrorKind, int] | None = None,
    mode: Literal["open", "closed"] = "open",
    users: int = 20,
    stretches: Sequence[Stretch] | None = None,
    slow_seconds: Mapping[int, float] | None = None,
    memory: Mapping[str, float] | None = None,
    cpu: Mapping[str, float] | None = None,
    load: float = 0.8,
    began: float = BEGAN,
    clock_offset: float = 0.0,
    monitor: bool = True,
    invalid: Sequence[str] = (),
    **changes: Any,
) -> Run:
    """A run as a healthy stack at `rate` would give it, with changes.

    Args:
        profile: also the first part of its id.
        rate: requests a second asked for.
        seconds: its length, in one judged phase unless `stretches` says otherwise.
        seed: another number, another run of the same stack.
        p50: median latency in milliseconds.
        spread: sigma of the log-normal latencies; 0.35 puts P99 at about 2.5 × P50.
        errors: how many of the requests fail, by kind, spread evenly.
        mode, users: open loop, or a closed one with so many users.
        stretches: the phases, one after the other, instead of one.
        slow_seconds: latency is multiplied by the value in these seconds of the run.
        memory: MB at the end of the run, by service.
        cpu: percent of one CPU, by service.
        load: the load average it settles at.
        began: seconds since the epoch.
        clock_offset: the host's clock minus the generator's.
        monitor: whether there are samples.
        invalid: reasons why the generator held the run up.
        changes: fields of `Run`, set at the end.
    """
    random = np.random.default_rng(seed)
    shape = stretches or (Stretch(profile, rate, seconds),)
    names = [name for name, *_ in ENDPOINTS]
    shares = np.array([share for _, share, *_ in ENDPOINTS])
    multiples = np.array([multiple for *_, multiple in ENDPOINTS])
    phases: list[Phase] = []
    series: list[Second] = []
    at = 0
    total = sum(stretch.seconds for stretch in shape)
    for stretch in shape:
        count = round(stretch.rate * stretch.seconds)
        second = np.arange(count) * stretch.seconds // max(1, count)
        which = random.choice(len(names), size=count, p=shares / shares.sum())
        factor = np.ones(stretch.seconds)
        for slow, times in (slow_seconds or {}).items():
            if at <= slow < at + stretch.seconds:
                factor[slow - at] = times
        taken = p50 * multiples[which] * random.lognormal(0, spread, count) * factor[second]
        taken = np.maximum(1, np.round(taken * 1000)).astype(np.int64)  # whole microseconds
        failed = _failures(random, count, errors if stretch.judged else None)
        phases.append(_phase(stretch, at, mode, users, which, taken, failed))
        for number in range(stretch.seconds):
            mine = second == number
            series.append(
                _second(at + number, taken[mine], failed[mine], mode == "open", random.uniform())
            )
        at += stretch.seconds
    rates = [stretch.rate for stretch in shape for _ in range(stretch.seconds)]
    run = Run(
        id=f"{profile}-20261125T034000Z",
        environment="sandbox",
        url="https://api.koprogo.localhost:8443",
        profile=profile,
        began=began,
        seconds=float(total),
        command=f"koprogo load {profile} --rate {rate:g}",
        revision="0123abc",
        phases=phases,
        series=series,
        generator=Generator(
            valid=not invalid, reasons=list(invalid), cpu_percent_mean=31.5, cpu_percent_max=44.0,
            late_p99_ms=0.4, late_max_ms=2.1, connections=64,
        ),
        machine=Machine(
            host="127.0.0.1", cpus=1, memory=2 * GB, kernel="6.1.0-28-cloud-amd64",
            client="Debian 12, 2 CPUs",
        ),
        deployed=Deployed(
            release="20261125T033000Z-5a3c", settings_hash="0f1e2d3c4b5a",
            images={
                service: f"registry.example/{service}@sha256:{str(number) * 64}"
                for number, service in enumerate(CONTAINERS, start=1)
            },
            limits=dict(LIMITS),
            postgres={"shared_buffers": "128MB", "max_connections": "25", "work_mem": "4MB"},
        ),
        cleanup=Cleanup(created=dict(WRITTEN), removed=dict(WRITTEN)),
        samples=_samples(random, rates, began + clock_offset, memory or {}, cpu or {}, load)
        if monitor else [],
        clock_offset=clock_offset,
    )  # fmt: skip
    return Run.model_validate(run.model_dump() | changes)


def encoded(microseconds: np.ndarray) -> str:
    """HdrHistogram's V2 compressed encoding of these values."""
    histogram = HdrHistogram(1, 3_600_000_000, 3)
    for value, count in zip(*np.unique(microseconds, return_counts=True), strict=True):
        histogram.record_value(int(value), int(count))
    return str(histogram.encode(), "ascii")


def latency(microseconds: np.ndarray) -> Latency:
    """Exact percentiles of these values, in milliseconds."""
    if not len(microseconds):
        return Latency()
    at = np.percentile(microseconds, [50, 90, 95, 99, 99.9, 100]) / 1000
    p50, p90, p95, p99, p999, most = (float(value) for value in at)
    mean = float(microseconds.mean()) / 1000
    return Latency(p50=p50, p90=p90, p95=p95, p99=p99, p999=p999, max=most, mean=mean)


def _failures(
    random: np.random.Generator, count: int, errors: Mapping[ErrorKind, int] | None
) -> np.ndarray:
    failed = np.full(count, "", dtype=object)
    wanted = [kind for kind, number in (errors or {}).items() for _ in range(number)]
    places = random.choice(count, size=min(len(wanted), count), replace=False)
    failed[places] = wanted[: len(places)]
    return failed


def _count(taken: np.ndarray, failed: np.ndarray) -> dict[str, Any]:
    kinds, numbers = np.unique(failed[failed != ""].astype(str), return_counts=True)
    errors = {str(kind): int(number) for kind, number in zip(kinds, numbers, strict=True)}
    right = len(taken) - sum(errors.values())
    return {"sent": len(taken), "right": right, "errors": errors}


def _phase(
    stretch: Stretch,
    began: float,
    mode: Literal["open", "closed"],
    users: int,
    which: np.ndarray,
    taken: np.ndarray,
    failed: np.ndarray,
) -> Phase:
    endpoints = []
    for number, (name, _, writes, _) in enumerate(ENDPOINTS):
        mine = which == number
        endpoints.append(
            Endpoint(
                name=name, writes=writes, histogram=encoded(taken[mine]),
                **Count(**_count(taken[mine], failed[mine]), latency=latency(taken[mine]))
                .model_dump(),
            )
        )  # fmt: skip
    count = Count(**_count(taken, failed), latency=latency(taken))
    return Phase(
        name=stretch.name, mode=mode, began=began, seconds=stretch.seconds,
        asked_rate=stretch.rate if mode == "open" else None,
        users=users if mode == "closed" else None,
        achieved_rate=count.right / stretch.seconds, sent_rate=count.sent / stretch.seconds,
        judged=stretch.judged, endpoints=endpoints, histogram=encoded(taken), **count.model_dump(),
    )  # fmt: skip


def _second(
    at: float, taken: np.ndarray, failed: np.ndarray, opened: bool, uneven: float
) -> Second:
    found = latency(taken)
    return Second(
        at=at, asked=len(taken) if opened else None, p50=found.p50, p99=found.p99, max=found.max,
        late_ms=0.2 + 0.5 * uneven, generator_cpu_percent=28 + 6 * uneven, **_count(taken, failed),
    )  # fmt: skip


def _samples(
    random: np.random.Generator,
    rates: Sequence[float],
    began: float,
    memory: Mapping[str, float],
    cpu: Mapping[str, float],
    load: float,
) -> list[Sample]:
    samples = []
    for number, rate in enumerate(rates):
        grown = number / max(1, len(rates) - 1)
        containers = {}
        for service, (share, size, limit) in CONTAINERS.items():
            used = cpu.get(service, share * rate) * random.normal(1, 0.05)
            most = memory.get(service, size)
            held = int((most * (0.9 + 0.1 * grown)) * MB)
            containers[service] = ContainerSample(
                cpu_percent=round(max(0.0, used), 2) if number else None,
                memory=held, memory_charged=held + 3 * MB, memory_limit=limit * MB,
                anonymous=int(held * 0.7), throttled_ms=0.0 if number else None,
                major_faults=0.0 if number else None, oom_kills=0, restarts=0,
            )  # fmt: skip
        busy = sum(part.cpu_percent or 0.0 for part in containers.values()) + 4
        first = {} if number else {
            "host.cpu_percent": "first sample",
            "postgres.commits": "first sample",
            "traefik.requests": "first sample",
        }  # fmt: skip
        active = int(random.integers(0, 4))
        samples.append(
            Sample(
                at=began + number + 0.5,
                host=HostSample(
                    cpus=1, cpu_percent=min(100.0, busy) if number else None,
                    load1=round(load * (1 - np.exp(-(number + 20) / 60)), 3), load_source="tasks",
                    memory_total=2 * GB, memory_used=600 * MB, memory_available=1400 * MB,
                    swap_used=0,
                    pressure={
                        what: Pressure(some=round(abs(random.normal(wait, 0.4)), 2), full=0.0)
                        for what, wait in (("cpu", 6.0), ("memory", 0.0), ("io", 0.8))
                    },
                    disks={
                        "sda": Disk(
                            busy_percent=round(abs(random.normal(7, 2)), 2), read_ms=0.2,
                            write_ms=0.9, read_bytes=0.0, write_bytes=900_000.0,
                        )
                    },
                    network={
                        "eth0": Network(
                            received_bytes=260 * rate, sent_bytes=1900 * rate, errors=0, dropped=0
                        )
                    },
                    disk_free=18 * GB, disk_total=40 * GB,
                ),
                containers=containers,
                postgres=PostgresSample(
                    connections={"active": active, "idle": 10 - active}, max_connections=25,
                    commits=round(rate * 1.02, 1) if number else None, rollbacks=0.0,
                    deadlocks=0.0, temp_bytes=0.0, wal_bytes=420.0 * rate,
                    cache_hit_percent=99.9, waiting=0, longest_transaction=0.02,
                    checkpoints_timed=3, checkpoints_requested=0, size=21 * MB,
                ),
                traefik=TraefikSample(
                    requests={"2xx": round(rate, 1)} if number else None, open_connections=64
                ),
                monitor_cpu_percent=0.4,
                unread=first,
            )
        )  # fmt: skip
    return samples
