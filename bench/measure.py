"""Measurements of the benchmarks: a load run, what it cost each container, and its file.

Each finished one is written at once, so that a benchmark that was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any, TypeVar

import numpy as np
import typer
from pydantic import BaseModel, ConfigDict

from bench import box as boxes
from bench import indexes
from bench.box import COUNTERS, Box
from bench.figures import RESULTS, Failed, err
from koprogo_deploy.compare import statistics
from koprogo_deploy.load import run as loads
from koprogo_deploy.load.plan import Options
from koprogo_deploy.load.profiles import REALISTIC, Mix, Profile, Stretch
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.runs.model import Phase, Run

T = TypeVar("T")

# Options that the benchmarks have in common.
Rounds = Annotated[int, typer.Option(min=1, help="rounds; the table shows medians")]
Seconds = Annotated[int, typer.Option(min=5, help="of load, each time")]
Only = Annotated[list[str] | None, typer.Option(help="a configuration by name; may be repeated")]
GoOn = Annotated[bool, typer.Option("--go-on", help="keep what was finished before")]
Markdown = Annotated[bool, typer.Option(help="print the README's table")]

CONNECTIONS = 20
WARM_UP = 4  # seconds
STARTING = WARM_UP + 6.0  # seconds that a run takes on top: logins, and removing what it wrote
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
        return self.run.phases[-1]


def key(configuration: str, load: str, round_: int) -> str:
    """The name of a measurement's file."""
    name = f"{configuration}_{load}_{round_}".replace("×", "x").replace("/s", "ps")
    return "".join(c if (c.isascii() and c.isalnum()) or c in "-_+" else "-" for c in name)


@dataclass(frozen=True)
class Load:
    """What the site has to bear: an open loop at a rate, or a closed one of so many users."""

    name: str
    seconds: int
    rate: float | None = None
    users: int | None = None
    mix: Mix = REALISTIC
    monitor: bool = False

    def watched(self) -> Load:
        """The same, with the monitor looking on."""
        return replace(self, monitor=True)

    def profile(self) -> Profile:
        """For the generator: a warm-up of the same kind, then this."""
        connections = self.users or CONNECTIONS
        rate = None if self.rate is None else self.rate / 2
        warm_up = Stretch("warm-up", WARM_UP, self.mix, self.users, rate, warm_up=True)
        counted = Stretch(self.name, self.seconds, self.mix, self.users, self.rate)
        return Profile("bench", self.name, connections, (warm_up, counted))


def measure(box: Box, configuration: str, load: Load, round_: int) -> Measured:
    """Load the site, and count in the box meanwhile.

    A run that the generator itself held up is made again, once.

    Raises:
        Failed: it was stopped, or nothing was counted.
    """
    for _attempt in range(2):
        with counting(box) as counted:
            run = loads.execute(box.environment, load.profile(), Options(monitor=load.monitor))
        if run.interrupted:
            raise KeyboardInterrupt
        if run.generator.valid:
            break
        err.print(
            f"[dim]{configuration}, {load.name}: invalid, {'; '.join(run.generator.reasons)}[/]"
        )
    phase = run.phases[-1]
    began = run.began + phase.began
    found = costs(counted.lines, began, began + phase.seconds, phase.sent_rate)
    return Measured(configuration=configuration, load=load.name, round=round_, run=run, costs=found)


@contextlib.contextmanager
def benchmark(name: str, resumes: bool = True) -> Iterator[Box]:
    """The box, clean; what goes wrong is said in words, with everything taken back before.

    Args:
        name: of its module.
        resumes: whether it has `--go-on`.
    """
    with boxes.taking_back():
        try:
            box = boxes.open_box()
            boxes.clean(box)
            indexes.clean(box)
            yield box
        except (
            KeyboardInterrupt, Failed, Refusal, loads.LoadFailed, subprocess.TimeoutExpired
        ) as error:  # fmt: skip
            code = boxes.interrupted(error)
            if resumes:
                err.print(
                    f"[dim]the rest: python -m bench.{name} --go-on, with the same options[/]"
                )
            raise typer.Exit(code) from None


def chosen(items: Sequence[T], only: Sequence[str] | None, name: Callable[[T], str]) -> list[T]:
    """Those that `--only` names; all without it."""
    names = [name(item) for item in items]
    if unknown := [word for word in only or () if word not in names]:
        raise typer.BadParameter(f"no {unknown[0]!r}; there are: {', '.join(names)}")
    return [item for item in items if not only or name(item) in only]


Figure = Callable[[Measured], float | None]


def values(group: Sequence[Measured], figure: Figure) -> list[float]:
    """A figure of each measurement that has it; those of invalid runs are none."""
    found = (figure(measured) for measured in group if measured.run.generator.valid)
    return [value for value in found if value is not None]


def middle(group: Sequence[Measured], figure: Figure, digits: int, spread: bool = True) -> str:
    """Median and range of a figure, such as `12.9 (11.0–45.2)`; empty where there is none."""
    known = values(group, figure)
    if not known:
        return ""
    text = f"{median(known):.{digits}f}"
    if spread and len(known) > 1:
        text += f" ({min(known):.{digits}f}–{max(known):.{digits}f})"
    return text


def against(
    first: Sequence[Measured], second: Sequence[Measured], figure: Figure, what: str = ""
) -> str:
    """How a figure of one configuration lies beside another's, and whether that is shown.

    A permutation test and Mann and Whitney's interval, as `koprogo compare` has them; each
    comparison by itself.

    Args:
        first, second: runs of both, valid ones.
        figure: above zero where there is one.
        what: the figure's name, put before.
    """
    a, b = ([value for value in values(side, figure) if value > 0] for side in (first, second))
    if not a or not b:
        return ""
    before, after = np.log(a), np.log(b)
    interval = statistics.shift_interval(list(before), list(after))
    assert interval is not None
    change = 100 * (median(b) / median(a) - 1)
    text = f"{what} {change:+.0f} %".strip()
    if not statistics.enough(len(a), len(b)):
        return f"{text} (too few runs)"
    chance = float(statistics.probabilities(before[None, :], after[None, :])[0])
    low, high = (100 * (np.exp(end) - 1) for end in (interval.low, interval.high))
    if chance > statistics.ALPHA or low <= 0 <= high:
        return f"{what} no difference shown".strip()
    return f"{text} ({low:+.0f} to {high:+.0f})"


def said(measured: Measured) -> str:
    """A measurement in one line, for the one who waits."""
    phase = measured.phase
    p50, p99 = phase.latency.p50 or 0.0, phase.latency.p99 or 0.0
    return (
        f"{measured.load}: {phase.achieved_rate:.0f} right/s, P50 {p50:.1f} ms, P99 {p99:.1f} ms, "
        f"{measured.costs[MACHINE].per_request:.0f} µs"
    )


def caveats(measured: Sequence[Measured]) -> list[str]:
    """What a reader has to know of the runs: invalid ones, failed requests."""
    found = []
    for one in measured:
        name = f"{one.configuration}, {one.load}, round {one.round + 1}"
        if not one.run.generator.valid:
            found.append(f"{name}: left out, invalid: {'; '.join(one.run.generator.reasons)}")
        if one.phase.failed:
            kinds = ", ".join(f"{count} × {kind}" for kind, count in one.phase.errors.items())
            found.append(f"{name}: {one.phase.error_percent:.2f} % failed: {kinds}")
    return found


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

    def noted(self, name: str) -> dict[str, Any]:
        """What was noted beside the measurements."""
        path = self.folder / f"{name}.json"
        found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
        return found

    def note(self, name: str, content: dict[str, Any]) -> None:
        """Keep something beside the measurements."""
        text = json.dumps(content, indent=1) + "\n"
        (self.folder / f"{name}.json").write_text(text, encoding="utf-8")

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
