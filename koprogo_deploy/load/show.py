"""How a run shows on a terminal, in a log, and as JSON lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import orjson
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from koprogo_deploy.load.ledger import Progress
from koprogo_deploy.runs.model import Count, Phase, Run, Verdict
from koprogo_deploy.screen import json_text

LOG_EVERY = 10.0  # seconds between lines where there is no terminal


class View(Protocol):
    """Shows steps and progress while a run goes on."""

    def __call__(self, told: str | Progress) -> None:
        """A step in words, or how it is getting on."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def milliseconds(value: float | None) -> str:
    """Such as `3.21 ms`, `87 ms` or `2.31 s`; a dash for nothing."""
    if value is None:
        return "–"
    if value < 10:
        return f"{value:.2f} ms"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.2f} s"


def progress_line(now: Progress) -> str:
    """How a run is getting on, on one line."""
    asked = f"asked {now.asked:g}/s" if now.asked is not None else f"{now.users} users"
    errors = ", ".join(f"{count} × {kind}" for kind, count in now.errors.items())
    parts = [
        f"{now.phase}",
        f"{_clock(now.left)} left",
        f"{asked}, right {now.rate:.0f}/s",
        f"P50 {milliseconds(now.p50)}",
        f"P99 {milliseconds(now.p99)}",
        f"errors: {errors or 'none'}",
    ]
    if now.cpu >= 70:
        parts.append(f"generator {now.cpu:.0f}% of a CPU")
    return " · ".join(parts)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Terminal:
    """Steps scroll by; the progress line stays at the bottom."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def __call__(self, told: str | Progress) -> None:
        """Show it."""
        if isinstance(told, str):
            self._console.print(f"• {told}", markup=False)
        else:
            colour = "red" if told.errors else ""
            self._live.update(Text(progress_line(told), colour, overflow="ellipsis"), refresh=True)

    def close(self) -> None:
        """Take the progress line away."""
        self._live.stop()


class Log:
    """A line for each step, and one every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = LOG_EVERY

    def __call__(self, told: str | Progress) -> None:
        """Print it, if it is due."""
        if isinstance(told, str):
            self._console.print(f"• {told}", markup=False, soft_wrap=True)
        elif told.at >= self._next:
            self._next += LOG_EVERY
            self._console.print(f"  {progress_line(told)}", markup=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing to do."""


class JsonLines:
    """An object a line on standard output: `step`, `progress`, and at last `finished`."""

    def __call__(self, told: str | Progress) -> None:
        """Write it."""
        if isinstance(told, str):
            self.write({"event": "step", "text": told})
            return
        self.write(
            {
                "event": "progress", "at": told.at, "phase": told.phase, "judged": told.judged,
                "asked": told.asked, "users": told.users, "rate": told.rate,
                "p50": told.p50, "p99": told.p99, "errors": told.errors,
                "left": round(told.left, 1), "under_way": told.under_way, "cpu": told.cpu,
            }
        )  # fmt: skip

    def write(self, event: dict[str, Any]) -> None:
        """One line, at once."""
        json_text(orjson.dumps(event).decode())

    def finished(self, run: Run, file: Path | None) -> None:
        """The last line."""
        self.write(
            {
                "event": "finished", "id": run.id, "file": str(file) if file else None,
                "valid": run.generator.valid, "reasons": run.generator.reasons,
                "passed": run.verdict.passed if run.verdict else None,
                "interrupted": run.interrupted,
                "problem": run.cleanup.problem,
            }
        )  # fmt: skip

    def close(self) -> None:
        """Nothing to do."""


# --- the end -------------------------------------------------------------------------------------


def summary(out: Console, run: Run) -> None:
    """Every phase's endpoints and totals; then what was not as it should be."""
    for phase in run.phases:
        out.print(_phase_table(phase))
        out.print(_achieved(phase), markup=False, soft_wrap=True)
        out.print()
    generator = run.generator
    out.print(
        f"generator: {generator.cpu_percent_mean:.0f}% of a CPU (at most "
        f"{generator.cpu_percent_max:.0f}%), sent late by {milliseconds(generator.late_p99_ms)} "
        f"(P99), at most {milliseconds(generator.late_max_ms)}",
        markup=False,
        soft_wrap=True,
    )
    if not generator.valid:
        reasons = "\n".join(f"  - {reason}" for reason in generator.reasons)
        out.print("INVALID: the generator was measured, not the server:", style="bold red")
        out.print(reasons, markup=False, soft_wrap=True)
    if run.monitor_problem and run.verdict is None:  # a verdict says so itself
        out.print(f"monitor: {run.monitor_problem}", markup=False, soft_wrap=True)
    for note in run.notes:
        out.print(f"note: {note}", markup=False, soft_wrap=True)
    cleanup = run.cleanup
    if cleanup.kept and cleanup.created:
        rows = ", ".join(f"{count} {table}" for table, count in cleanup.created.items())
        out.print(f"kept what was written: {rows}", markup=False)
    if cleanup.problem:
        out.print(cleanup.problem, style="bold red", markup=False, soft_wrap=True)


def _phase_table(phase: Phase) -> Table:
    load = f"{phase.asked_rate:g} req/s" if phase.asked_rate else f"{phase.users} users"
    title = f"{phase.name}: {load}, {phase.seconds:.0f} s"
    if not phase.judged:
        title += " (not judged)"
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for name in ("sent", "right", "errors", "P50", "P90", "P95", "P99", "P99.9", "max"):
        table.add_column(name, justify="right", no_wrap=True)
    for endpoint in phase.endpoints:
        _row(table, endpoint.name, endpoint)
    table.add_section()
    _row(table, "all", phase)
    return table


def _row(table: Table, name: str, count: Count) -> None:
    latency = count.latency
    values = (latency.p50, latency.p90, latency.p95, latency.p99, latency.p999, latency.max)
    errors = Text(str(count.failed), "red" if count.failed else "")
    table.add_row(
        name, str(count.sent), str(count.right), errors, *(milliseconds(value) for value in values)
    )


def _achieved(phase: Phase) -> str:
    asked = f" of {phase.asked_rate:g} asked" if phase.asked_rate else ""
    text = f"sent {phase.sent_rate:.1f} a second{asked}, right {phase.achieved_rate:.1f} a second"
    if phase.failed:
        kinds = ", ".join(f"{count} × {kind}" for kind, count in phase.errors.items())
        text += f"; errors: {kinds} ({phase.error_percent or 0:.2f}%)"
    return text


def verdict(out: Console, found: Verdict, gate: bool) -> None:
    """The objectives, and whether they were met.

    Args:
        out: where to.
        found: the verdict.
        gate: it decides the exit code.
    """
    table = Table(title="Objectives", title_justify="left")
    for name in ("", "wanted", "measured", "", "busy then"):
        table.add_column(name, overflow="fold")
    for judgement in found.judgements:
        outcome = Text("met", "green") if judgement.met else Text("MISSED", "bold red")
        if not judgement.met and judgement.by is not None:
            outcome.append(f" by {judgement.by:.0f}%")
        label = f"{judgement.label} (ours)" if judgement.ours else judgement.label
        table.add_row(label, judgement.wanted, judgement.measured, outcome, judgement.busy or "")
    out.print(table)
    for problem in found.problems:
        out.print(f"- {problem}", style="red", markup=False, soft_wrap=True)
    word = "PASSED" if found.passed else "FAILED"
    said = "the gate" if gate else "the objectives (a report; --gate makes it the exit code)"
    out.print(f"{word}: {said}", style="bold green" if found.passed else "bold red")
