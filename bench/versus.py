"""What a setting changes: each configuration deployed and loaded in turns, then compared.

    python -m bench.versus now less=postgres_memory=384MB
    python -m bench.versus now both=postgres_memory=384MB,backend_memory=96MB --rate 400 --runs 5

On the sandbox, and on no other. A configuration is a name, and what is other than in group data:
`NAME=SETTING=VALUE[,SETTING=VALUE…]`, as `--data` takes it. They take turns and turn back (A B,
B A, …), so that a machine that warms up hits all alike. Every run is kept below `runs/versus/`; at
the end stands what `koprogo compare` makes of them. Afterwards the sandbox is deployed as group
data says, also when it is stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import box as boxes
from bench import measure
from bench.box import Box
from bench.figures import err
from koprogo_deploy import compare, door
from koprogo_deploy.cli.common import shown
from koprogo_deploy.command_line import overrides
from koprogo_deploy.compare import words
from koprogo_deploy.load import run as loads
from koprogo_deploy.load.plan import Options
from koprogo_deploy.load.profiles import PROFILES
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.runs import store
from koprogo_deploy.runs.model import Run
from koprogo_deploy.screen import Screen

DEPLOY, WARM_UP = 15.0, 10.0  # seconds, for what is said beforehand
SHAPE = "NAME=SETTING=VALUE"
FOLDER = store.FOLDER / "versus"


@dataclass(frozen=True)
class Configuration:
    """A name, and the settings that are other than in group data."""

    name: str
    data: dict[str, Any] = field(default_factory=dict)


def configurations(written: Sequence[str]) -> list[Configuration]:
    """Read the command line.

    Raises:
        Refusal: fewer than two, a name twice or none, or a setting without a value.
    """
    found: dict[str, Configuration] = {}
    problems = []
    for text in written:
        name, _, settings = text.partition("=")
        pairs = [pair for pair in settings.split(",") if pair]
        if not name.replace("-", "").replace("_", "").isalnum():
            problems.append(Problem(text, "its name has other than letters and digits", SHAPE))
        elif name in found:
            problems.append(Problem(text, f"{name} twice", "give each its own name"))
        elif wrong := [pair for pair in pairs if "=" not in pair]:
            problems.append(Problem(text, f"{wrong[0]!r} has no value", SHAPE))
        else:
            found[name] = Configuration(name, overrides(pairs))
    if len(written) < 2:
        problems.append(Problem("configurations", "one against nothing", "name two or more"))
    if problems:
        raise Refusal("Benchmark", problems)
    return list(found.values())


def measured(box: Box, turn: Configuration, options: Options, folder: Path) -> Run:
    """Deploy a configuration, load it, and keep the run; again, once, if the generator fell behind.

    Raises:
        Failed: the deploy did not succeed.
        KeyboardInterrupt: the run was stopped.
    """
    box.deploy(**turn.data)
    environment = door.open_environment("sandbox", turn.data)
    for _attempt in range(2):
        run = loads.execute(environment, PROFILES["realistic"], options)
        if run.interrupted:
            raise KeyboardInterrupt
        if run.generator.valid:
            break
    store.save(run, folder / turn.name)
    return run


def told(run: Run) -> str:
    """A run in one line."""
    phase = next(phase for phase in run.phases if phase.judged)
    rate = f"{phase.achieved_rate:.0f} right a second"
    return f"{rate}, P50 {phase.latency.p50 or 0:.1f} ms, P99 {phase.latency.p99 or 0:.1f} ms"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    written: Annotated[list[str], typer.Argument(metavar="A B...")],
    runs: measure.Rounds = 4,
    seconds: measure.Seconds = 30,
    rate: Annotated[float | None, typer.Option(help="requests a second; else the gate's")] = None,
) -> None:
    """Deploy and load each in turns, and compare."""
    try:
        chosen = configurations(written)
        for each in chosen:
            door.open_environment("sandbox", each.data)  # every wrong setting before anything
    except Refusal as refusal:
        err.print(str(refusal), markup=False)
        raise typer.Exit(2) from None
    options = Options(seconds=seconds, rate=rate)
    folder = FOLDER / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    made: dict[str, list[Run]] = {each.name: [] for each in chosen}
    with measure.benchmark("versus", resumes=False) as box:
        turns = compare.interleave(chosen, runs)
        whole = len(turns) * (seconds + measure.STARTING + WARM_UP + DEPLOY)
        err.print(f"{runs} rounds of {len(chosen)}: {measure.minutes(whole)}")
        try:
            for number, turn in enumerate(turns, 1):
                run = measured(box, turn, options, folder)
                made[turn.name].append(run)
                err.print(f"[dim]{number}/{len(turns)} {turn.name}: {told(run)}[/]")
        finally:
            with boxes.undisturbed():
                box.deploy()
    words.show(Screen(), compare.groups(made))
    groups = " ".join(f"{name}={shown(folder / name)}" for name in made)
    err.print(f"again: koprogo compare {groups}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    app()
