"""What the generator told, and the figures made of it. Percentiles come from HDR histograms only,
and a sum's are those of the added histograms: nothing is averaged.
"""

from __future__ import annotations

import statistics
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hdrh.histogram import HdrHistogram

from koprogo_deploy.load.application import KINDS
from koprogo_deploy.load.generator import COLUMNS, KIND_NAMES, OUTCOMES, UNFINISHED, Event
from koprogo_deploy.load.plan import Plan
from koprogo_deploy.load.schedule import asked_in
from koprogo_deploy.runs.model import (
    ERROR_KINDS,
    Count,
    Endpoint,
    ErrorKind,
    Generator,
    Latency,
    Phase,
)
from koprogo_deploy.runs.model import Second as SecondModel

# Three significant digits, from a microsecond to an hour.
HIGHEST = 3_600_000_000
DIGITS = 3
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
RECENT = 3  # seconds that the live percentiles look back

# When the generator is what was measured. Each is explained in `verdict_on_itself`.
LATE_P99_MS = 5.0
LATE_SHARE, LATE_NOTICED_MS = 0.1, 1.0
BUSY_PERCENT, BUSY_SHARE = 90.0, 0.1
SENT_SHARE = 0.99


def histogram() -> Any:  # noqa: ANN401 - hdrh has no types
    """An empty histogram of microseconds."""
    return HdrHistogram(1, HIGHEST, DIGITS)


def latency(of: Any) -> Latency:  # noqa: ANN401
    """A histogram's figures, in milliseconds."""
    if not of.total_count:
        return Latency()
    at = of.get_percentile_to_value_dict(list(PERCENTILES))
    # A bucket's upper end may lie above the highest value in it.
    p50, p90, p95, p99, p999 = (_ms(min(at[percent], of.max_value)) for percent in PERCENTILES)
    return Latency(
        p50=p50, p90=p90, p95=p95, p99=p99, p999=p999,
        max=_ms(of.max_value), mean=_ms(of.get_mean_value()),
    )  # fmt: skip


def _ms(microseconds: float) -> float:
    return round(microseconds / 1000, 3)


@dataclass
class Progress:
    """How a run is getting on.

    Attributes:
        at: seconds since it began.
        asked: requests a second; None in a closed loop.
        rate: right answers in the last second.
        p50, p99: milliseconds, of the last seconds.
        errors: by kind, since the beginning.
        left: seconds until the planned end.
        under_way: requests without an answer yet.
        cpu: of the generator, percent of one.
    """

    at: float = 0.0
    phase: str = ""
    judged: bool = False
    asked: float | None = None
    users: int | None = None
    rate: float = 0.0
    p50: float | None = None
    p99: float | None = None
    errors: dict[str, int] = field(default_factory=dict)
    left: float = 0.0
    under_way: int = 0
    cpu: float = 0.0


@dataclass
class _PhaseTold:
    began: float
    ended: float | None = None


class Ledger:
    """Takes the generator's events in, gives figures out."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.began: float | None = None  # seconds since the epoch
        self.done = False
        self.failed = ""
        self.tokens: list[str] = []
        self.notes: list[str] = []
        self.words: dict[str, list[str]] = {}
        self.progress = Progress(left=float(plan.seconds))
        self._rows = {name: array("q") for name in COLUMNS}
        self._phases: dict[int, _PhaseTold] = {}
        self._cpu: list[tuple[float, float]] = []  # until when, percent
        self._recent: deque[list[int]] = deque(maxlen=RECENT)
        self._errors: Counter[str] = Counter()

    def take(self, event: Event) -> None:
        """Take one event in."""
        match event["event"]:
            case "began":
                self.began = float(event["at"])
            case "phase":
                self._phases[event["phase"]] = _PhaseTold(event["began"] / 1e6)
            case "phase ended":
                self._phases[event["phase"]].ended = event["ended"] / 1e6
            case "rows":
                self._take_rows(event)
            case "tokens":
                self.tokens += event["tokens"]
            case "note":
                self.notes.append(event["text"])
            case "failed":
                self.failed = self.failed or event["text"]
            case "done":
                self.done = True

    def _take_rows(self, event: Event) -> None:
        rows = dict(zip(COLUMNS, event["rows"], strict=True))
        for name, values in rows.items():
            self._rows[name].extend(values)
        self.words = event.get("words", self.words)
        if event["at"] > 0:
            self._cpu.append((event["at"], event["cpu"]))
        outcomes = Counter(rows["outcome"])
        for number, count in outcomes.items():
            if OUTCOMES[number] in ERROR_KINDS:
                self._errors[OUTCOMES[number]] += count
        self._recent.append(rows["took"])
        self._progress(event, outcomes[0])

    def _progress(self, event: Event, right: int) -> None:
        now = self.progress
        if not event["at"]:
            return
        if self._phases:
            phase = self.plan.phases[max(self._phases)]
            now.phase, now.judged = phase.name, phase.judged
            now.asked, now.users = phase.rate, phase.users
        now.at, now.rate = event["at"], float(right)
        now.under_way, now.cpu = event["under_way"], event["cpu"]
        now.errors = {kind: self._errors[kind] for kind in ERROR_KINDS if self._errors[kind]}
        recent = histogram()
        for values in self._recent:
            for value in values:
                recent.record_value(value)
        found = latency(recent)
        now.p50, now.p99 = found.p50, found.p99
        now.left = max(0.0, self.plan.seconds - now.at)

    # --- figures ---------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Requests that were told of."""
        return len(self._rows["at"])

    @property
    def seconds(self) -> float:
        """From the beginning to the end of the last phase."""
        return max((told.ended or told.began for told in self._phases.values()), default=0.0)

    def created(self) -> dict[str, int]:
        """Rows that right answers say were created, by table."""
        counts = Counter(zip(self._rows["kind"], self._rows["outcome"], strict=True))
        tables = {KINDS[name].table for name in KIND_NAMES} - {""}
        return {
            table: total
            for table in sorted(tables)
            if (total := counts[KIND_NAMES.index(f"POST /{table}"), 0])
        }

    def phases(self) -> list[Phase]:
        """Every phase that began, with its endpoints."""
        rows = self._rows
        per: dict[tuple[int, int], _Sum] = {}
        in_time: Counter[int] = Counter()
        ends = {number: self._length(number) for number in self._phases}
        for phase, kind, outcome, at, took in zip(
            rows["phase"], rows["kind"], rows["outcome"], rows["at"], rows["took"], strict=True
        ):
            per.setdefault((phase, kind), _Sum()).add(outcome, took)
            if outcome == 0 and (at + took) / 1e6 <= ends[phase][1]:
                in_time[phase] += 1
        return [
            self._phase(number, {k: s for (p, k), s in per.items() if p == number}, in_time[number])
            for number in sorted(self._phases)
        ]

    def _length(self, number: int) -> tuple[float, float]:
        """When a phase began, and when its sending ended."""
        told, planned = self._phases[number], self.plan.phases[number].seconds
        ended = told.began + planned
        return told.began, min(ended, told.ended) if told.ended is not None else ended

    def _phase(self, number: int, kinds: dict[int, _Sum], in_time: int) -> Phase:
        planned = self.plan.phases[number]
        began, ended = self._length(number)
        seconds = max(ended - began, 1e-6)
        total = _Sum()
        for summed in kinds.values():
            total.join(summed)
        return Phase(
            name=planned.name,
            mode="closed" if planned.rate is None else "open",
            asked_rate=planned.rate,
            users=planned.users,
            began=round(began, 3),
            seconds=round(seconds, 3),
            # Of the answers that came while it lasted: a queue that is worked off afterwards
            # is no throughput.
            achieved_rate=round(in_time / seconds, 2),
            sent_rate=round(total.sent / seconds, 2),
            judged=planned.judged,
            endpoints=[
                Endpoint(
                    name=KIND_NAMES[kind],
                    writes=bool(KINDS[KIND_NAMES[kind]].table),
                    histogram=summed.encoded(),
                    **_counts(summed),
                )
                for kind, summed in sorted(kinds.items())
            ],
            histogram=total.encoded(),
            **_counts(total),
        )

    def series(self) -> list[SecondModel]:
        """Every second of every phase, by intended send time."""
        per: dict[int, _SecondTold] = {}
        rows = self._rows
        for outcome, at, took, late in zip(
            rows["outcome"], rows["at"], rows["took"], rows["late"], strict=True
        ):
            second = per.get(at // 1_000_000)
            if second is None:
                second = per[at // 1_000_000] = _SecondTold()
            second.add(outcome, took, late)
        cpu = {round(until) - 1: percent for until, percent in self._cpu}
        found, used = [], histogram()
        for number in sorted(self._phases):
            began, ended = self._length(number)
            first = round(began)
            for offset in range(max(1, -(-round((ended - began) * 1000) // 1000))):
                second = per.get(first + offset, _SecondTold())
                rate = self.plan.phases[number].rate
                used.reset()
                for took in second.took:
                    used.record_value(took)
                figures = latency(used)
                found.append(
                    SecondModel(
                        at=float(first + offset),
                        asked=None if rate is None else asked_in(offset, rate),
                        sent=second.sent,
                        right=second.right,
                        errors=second.errors(),
                        p50=figures.p50,
                        p99=figures.p99,
                        max=figures.max,
                        late_ms=_ms(second.late),
                        generator_cpu_percent=cpu.get(first + offset),
                    )
                )
        return found

    def generator(self, phases: Sequence[Phase]) -> Generator:
        """How the generator fared, warm-ups left out where there is anything else."""
        measured = [n for n in sorted(self._phases) if not self._warms_up(n)]
        measured = measured or sorted(self._phases)
        spans = [self._length(number) for number in measured]
        cpu = [
            percent
            for until, percent in self._cpu
            if any(began < until <= ended + 0.5 for began, ended in spans)
        ]
        lates = histogram()
        opened = {n for n in measured if self.plan.phases[n].rate is not None}
        for phase, late in zip(self._rows["phase"], self._rows["late"], strict=True):
            if phase in opened:
                lates.record_value(late)
        late_p99 = _ms(lates.get_value_at_percentile(99.0)) if lates.total_count else 0.0
        judged = [phase for n, phase in zip(sorted(self._phases), phases, strict=True)
                  if n in measured]  # fmt: skip
        reasons = verdict_on_itself(judged, late_p99, cpu)
        return Generator(
            valid=not reasons,
            reasons=reasons,
            cpu_percent_mean=round(statistics.fmean(cpu), 1) if cpu else 0.0,
            cpu_percent_max=max(cpu, default=0.0),
            late_p99_ms=late_p99,
            late_max_ms=_ms(lates.max_value) if lates.total_count else 0.0,
            connections=self.plan.connections,
        )

    def _warms_up(self, number: int) -> bool:
        return self.plan.phases[number].warm_up


def verdict_on_itself(
    phases: Iterable[Phase], late_p99_ms: float, cpu: Sequence[float]
) -> list[str]:
    """Why a run is invalid: what was measured is the generator, not the server.

    Args:
        phases: those that count.
        late_p99_ms: of requests of open loops, how long after their time they were sent.
        cpu: percent of one CPU, each second.

    Returns:
        A reason each for: requests sent late, by more than a tenth of the P99 that is reported
        (if that is a millisecond at least: below it nothing is told apart); a generator that had
        no CPU left, in a tenth of the seconds; a rate not offered to 99 %.
    """
    reasons = []
    for phase in phases:
        if phase.mode == "closed" or phase.asked_rate is None:
            continue
        if phase.sent_rate < SENT_SHARE * phase.asked_rate:
            reasons.append(
                f"{phase.name}: {phase.sent_rate:.1f} requests a second were sent of "
                f"{phase.asked_rate:g} asked"
            )
        bound = LATE_P99_MS
        if phase.latency.p99 is not None:
            bound = max(LATE_NOTICED_MS, LATE_SHARE * phase.latency.p99)
        if late_p99_ms > bound:
            reasons.append(
                f"{phase.name}: the generator sent late by {late_p99_ms:.1f} ms (P99), "
                f"more than {bound:.1f} ms"
            )
    busy = sum(percent >= BUSY_PERCENT for percent in cpu)
    if cpu and busy > BUSY_SHARE * len(cpu):
        reasons.append(
            f"the generator used {BUSY_PERCENT:.0f} % of a CPU or more in {busy} of "
            f"{len(cpu)} seconds"
        )
    return reasons


class _Sum:
    """Outcomes and durations of some requests."""

    def __init__(self) -> None:
        self.outcomes: Counter[int] = Counter()
        self.histogram = histogram()

    def add(self, outcome: int, took: int) -> None:
        self.outcomes[outcome] += 1
        if outcome != UNFINISHED:
            self.histogram.record_value(min(took, HIGHEST))

    def join(self, other: _Sum) -> None:
        self.outcomes += other.outcomes
        highest = max(self.histogram.max_value, other.histogram.max_value)
        self.histogram.add(other.histogram)
        # It would be the upper end of its bucket.
        self.histogram.max_value = highest

    @property
    def sent(self) -> int:
        return self.outcomes.total()

    def errors(self) -> dict[ErrorKind, int]:
        return {
            kind: count for kind in ERROR_KINDS if (count := self.outcomes[OUTCOMES.index(kind)])
        }

    def encoded(self) -> str:
        return self.histogram.encode().decode("ascii") if self.histogram.total_count else ""


def _counts(summed: _Sum) -> dict[str, Any]:
    count = Count(
        sent=summed.sent,
        right=summed.outcomes[0],
        errors=summed.errors(),
        latency=latency(summed.histogram),
    )
    return {name: getattr(count, name) for name in Count.model_fields}


class _SecondTold:
    """One second of the series."""

    def __init__(self) -> None:
        self.outcomes: Counter[int] = Counter()
        self.took: array[int] = array("q")
        self.late = 0

    def add(self, outcome: int, took: int, late: int) -> None:
        self.outcomes[outcome] += 1
        if outcome != UNFINISHED:
            self.took.append(took)
        self.late = max(self.late, late)

    @property
    def sent(self) -> int:
        return self.outcomes.total()

    @property
    def right(self) -> int:
        return self.outcomes[0]

    def errors(self) -> dict[ErrorKind, int]:
        return {
            kind: count for kind in ERROR_KINDS if (count := self.outcomes[OUTCOMES.index(kind)])
        }
