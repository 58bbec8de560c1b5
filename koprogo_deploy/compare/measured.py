"""The figures of a run that a comparison looks at. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from koprogo_deploy import figures
from koprogo_deploy.runs.model import Run
from koprogo_deploy.units import MB


@dataclass(frozen=True)
class Figure:
    """A figure: its name, how it is shown, and which way is better."""

    name: str
    label: str
    unit: str
    better: Literal["less", "more"] = "less"


RATE = Figure("rate", "Right answers", "req/s", "more")
ERRORS = Figure("errors", "Errors", "%")
LOAD = Figure("load_average", "Load average", "")
LATENCIES = tuple(
    Figure(name, label, "ms")
    for name, label in (("p50", "P50"), ("p90", "P90"), ("p95", "P95"), ("p99", "P99"),
                        ("p999", "P99.9"))
)  # fmt: skip


def cpu(container: str) -> Figure:
    """CPU time of a container for each right answer."""
    return Figure(f"cpu.{container}", f"CPU an answer, {container}", "ms")


def memory(container: str) -> Figure:
    """The most memory that a container used."""
    return Figure(f"memory.{container}", f"Memory, {container}", "MB")


def measured(run: Run) -> dict[Figure, float | None]:
    """Each figure of a run's judged phases; None where it could not be read."""
    total = figures.totals(run)
    latency = total.count.latency
    found: dict[Figure, float | None] = {RATE: total.achieved_rate}
    found |= {figure: getattr(latency, figure.name) for figure in LATENCIES}
    found[ERRORS] = total.count.error_percent
    for name, used in total.use.items():
        found[cpu(name)] = used.cpu_ms
        found[memory(name)] = None if used.memory_max is None else used.memory_max / MB
    found[LOAD] = total.load_max
    return found


def all_figures(runs: Sequence[dict[Figure, float | None]]) -> list[Figure]:
    """Every figure that any run has: rate, latency, errors first, then CPU, memory, load."""
    known = dict.fromkeys(figure for run in runs for figure in run)
    first = (RATE, *LATENCIES, ERRORS)
    rest = sorted((f for f in known if f not in (*first, LOAD)), key=lambda f: f.name)
    return [*(f for f in first if f in known), *rest, *([LOAD] if LOAD in known else [])]
