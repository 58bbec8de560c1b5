"""A load run, as it is written to its file and read by the gate, reports and comparisons."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from koprogo_deploy.runs.sample import Sample

FORMAT = 1
ErrorKind = Literal["connect", "tls", "timeout", "reset", "4xx", "5xx", "wrong body"]
ERROR_KINDS: tuple[ErrorKind, ...] = (
    "connect", "tls", "timeout", "reset", "4xx", "5xx", "wrong body",
)  # fmt: skip


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Latency(_Part):
    """Percentiles of an HDR histogram, in milliseconds; None without a single answer.

    Open loop: from the intended send time. Failed requests are in it too, with the time they took.
    """

    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p999: float | None = None
    max: float | None = None
    mean: float | None = None


class Count(_Part):
    """How many requests were sent, came back right, and failed by kind; and how long they took."""

    sent: int = 0
    right: int = 0
    errors: dict[ErrorKind, int] = {}
    latency: Latency = Latency()

    @property
    def failed(self) -> int:
        """Requests that did not come back right."""
        return sum(self.errors.values())

    @property
    def error_percent(self) -> float | None:
        """Failed ones of all that ended; None if none ended."""
        ended = self.right + self.failed
        return 100 * self.failed / ended if ended else None


class Endpoint(Count):
    """One kind of request, such as `GET /buildings`.

    Attributes:
        histogram: base64, HdrHistogram's V2 compressed encoding, microseconds: can be added up.
    """

    name: str
    writes: bool
    histogram: str = ""


class Second(_Part):
    """One second of a run, by intended send time.

    Attributes:
        at: seconds since the run's `began`.
        asked: requests intended for it; None in a closed loop.
        p50, p99, max: milliseconds.
        late_ms: the most that a request was sent behind its intended time by the generator's own
            fault, in milliseconds.
        generator_cpu_percent: of one CPU.
    """

    at: float
    asked: int | None = None
    sent: int = 0
    right: int = 0
    errors: dict[ErrorKind, int] = {}
    p50: float | None = None
    p99: float | None = None
    max: float | None = None
    late_ms: float = 0.0
    generator_cpu_percent: float | None = None


class Phase(Count):
    """A stretch of a run with one shape of load.

    Attributes:
        name: such as `realistic`, or `spike 50`.
        mode: `open` (arrivals at a rate) or `closed` (so many users, each after its last answer).
        asked_rate: requests a second; None in a closed loop.
        users: concurrent users of a closed loop; None in an open one.
        began: seconds since the run's `began`.
        seconds: how long it lasted.
        achieved_rate: right answers a second.
        sent_rate: requests sent a second.
        judged: whether the objectives are judged by it (a warm-up is not).
        histogram: as in `Endpoint`.
    """

    name: str
    mode: Literal["open", "closed"]
    asked_rate: float | None = None
    users: int | None = None
    began: float
    seconds: float
    achieved_rate: float
    sent_rate: float
    judged: bool = True
    endpoints: list[Endpoint] = []
    histogram: str = ""


class Generator(_Part):
    """How the generator itself fared. A run that it held up is invalid, and says why."""

    valid: bool
    reasons: list[str] = []
    cpu_percent_mean: float
    cpu_percent_max: float
    late_p99_ms: float
    late_max_ms: float
    connections: int
    workers: int = 1


class Machine(_Part):
    """What was measured, for a reader who was not there."""

    host: str
    cpus: int | None = None
    memory: int | None = None
    kernel: str = ""
    client: str = ""  # the generator's machine


class Deployed(_Part):
    """The release that was measured.

    Attributes:
        seed_scale: of the realistic data in its database; None: none of it, or not known.
    """

    release: str = ""
    settings_hash: str = ""
    images: dict[str, str] = {}
    limits: dict[str, int] = {}  # bytes, by service
    postgres: dict[str, str] = {}  # its settings
    seed_scale: int | None = None


class Cleanup(_Part):
    """What the run wrote and took away again.

    Attributes:
        kept: `--keep` was given.
        created, removed: rows by table.
        problem: why something is left, and how to remove it; empty if nothing is.
    """

    kept: bool = False
    created: dict[str, int] = {}
    removed: dict[str, int] = {}
    problem: str = ""


class Judgement(_Part):
    """One objective and how it came out.

    Attributes:
        name: such as `p99`.
        label: for people, such as `P99`.
        wanted: for people, such as `< 100 ms`.
        measured: for people, such as `12.3 ms`; or why it could not be read.
        value, bound: the same as numbers, in the unit of `unit`.
        by: how far beyond the bound, in percent of it; negative: room left.
        ours: one of our own, tighter goals, not of the guide's objectives.
        busy: what was busy when it was missed.
    """

    name: str
    label: str
    met: bool
    wanted: str
    measured: str
    unit: str = ""
    value: float | None = None
    bound: float | None = None
    by: float | None = None
    ours: bool = False
    busy: str = ""


class Verdict(_Part):
    """The gate's answer.

    Attributes:
        passed: every objective met, every value readable, the run valid.
        problems: what no objective covers, such as an invalid run.
    """

    passed: bool
    judgements: list[Judgement] = []
    problems: list[str] = []


class Run(_Part):
    """A finished load run.

    Attributes:
        id: `<profile>-<UTC time>`, also the file's name.
        began: seconds since the epoch, by the generator's clock.
        clock_offset: host's clock minus the generator's, in seconds; None if unknown.
        samples: the monitor's, whole run; empty without a monitor.
        monitor_problem: why there are none or not all; empty if all is well.
        interrupted: it was ended by a person, before its time.
        notes: what a reader has to know besides: examples of errors, what an earlier run had left.
    """

    format: int = FORMAT
    id: str
    environment: str
    url: str
    profile: str
    began: float
    seconds: float
    command: str = ""
    revision: str = ""
    phases: list[Phase]
    series: list[Second]
    generator: Generator
    machine: Machine
    deployed: Deployed = Deployed()
    cleanup: Cleanup = Cleanup()
    samples: list[Sample] = []
    monitor_problem: str = ""
    clock_offset: float | None = None
    interrupted: bool = False
    notes: list[str] = []
    verdict: Verdict | None = None
