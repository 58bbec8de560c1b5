"""The gate: whether a run met the environment's objectives. Pure: a run and settings in, a verdict
out.

The guide's objectives, and goals of our own that are tighter. What could not be read is a miss,
and so is a run that its own generator held up: nothing passes unseen.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from koprogo_deploy.runs.model import Judgement, Phase, Run, Verdict
from koprogo_deploy.runs.sample import Sample
from koprogo_deploy.settings import Settings
from koprogo_deploy.units import MB

# A value read in fewer of a phase's seconds than this was not really watched.
COVERAGE = 0.9
# Nor was one that nobody read for so many seconds on end: it may have been worst just then.
MOST_UNSEEN = 5.0
# The kernel's load average of one minute still holds what was before the phase.
LOAD_MEMORY = 60.0
# A goal is for the rate it names: a run that asked for more is judged by the objectives only.
RATE_LEEWAY = 1.25
# At a rate that is met, no more than this share may be missing.
ACHIEVED = 0.99
WORST_SECONDS = 5
MOST_DIGITS = 4


@dataclass(frozen=True)
class _Bound:
    """An objective: its name, its limit, and how both are shown."""

    name: str
    label: str
    limit: float
    unit: str
    more: bool = False  # the value must be above the limit, not below
    ours: bool = False

    def show(self, value: float) -> str:
        digits = 0 if self.unit in ("MB", "req/s") or abs(value) >= 100 else 2
        text = f"{value:.{digits}f}"
        while float(text) == self.limit != value and digits < MOST_DIGITS:
            digits += 1  # 128.3 MB is no "128 MB" where less than 128 is wanted
            text = f"{value:.{digits}f}"
        return f"{text}{'' if self.unit == '%' else ' ' if self.unit else ''}{self.unit}"

    def judge(self, value: float | None, busy: Callable[[], str], why: str = "") -> Judgement:
        wanted = f"{'>' if self.more else '<'} {self.limit:g}{' ' if self.unit else ''}{self.unit}"
        made = Judgement(
            name=self.name, label=self.label, met=False, wanted=wanted,
            measured=why or "could not be read", unit=self.unit, bound=self.limit, ours=self.ours,
        )  # fmt: skip
        if value is None:
            return made
        made.value, made.measured = value, self.show(value)
        made.met = value > self.limit if self.more else value < self.limit
        beyond = self.limit - value if self.more else value - self.limit
        made.by = round(100 * beyond / self.limit, 1) if self.limit else None
        if not made.met:
            made.busy = busy()
        return made


def judge(run: Run, settings: Settings) -> Verdict:
    """Judge a run by an environment's objectives.

    Args:
        run: with the monitor's samples; without them memory and load cannot be judged, and fail.
        settings: the environment's; `objective_*` and `goal_*`.

    Returns:
        Passed only if the run is valid, whole, and every objective and goal is met.
    """
    phases = [phase for phase in run.phases if phase.judged]
    problems = []
    if run.interrupted:
        problems.append("the run was interrupted")
    if not phases:
        return Verdict(passed=False, problems=[*problems, "nothing was judged: no such phase"])
    if not run.generator.valid:
        problems += [f"invalid run: {reason}" for reason in run.generator.reasons] or ["invalid"]
    if run.monitor_problem:
        problems.append(f"monitor: {run.monitor_problem}")
    judgements = [*_answers(run, phases, settings), *_host(run, phases, settings)]
    judgements += _goals(run, phases, settings, judgements)
    passed = not problems and all(judgement.met for judgement in judgements)
    return Verdict(passed=passed, judgements=judgements, problems=problems)


def _answers(run: Run, phases: Sequence[Phase], settings: Settings) -> list[Judgement]:
    def busy() -> str:
        return busy_at(run, worst_seconds(run, phases))

    rate = _Bound("rate", "Right answers", settings.objective_rate, "req/s", more=True)
    p99 = _Bound("p99", "P99", settings.objective_p99, "ms")
    p50 = _Bound("p50", "P50", settings.objective_p50, "ms")
    errors = _Bound("errors", "Errors", settings.objective_errors, "%")
    judged = [
        rate.judge(min(phase.achieved_rate for phase in phases), busy),
        p99.judge(_most(phase.latency.p99 for phase in phases), busy, "nothing was answered"),
        p50.judge(_most(phase.latency.p50 for phase in phases), busy, "nothing was answered"),
        errors.judge(_most(phase.error_percent for phase in phases), busy, "nothing was answered"),
    ]
    failed = _kinds(phases)
    if failed and not judged[-1].met:
        judged[-1].busy = f"{failed}; {judged[-1].busy}"
    return judged


def _kinds(phases: Sequence[Phase]) -> str:
    total: dict[str, int] = {}
    for phase in phases:
        for kind, count in phase.errors.items():
            total[kind] = total.get(kind, 0) + count
    return ", ".join(f"{count} × {kind}" for kind, count in total.items() if count)


def _host(run: Run, phases: Sequence[Phase], settings: Settings) -> list[Judgement]:
    judged = []
    limits = (
        ("backend", settings.objective_backend_memory),
        ("postgres", settings.objective_postgres_memory),
        ("traefik", settings.objective_traefik_memory),
    )
    for service, limit in limits:
        bound = _Bound(f"{service}_memory", f"{service.capitalize()} memory", limit / MB, "MB")
        about = re.compile(rf"containers(\.{service}(-\w+)?(\.memory)?)?")
        value, at, why = _watched(run, phases, _memory_of(service), about)
        if ended := _ended(run, phases, service):
            # Where the limit is the objective, memory above it is never seen: only this is.
            value, why = None, ended
        judged.append(bound.judge(value, lambda at=at: busy_at(run, [at]), why))  # type: ignore[misc]
    bound = _Bound("load_average", "Load average", settings.objective_load_average, "")
    about = re.compile(r"host(\.load1)?")
    value, at, why = _watched(run, phases, lambda s: s.host.load1, about, load_of)
    judged.append(bound.judge(value, lambda: busy_at(run, [at]), why))
    return judged


def _memory_of(service: str) -> Callable[[Sample], float | None]:
    def memory(sample: Sample) -> float | None:
        # Each colour by itself: the limit is a container's.
        found = [
            container.memory
            for name, container in sample.containers.items()
            if name.partition("-")[0] == service
        ]
        if not found or any(value is None for value in found):
            return None
        return max(value for value in found if value is not None) / MB

    return memory


def _ended(run: Run, phases: Sequence[Phase], service: str) -> str:
    """How a service's container was killed or restarted in the phases; empty if it was not.

    What it used then, between two samples, nobody saw; and its counts began anew.
    """
    times, last = 0, None
    for phase in phases:
        before = None
        for _, sample in samples_between(run, phase.began - 1, phase.began + phase.seconds):
            now = sample.containers.get(service)
            if before and now:
                died = _more(before.oom_kills, now.oom_kills) or _more(
                    before.restarts, now.restarts
                )
                times += died
                last = before if died else last
            before = now or before
    if last is None:
        return ""
    text = f"unknown: it was killed or restarted {times} ×"
    if last.memory is not None and last.memory_limit:
        text += f", with {last.memory / MB:.0f} MB of its {last.memory_limit / MB:.0f} MB in use"
    return text


def _more(before: int | None, now: int | None) -> int:
    # Kills are counted since a container's start: fewer than before means a new start.
    return max(0, now - before) if before is not None and now is not None else 0


def seen_enough(times: Sequence[float], phase: Phase) -> str:
    """Why a value that was read at these times does not stand for a phase; empty if it does.

    Args:
        times: seconds of the run, ascending.
        phase: the whole of it.
    """
    if len(times) < COVERAGE * max(1, int(phase.seconds)):
        return f"read in {len(times)} of {phase.seconds:.0f} s"
    edges = [phase.began, *times, phase.began + phase.seconds]
    longest = max(after - before for before, after in pairwise(edges))
    return f"not read for {longest:.0f} s on end" if longest > MOST_UNSEEN else ""


def load_of(phase: Phase, values: Sequence[tuple[float, Sample]]) -> tuple[float, float]:
    """The load average that stands for a phase, and when it was.

    In a phase of less than a minute the kernel's average has gone but part of the way from what
    was before to what the phase makes of it: it is followed to its end.

    Args:
        phase: of which `began` counts.
        values: time in the run's seconds and sample, ascending; those with a load average.
    """
    loads = [(sample.host.load1 or 0.0, at) for at, sample in values]
    if late := [pair for pair in loads if pair[1] >= phase.began + LOAD_MEMORY]:
        return max(late)
    (first, began), (last, ended) = loads[0], loads[-1]
    left = math.exp(-(ended - began) / LOAD_MEMORY)
    if values[-1][1].host.load_source == "kernel" and left < 1:
        last = max(last, (last - first * left) / (1 - left))
    return last, ended


def _watched(
    run: Run,
    phases: Sequence[Phase],
    read: Callable[[Sample], float | None],
    about: re.Pattern[str],
    pick: Callable[[Phase, Sequence[tuple[float, Sample]]], tuple[float, float]] | None = None,
) -> tuple[float | None, float, str]:
    """The highest value in the phases, when it was (run's seconds), and why there is none.

    `about` fits the names under which a sample says why it could not be read; `pick` chooses what
    stands for a phase, the highest without it.
    """
    best: tuple[float, float] | None = None
    for phase in phases:
        inside = samples_between(run, phase.began, phase.began + phase.seconds)
        found = [(at, sample, read(sample)) for at, sample in inside]
        values = [(value, at) for at, _, value in found if value is not None]
        if unseen := seen_enough([at for _, at in values], phase):
            reasons = {
                reason
                for _, sample in inside
                for path, reason in sample.unread.items()
                if about.fullmatch(path)
            }
            why = "; ".join(sorted(reasons)) or "it was not sampled"
            return None, phase.began, f"could not be read: {why} ({unseen})"
        known = [(at, sample) for at, sample, value in found if value is not None]
        highest = pick(phase, known) if pick else max(values)
        best = max(best, highest) if best else highest
    assert best is not None  # there are phases, and each has values
    return best[0], best[1], ""


def _goals(
    run: Run, phases: Sequence[Phase], settings: Settings, judged: Sequence[Judgement]
) -> list[Judgement]:
    """Ours, where the run asked for the rate that a goal is for; only an open loop asks for one."""
    rates = [phase.asked_rate for phase in phases if phase.asked_rate is not None]
    if not rates or len(rates) != len(phases):
        return []
    found = []
    if max(rates) <= settings.objective_rate * RATE_LEEWAY:
        bound = _Bound("goal_p99", "P99", settings.goal_p99, "ms", ours=True)
        value = _most(phase.latency.p99 for phase in phases)
        found.append(bound.judge(value, lambda: busy_at(run, worst_seconds(run, phases))))
    if min(rates) >= settings.goal_rate:
        achieved = min(phase.achieved_rate for phase in phases)
        missed = [judgement.label for judgement in judged if not judgement.met]
        least = settings.goal_rate * ACHIEVED
        goal = _Bound("goal_rate", f"All at {settings.goal_rate} req/s", least, "req/s", True, True)
        judgement = goal.judge(achieved, lambda: busy_at(run, worst_seconds(run, phases)))
        if missed:
            # By how much is then the others' to say, unless the rate itself was missed.
            judgement.met, judgement.by = False, None if judgement.met else judgement.by
            judgement.measured += f", missed: {', '.join(missed)}"
            judgement.busy = judgement.busy or busy_at(run, worst_seconds(run, phases))
        found.append(judgement)
    return found


def _most(values: Iterable[float | None]) -> float | None:
    known = list(values)
    if not known or any(value is None for value in known):
        return None
    return max(value for value in known if value is not None)


def samples_between(run: Run, began: float, ended: float) -> list[tuple[float, Sample]]:
    """The monitor's samples of a stretch of a run, each with its time in the run's seconds."""
    offset = run.began + (run.clock_offset or 0.0)
    timed = ((sample.at - offset, sample) for sample in run.samples)
    return [(at, sample) for at, sample in timed if began <= at <= ended + 0.5]


def worst_seconds(run: Run, phases: Sequence[Phase]) -> list[float]:
    """The seconds with the most failures and the longest waits."""
    inside = [
        second
        for second in run.series
        if any(phase.began <= second.at < phase.began + phase.seconds for phase in phases)
    ]
    inside.sort(key=lambda s: (sum(s.errors.values()), s.p99 or 0.0), reverse=True)
    return [second.at for second in inside[:WORST_SECONDS]]


def busy_at(run: Run, times: Sequence[float]) -> str:
    """What was busy at these seconds of a run, in words."""
    near = [
        sample for at, sample in samples_between(run, -1.0, run.seconds)
        if any(abs(at - time - 0.5) <= 1.0 for time in times)
    ]  # fmt: skip
    if not near:
        return "nothing was watching then"

    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None

    said = []
    if (cpu := mean(sample.host.cpu_percent for sample in near)) is not None:
        said.append(f"CPU {cpu:.0f}%")
    shares = {
        name: mean(s.containers[name].cpu_percent for s in near if name in s.containers)
        for name in sorted({name for sample in near for name in sample.containers})
    }
    known = {name: share for name, share in shares.items() if share is not None}
    top = sorted(known.items(), key=lambda pair: -pair[1])[:2]
    said += [f"{name} {share:.0f}%" for name, share in top if share >= 1]
    for name in known:
        throttled = mean(s.containers[name].throttled_ms for s in near if name in s.containers)
        if throttled and throttled >= 10:
            said.append(f"{name} throttled {throttled:.0f} ms/s")
        faults = mean(s.containers[name].major_faults for s in near if name in s.containers)
        if faults and faults >= 10:
            said.append(f"{name} {faults:.0f} major faults/s")
    for what in ("io", "memory"):
        waiting = mean(s.host.pressure[what].some for s in near if what in s.host.pressure)
        if waiting and waiting >= 5:
            said.append(f"{what} pressure {waiting:.0f}%")
    for disk in sorted({name for sample in near for name in sample.host.disks}):
        busy = mean(s.host.disks[disk].busy_percent for s in near if disk in s.host.disks)
        if busy and busy >= 50:
            said.append(f"disk {disk} {busy:.0f}% busy")
    locks = mean(sample.postgres.waiting for sample in near)
    if locks and locks >= 1:
        said.append(f"{locks:.0f} sessions waiting for locks")
    return ", ".join(said) or "nothing: the host was idle"
