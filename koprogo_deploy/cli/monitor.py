"""`koprogo monitor`: the host, its containers, the database and the proxy, each second."""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from koprogo_deploy import door
from koprogo_deploy.cli.common import EnvironmentOption, Where, out
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.screen import complain, json_text, machine

if TYPE_CHECKING:
    from koprogo_deploy.monitor import Monitor
    from koprogo_deploy.runs.sample import Sample

FIRST_WITHIN = 30.0  # seconds, until the first sample with rates
FASTEST, SLOWEST = 0.2, 60.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="monitor")(monitor)


def monitor(
    environment: EnvironmentOption = Where.sandbox,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="end after so long; without it: Ctrl-C")
    ] = None,
    interval: Annotated[
        float, typer.Option(min=FASTEST, max=SLOWEST, help="seconds between two looks")
    ] = 1.0,
    json: Annotated[
        bool, typer.Option("--json", help="JSON lines for machines, a sample each")
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", help="one sample; exits 1 on an alert or an unread value")
    ] = False,
) -> None:
    """Watch the host over SSH: containers, machine, Postgres, requests; normal, raised or alert.

    On a terminal a live table, else a line for each look. It changes nothing, and shows a value
    that could not be read as `?`, with the reason: never as normal.

    Ends with 0 after `--seconds`, with 130 on Ctrl-C, with 1 if the connection is lost.
    """
    from koprogo_deploy.monitor import Monitor

    opened = door.open_environment(environment)
    arrived: queue.Queue[Sample] = queue.Queue()
    with Monitor(opened, interval, arrived.put) as watcher:
        if not watcher.wait(FIRST_WITHIN + 2 * interval):
            what = watcher.problem or f"no sample within {FIRST_WITHIN:.0f} s"
            fix = f"try: koprogo ssh {environment} -- sudo -n python3 --version"
            raise Refusal(f"Host {opened.host}", [Problem("monitor", what, fix)])
        if once:
            raise typer.Exit(_once(watcher.samples[1], f"{environment}, {opened.host}", json))
        title = f"{environment}, {opened.host}"
        code = _watch(watcher, arrived, seconds, title, json)
        if not json:
            _summarise(watcher)
    raise typer.Exit(code)


def _once(sample: Sample, title: str, json: bool) -> int:
    from koprogo_deploy.monitor import table
    from koprogo_deploy.monitor.reading import troubles
    from koprogo_deploy.monitor.thresholds import Level, findings

    if json:
        json_text(sample.model_dump_json())
    else:
        out.print(table.screen(sample, title))
    bad = [f for f in findings(sample) if f.level in (Level.alert, Level.unknown)]
    return 1 if bad or troubles(sample) else 0


def _watch(
    watcher: Monitor,
    arrived: queue.Queue[Sample],
    seconds: float | None,
    title: str,
    json: bool,
) -> int:
    """Show samples until the time is up; the exit code."""
    from rich.live import Live

    from koprogo_deploy.monitor import table

    end = None if seconds is None else time.monotonic() + seconds
    try:
        if json:
            for sample in _samples(watcher, arrived, end):
                json_text(sample.model_dump_json())
        elif not sys.stdout.isatty():
            for sample in _samples(watcher, arrived, end):
                machine(table.line(sample))
        else:
            with Live(console=out, auto_refresh=False, vertical_overflow="visible") as live:
                for sample in _samples(watcher, arrived, end):
                    live.update(table.screen(sample, title, watcher.problem), refresh=True)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # nobody listens: no word about it
        return 0
    if watcher.problem:
        complain(f"koprogo monitor: {watcher.problem}")
        return 1
    return 0


def _samples(watcher: Monitor, arrived: queue.Queue[Sample], end: float | None) -> Iterator[Sample]:
    while end is None or time.monotonic() < end:
        try:
            yield arrived.get(timeout=0.2)
        except queue.Empty:
            if not watcher.running:
                return


def _summarise(watcher: Monitor) -> None:
    from koprogo_deploy.monitor import table

    # The first has no rates.
    samples = watcher.samples[1:]
    if samples:
        out.print()
        out.print(f"{len(samples)} samples")
        out.print(table.summary(samples))
