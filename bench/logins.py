"""Whether a login stalls everybody: lists at a steady rate, and somebody logs in beside.

    python -m bench.logins --data backend_image=… --data frontend_image=…      three rounds
    python -m bench.logins --workers 1 --workers 4 --rounds 5

On the sandbox, and on no other. KoproGo hashes a password for some 0.4 s on the worker that took
the request, and whoever waits for that worker waits as long. So each number of workers is deployed
in turns and asked for 50 lists of units a second, with a login every 1.9 s. The stand-in is written
in Python and hashes beside: only the real image, given by `--data`, says what a default should be.
Afterwards the sandbox is deployed as group data says, with the same images.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Annotated, Any

import typer

from bench import box as boxes
from bench import measure
from bench.box import SEED_LOGIN, Box
from bench.figures import Figures, err
from bench.measure import Load, Measured
from koprogo_deploy import door, figures
from koprogo_deploy.command_line import overrides
from koprogo_deploy.direct import seed_password
from koprogo_deploy.load.profiles import Mix
from koprogo_deploy.outside import Outside
from koprogo_deploy.problems import Refusal
from koprogo_deploy.units import MB

RATE = 50
EVERY = 1.9  # seconds between two logins; no multiple of the second, at which the monitor looks
LISTS = Mix({"GET /units": 1}, {}, 100)
DEPLOY = 30.0  # seconds, for what is said beforehand


@dataclass
class Logins:
    """How long logins took, in milliseconds, and how many were refused or failed."""

    took: list[float] = field(default_factory=list)
    failed: int = 0


@contextlib.contextmanager
def logging_in(environment: door.Environment) -> Iterator[Logins]:
    """Log in again and again meanwhile."""
    found, stop = Logins(), threading.Event()
    password = seed_password(environment.settings, environment.secrets)

    def work() -> None:
        with Outside(environment.settings, timeout=30) as site:
            while not stop.wait(EVERY):
                began = time.monotonic()
                if site.login(SEED_LOGIN, password).status_code == 200:
                    found.took.append(1000 * (time.monotonic() - began))
                else:
                    found.failed += 1

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join(35)


def measured(box: Box, workers: int, seconds: int, round_: int) -> tuple[Measured, Logins]:
    """One number of workers under the load, as it is deployed."""
    load = Load("lists", seconds, rate=RATE, mix=LISTS, monitor=True)
    with logging_in(box.environment) as logins:
        return measure.measure(box, f"{workers} workers", load, round_), logins


def memory(one: Measured) -> float | None:
    """The most memory that the backend used, in MB."""
    used = figures.use(one.run, one.phase.right)
    known = [use.memory_max for name, use in used.items() if name.startswith("backend")]
    return max((found / MB for found in known if found), default=None)


def row(workers: int, group: Sequence[Measured], logins: Sequence[Logins]) -> tuple[str, ...]:
    """Medians of a number of workers, with their ranges."""
    took = [value for each in logins for value in each.took]
    return (
        str(workers),
        *(
            measure.middle(group, lambda one, name=name: getattr(one.phase.latency, name), 1)  # type: ignore[misc]
            for name in ("p50", "p90", "p99")
        ),
        f"{median(took):.0f} ({len(took)})" if took else "none",
        measure.middle(group, memory, 0),
    )


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    workers: Annotated[list[int] | None, typer.Option(min=1, help="1, 2 and 4 without it")] = None,
    rounds: measure.Rounds = 3,
    seconds: measure.Seconds = 30,
    data: Annotated[list[str] | None, typer.Option(help="as pyinfra's: the images")] = None,
    markdown: measure.Markdown = False,
) -> None:
    """Deploy each number of workers in turns, and load it while somebody logs in."""
    counts = workers or [1, 2, 4]
    given: dict[str, Any] = overrides(data or [])
    try:
        for count in counts:  # every wrong setting before anything
            door.open_environment("sandbox", {**given, "backend_workers": count})
    except Refusal as refusal:
        err.print(str(refusal), markup=False)
        raise typer.Exit(2) from None
    table = Figures(
        f"Lists of units at {RATE}/s, a login every {EVERY} s",
        " ".join(["python -m bench.logins", *sys.argv[1:]]).replace(" --markdown", ""),
        ("workers", "P50 ms", "P90 ms", "P99 ms", "a login, ms (how many)", "backend, MB"),
    )
    runs: dict[int, list[tuple[Measured, Logins]]] = {count: [] for count in counts}
    with measure.benchmark("logins", resumes=False) as box:
        whole = rounds * len(counts) * (seconds + measure.STARTING + DEPLOY)
        err.print(f"{rounds} rounds of {len(counts)}: {measure.minutes(whole)}")
        try:
            for round_ in range(rounds):
                for count in measure.rotated(counts, round_):
                    box.deploy(**given, backend_workers=count)
                    one, logins = measured(box, count, seconds, round_)
                    runs[count].append((one, logins))
                    err.print(f"[dim]{count} workers: {measure.said(one)}[/]")
        finally:
            with boxes.undisturbed():
                box.deploy(**given)
    for count, group in runs.items():
        table.rows.append(row(count, [one for one, _ in group], [login for _, login in group]))
    everything = [one for group in runs.values() for one, _ in group]
    table.notes += measure.caveats(everything)
    if failed := sum(login.failed for group in runs.values() for _, login in group):
        table.notes.append(f"{failed} logins failed")
    table.measured["data"] = given
    table.measured["runs"] = [
        {"workers": count, "round": one.round, "latency": one.phase.latency.model_dump(),
         "logins": login.took, "failed": login.failed, "backend_mb": memory(one)}
        for count, group in runs.items()
        for one, login in group
    ]  # fmt: skip
    table.finish("logins", markdown)


if __name__ == "__main__":
    app()
