"""What a run comes to in numbers: added-up latency, and what each container used for an answer.

Pure. Reports and comparisons draw on it, so that both say the same.
"""

from __future__ import annotations

import binascii
import statistics
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hdrh.codec import HdrCookieException, HdrHistogramSettingsException, HdrLengthException
from hdrh.histogram import HdrHistogram

from koprogo_deploy.objectives import load_of, samples_between, seen_enough
from koprogo_deploy.runs.model import Count, Latency, Phase, Run
from koprogo_deploy.runs.sample import ContainerSample, Sample

# What reading a histogram that is none raises; base64, zlib and hdrh each have their own.
_UNREADABLE = (
    binascii.Error, zlib.error, struct.error, TypeError, ValueError, IndexError,
    HdrCookieException, HdrHistogramSettingsException, HdrLengthException,
)  # fmt: skip
# Points in a curve between one nine and the next: each halving of what is left has so many.
_TICKS = 8

Result = Literal["passed", "missed", "invalid", "not judged"]


@dataclass(frozen=True)
class Use:
    """What a container used in the judged phases; None where it was not read often enough.

    Attributes:
        cpu_mean, cpu_max: percent of one CPU.
        cpu_ms: milliseconds of CPU for each right answer.
        memory_max: bytes, as `docker stats` counts.
        memory_limit: bytes; None without a limit.
        throttled_ms: milliseconds a second that it waited for its CPU quota, mean.
        major_faults: pages a second, mean.
        oom_kills: in the whole run.
        restarts: in the whole run.
    """

    cpu_mean: float | None = None
    cpu_max: float | None = None
    cpu_ms: float | None = None
    memory_max: int | None = None
    memory_limit: int | None = None
    throttled_ms: float | None = None
    major_faults: float | None = None
    oom_kills: int | None = None
    restarts: int | None = None

    @property
    def memory_percent(self) -> float | None:
        """Most memory as a share of the limit."""
        if self.memory_max is None or not self.memory_limit:
            return None
        return 100 * self.memory_max / self.memory_limit


@dataclass(frozen=True)
class Unread:
    """A value that could not be read: its dotted name, why, and in how many of the samples."""

    name: str
    reason: str
    samples: int
    of: int


@dataclass(frozen=True)
class Totals:
    """The judged phases of a run together.

    Attributes:
        count: requests, errors and latency; percentiles from the added-up histograms.
        seconds: how long the phases lasted.
        achieved_rate: right answers a second.
        load_max: highest load average once its minute no longer reaches before the phase.
        use: by container.
    """

    count: Count
    seconds: float
    achieved_rate: float
    load_max: float | None = None
    use: dict[str, Use] = field(default_factory=dict)


def result_of(run: Run) -> Result:
    """The verdict in one word. Invalid comes first: its figures are the generator's, not ours."""
    if not run.generator.valid or run.interrupted:
        return "invalid"
    if run.verdict is None:
        return "not judged"
    return "passed" if run.verdict.passed else "missed"


def judged(run: Run) -> list[Phase]:
    """The phases that count: the judged ones, or all where none is."""
    return [phase for phase in run.phases if phase.judged] or list(run.phases)


def totals(run: Run) -> Totals:
    """What the judged phases of a run come to."""
    phases = judged(run)
    count = added(phases)
    seconds = sum(phase.seconds for phase in phases)
    return Totals(
        count=count,
        seconds=seconds,
        achieved_rate=count.right / seconds if seconds else 0.0,
        load_max=_load(run, phases),
        use=use(run, count.right),
    )


def added(counts: Sequence[Count]) -> Count:
    """Several counts as one. Percentiles come from the added-up histograms, never from means."""
    if len(counts) == 1:
        return Count.model_validate(counts[0].model_dump(include=set(Count.model_fields)))
    errors: dict[str, int] = {}
    for count in counts:
        for kind, number in count.errors.items():
            errors[kind] = errors.get(kind, 0) + number
    histogram = add_up(str(getattr(count, "histogram", "")) for count in counts)
    return Count.model_validate(
        {
            "sent": sum(count.sent for count in counts),
            "right": sum(count.right for count in counts),
            "errors": errors,
            "latency": latency(histogram),
        }
    )


def add_up(encoded: Iterable[str]) -> HdrHistogram | None:
    """One histogram of several, from their encodings; None if one cannot be read, or there is none.

    A sum that silently left one out would be a wrong figure.
    """
    total: HdrHistogram | None = None
    for text in encoded:
        try:
            histogram = HdrHistogram.decode(text)
            if total is None:
                total = histogram
            else:
                total.add(histogram)
        except _UNREADABLE:
            return None
    return total


def latency(histogram: HdrHistogram | None) -> Latency:
    """Percentiles of a histogram of microseconds, in milliseconds."""
    if histogram is None or not histogram.get_total_count():
        return Latency()

    def at(percentile: float) -> float:
        return float(histogram.get_value_at_percentile(percentile)) / 1000

    return Latency(
        p50=at(50), p90=at(90), p95=at(95), p99=at(99), p999=at(99.9),
        max=histogram.get_max_value() / 1000, mean=histogram.get_mean_value() / 1000,
    )  # fmt: skip


def curve(histogram: HdrHistogram | None) -> list[tuple[float, float]]:
    """The percentile curve: pairs of percentile and milliseconds, ever denser towards 100."""
    if histogram is None or not histogram.get_total_count():
        return []
    return [
        (float(step.percentile_level_iterated_to), step.value_iterated_to / 1000)
        for step in histogram.get_percentile_iterator(_TICKS)
    ]


def use(run: Run, right: int) -> dict[str, Use]:
    """What each container used in the judged phases, by its name."""
    phases = [
        (phase, samples_between(run, phase.began, phase.began + phase.seconds))
        for phase in judged(run)
    ]
    names = dict.fromkeys(name for sample in run.samples for name in sorted(sample.containers))
    return {name: _use(name, phases, run.samples, right) for name in sorted(names)}


def _use(
    name: str,
    phases: Sequence[tuple[Phase, Sequence[tuple[float, Sample]]]],
    whole: Sequence[Sample],
    right: int,
) -> Use:
    seconds = sum(phase.seconds for phase, _ in phases)

    def read(attribute: str, samples: Iterable[Sample]) -> list[float]:
        found = (getattr(s.containers.get(name, ContainerSample()), attribute) for s in samples)
        return [value for value in found if value is not None]

    def watched(attribute: str) -> list[float]:
        values = []
        for phase, inside in phases:
            found = [(at, read(attribute, [sample])) for at, sample in inside]
            if seen_enough([at for at, value in found if value], phase):
                return []
            values += [number for _, value in found for number in value]
        return values

    def mean(values: Sequence[float]) -> float | None:
        return statistics.fmean(values) if values else None

    cpu = watched("cpu_percent")
    memory = watched("memory")
    limits = read("memory_limit", (sample for _, inside in phases for _, sample in inside))
    cpu_mean = mean(cpu)
    ends = {what: read(what, whole) for what in ("oom_kills", "restarts")}
    grown = {what: int(values[-1] - values[0]) for what, values in ends.items() if values}
    return Use(
        cpu_mean=cpu_mean,
        cpu_max=max(cpu, default=None),
        cpu_ms=cpu_mean * 10 * seconds / right if cpu_mean is not None and right else None,
        memory_max=int(max(memory)) if memory else None,
        memory_limit=int(limits[-1]) if limits else None,
        throttled_ms=mean(watched("throttled_ms")),
        major_faults=mean(watched("major_faults")),
        oom_kills=grown.get("oom_kills"),
        restarts=grown.get("restarts"),
    )


def _load(run: Run, phases: Sequence[Phase]) -> float | None:
    highest: list[float] = []
    for phase in phases:
        inside = samples_between(run, phase.began, phase.began + phase.seconds)
        known = [(at, sample) for at, sample in inside if sample.host.load1 is not None]
        if seen_enough([at for at, _ in known], phase):
            return None
        highest.append(load_of(phase, known)[0])
    return max(highest, default=None)


def unread(run: Run) -> list[Unread]:
    """What the monitor could not read, and why; a first sample's missing rates are no news."""
    seen: dict[tuple[str, str], int] = {}
    for sample in run.samples:
        for name, reason in sample.unread.items():
            if reason != "first sample":
                seen[name, reason] = seen.get((name, reason), 0) + 1
    return [
        Unread(name, reason, number, len(run.samples))
        for (name, reason), number in sorted(seen.items())
    ]
