"""What a report says of a run, before it is a page, Markdown or JSON. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from koprogo_deploy import figures
from koprogo_deploy.figures import Result, Unread, Use, result_of
from koprogo_deploy.runs.model import Count, Judgement, Phase, Run


@dataclass(frozen=True)
class Row:
    """How a kind of request, or a phase, came out. Rates in requests a second, times in ms."""

    name: str
    sent: int
    right: int
    failed: int
    errors: dict[str, int]
    error_percent: float | None
    latency_ms: dict[str, float | None]
    writes: bool | None = None


@dataclass(frozen=True)
class Stretch:
    """A phase: what was asked, what came, and each kind of request in it."""

    name: str
    judged: bool
    mode: str
    asked_rate: float | None
    users: int | None
    began: float
    seconds: float
    sent_rate: float
    achieved_rate: float
    row: Row
    endpoints: list[Row]


@dataclass(frozen=True)
class Content:
    """Everything that a report says of one run.

    Attributes:
        result: the verdict in one word; `invalid` when the figures say nothing about the stack.
        headline: the verdict in one sentence.
        problems: what no objective covers.
        objectives: as the gate judged them when the run was made.
        totals: the judged phases together.
        peaks: the highest of what the host showed, by name.
        unread: what the monitor could not read.
        unwatched: why there are no samples; empty if there are.
    """

    id: str
    profile: str
    environment: str
    url: str
    began: datetime
    seconds: float
    command: str
    revision: str
    result: Result
    headline: str
    problems: list[str]
    objectives: list[Judgement]
    totals: figures.Totals
    row: Row
    phases: list[Stretch]
    containers: dict[str, Use]
    generator: dict[str, Any]
    machine: dict[str, Any]
    deployed: dict[str, Any]
    cleanup: dict[str, Any]
    unread: list[Unread] = field(default_factory=list)
    unwatched: str = ""


def content(run: Run) -> Content:
    """What a report says of this run."""
    result = result_of(run)
    problems = list(run.verdict.problems) if run.verdict else []
    if result == "invalid":  # the headline says why
        said = ("invalid", "the run was interrupted")
        problems = [problem for problem in problems if not problem.startswith(said)]
    if run.samples and run.monitor_problem and run.verdict is None:
        problems.append(f"monitor: {run.monitor_problem}")  # a verdict says so itself
    totals = figures.totals(run)
    unwatched = "" if run.samples else run.monitor_problem or "the run was made without a monitor"
    return Content(
        id=run.id,
        profile=run.profile,
        environment=run.environment,
        url=run.url,
        began=datetime.fromtimestamp(run.began, UTC),
        seconds=run.seconds,
        command=run.command,
        revision=run.revision,
        result=result,
        headline=_headline(run, result),
        problems=problems,
        objectives=list(run.verdict.judgements) if run.verdict else [],
        totals=totals,
        row=_row("all", totals.count),
        phases=[_stretch(phase) for phase in run.phases],
        containers=totals.use,
        generator=run.generator.model_dump(),
        machine=run.machine.model_dump(),
        deployed=run.deployed.model_dump(),
        cleanup=run.cleanup.model_dump(),
        unread=figures.unread(run),
        unwatched=unwatched,
    )


def _headline(run: Run, result: Result) -> str:
    if result == "invalid":
        reasons = ["it was interrupted"] if run.interrupted else []
        if not run.generator.valid:
            reasons += run.generator.reasons or ["the generator held the run up"]
        return f"Nothing can be said of the stack: {'; '.join(reasons)}."
    if run.verdict is None:
        return (
            "This run was measured, not judged: --gate judges it by the environment's objectives."
        )
    missed = [judgement for judgement in run.verdict.judgements if not judgement.met]
    if missed:
        said = [f"{named(one)} {one.measured} (wanted {one.wanted})" for one in missed]
        more = f", {len(said) - 3} more" if len(said) > 3 else ""
        return f"{len(missed)} of {len(run.verdict.judgements)}: {', '.join(said[:3])}{more}."
    if not run.verdict.passed:
        return f"{'; '.join(run.verdict.problems) or 'no objective was judged'}."
    ours = sum(judgement.ours for judgement in run.verdict.judgements)
    tighter = f", {ours} of them our own, tighter goals" if ours else ""
    return f"All {len(run.verdict.judgements)} objectives met{tighter}."


def named(judgement: Judgement) -> str:
    """An objective's label, marked where it is one of our own."""
    return f"{judgement.label} (ours)" if judgement.ours else judgement.label


def room(judgement: Judgement) -> str:
    """How far from its bound an objective came out: `91% room`, `12% beyond`, `5% short`."""
    if judgement.by is None:
        return ""  # a goal that is missed by another objective, not by its own value
    miss = "short" if judgement.wanted.startswith(">") else "beyond"
    return f"{abs(judgement.by):.0f}% {'room' if judgement.met else miss}"


def _row(name: str, count: Count, writes: bool | None = None) -> Row:
    return Row(
        name=name,
        sent=count.sent,
        right=count.right,
        failed=count.failed,
        errors={str(kind): number for kind, number in count.errors.items() if number},
        error_percent=count.error_percent,
        latency_ms=count.latency.model_dump(),
        writes=writes,
    )


def _stretch(phase: Phase) -> Stretch:
    return Stretch(
        name=phase.name,
        judged=phase.judged,
        mode=phase.mode,
        asked_rate=phase.asked_rate,
        users=phase.users,
        began=phase.began,
        seconds=phase.seconds,
        sent_rate=phase.sent_rate,
        achieved_rate=phase.achieved_rate,
        row=_row(phase.name, phase),
        endpoints=[_row(one.name, one, one.writes) for one in phase.endpoints],
    )


def asked(stretch: Stretch) -> str:
    """What a phase asked for, in words."""
    if stretch.asked_rate is not None:
        return f"{stretch.asked_rate:g} req/s"
    return f"{stretch.users} users" if stretch.users is not None else "not recorded"
