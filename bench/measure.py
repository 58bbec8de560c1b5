"""Measurements of the benchmarks: a load run, what it cost each container, and its file.

Each finished one is written at once, so that a benchmark that was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from bench.box import COUNTERS, Box
from bench.figures import RESULTS, Failed
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.runs.model import Phase, Run

T = TypeVar("T")
# The beginning of a phase opens connections; the end waits for the last answers.
SETTLE, BEFORE_END = 1.0, 0.5
MACHINE, REST = "machine", "rest"


class Cost(BaseModel):
    """What a container used while a phase lasted.

    Attributes:
        cpu_percent: of one CPU.
        per_request: microseconds of CPU for each request that was sent.
        throttled_percent: of its quota's periods; None without a quota.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu_percent: float
    per_request: float
    throttled_percent: float | None = None


class Measured(BaseModel):
    """One measurement: which, the load run, and the costs by service.

    `machine` is the whole box, `rest` what of it is no container: engine, SSH, a monitor.
    """

    model_config = ConfigDict(extra="forbid")

    configuration: str
    load: str
    round: int
    run: Run
    costs: dict[str, Cost]

    @property
    def key(self) -> str:
        """The name of its file."""
        return key(self.configuration, self.load, self.round)

    @property
    def phase(self) -> Phase:
        """The one that counts."""
        return judged(self.run)


def key(configuration: str, load: str, round_: int) -> str:
    """The name of a measurement's file."""
    name = f"{configuration}_{load}_{round_}"
    return "".join(c if c.isalnum() or c in "-_+" else "-" for c in name)


def judged(run: Run) -> Phase:
    """The phase of a run that counts: the benchmarks' runs have one."""
    found = [phase for phase in run.phases if phase.judged]
    if len(found) != 1:
        raise Failed(f"run {run.id} has {len(found)} phases that count, not one")
    return found[0]


def costs(
    lines: Sequence[dict[str, Any]], began: float, ended: float, rate: float
) -> dict[str, Cost]:
    """What each container used between two moments.

    Args:
        lines: of `counters.py`, in their order.
        began, ended: seconds since the epoch, by the host's clock.
        rate: requests sent a second.

    Raises:
        Failed: it was not counted then, or nothing was sent.
    """
    inside = [line for line in lines if began + SETTLE <= line["at"] <= ended - BEFORE_END]
    if len(inside) < 2 or rate <= 0:
        raise Failed(f"{len(inside)} of {len(lines)} countings in the run, {rate:.0f} requests/s")
    first, last = inside[0], inside[-1]
    seconds = last["at"] - first["at"]
    found = {}
    for name, counts in last["counts"].items():
        used, periods, throttled = (
            counts[what] - first["counts"][name][what] for what in ("usage", "periods", "throttled")
        )
        found[name] = Cost(
            cpu_percent=used / seconds / 1e4,
            per_request=used / seconds / rate,
            throttled_percent=100 * throttled / periods if periods else None,
        )
    named = [cost for name, cost in found.items() if name != MACHINE]
    found[REST] = Cost(
        cpu_percent=found[MACHINE].cpu_percent - sum(cost.cpu_percent for cost in named),
        per_request=found[MACHINE].per_request - sum(cost.per_request for cost in named),
    )
    return found


@dataclass
class Counting:
    """The lines of `counters.py`, complete when it has ended."""

    lines: list[dict[str, Any]] = field(default_factory=list)


@contextlib.contextmanager
def counting(box: Box) -> Iterator[Counting]:
    """Count in the box meanwhile; it ends by itself when this program does."""
    found = Counting()
    with subprocess.Popen(
        box.python(COUNTERS),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        first = process.stdout.readline()  # it counts
        try:
            yield found
        finally:
            # What came meanwhile waits in the pipe: 500 bytes a line, two lines a second.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            rest = process.stdout.read()
            found.lines += [json.loads(line) for line in [first, *rest.splitlines()] if line]


def rotated(items: Sequence[T], round_: int) -> list[T]:
    """The order of a round: each begins with another one, so that none always comes first."""
    start = round_ % len(items)
    return [*items[start:], *items[:start]]


@dataclass(frozen=True)
class Kept:
    """The finished measurements of a benchmark, a file each."""

    folder: Path

    def get(self, name: str) -> Measured | None:
        """A finished one; None if it is still to be made."""
        path = self.folder / f"{name}.json"
        return Measured.model_validate_json(path.read_bytes()) if path.exists() else None

    def put(self, measured: Measured) -> None:
        """Keep a finished one."""
        unfinished = self.folder / f".{measured.key}"
        unfinished.write_text(measured.model_dump_json() + "\n", encoding="utf-8")
        unfinished.rename(self.folder / f"{measured.key}.json")

    def all(self) -> list[Measured]:
        """Every finished one, by name."""
        paths = sorted(self.folder.glob("[!.]*_*.json"))
        return [Measured.model_validate_json(path.read_bytes()) for path in paths]


def kept(name: str, go_on: bool, conditions: dict[str, Any]) -> Kept:
    """Where a benchmark keeps its measurements.

    Args:
        name: the benchmark's.
        go_on: with those there are; else they are thrown away.
        conditions: what must be the same for them to stand beside new ones.

    Raises:
        Refusal: those there are were made under other conditions.
    """
    folder = RESULTS / name
    file = folder / "conditions.json"
    if not go_on:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    if file.exists() and (before := json.loads(file.read_text(encoding="utf-8"))) != conditions:
        fix = "give the same options as then, or begin anew without --go-on"
        what = f"made with {before}, now {conditions}"
        raise Refusal("Benchmark", [Problem(str(folder.name), what, fix)])
    file.write_text(json.dumps(conditions) + "\n", encoding="utf-8")
    return Kept(folder)


def minutes(seconds: float) -> str:
    """A length of time for people."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
