"""The charts of a run, as plotly figures. Pure; a missing value is a gap in its line.

Colours that the page's theme decides (text, grid, background) are set by its style sheet, so that
a chart follows light, dark and print without being drawn again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go
from hdrh.histogram import HdrHistogram

from koprogo_deploy import figures
from koprogo_deploy.objectives import samples_between
from koprogo_deploy.runs.model import ERROR_KINDS, ErrorKind, Run
from koprogo_deploy.runs.sample import ContainerSample, Sample
from koprogo_deploy.units import MB

# Readable on white and on near-black, and told apart by most who see colours differently; lines
# differ by dash and by order, too.
BLUE, ORANGE, GREEN, PURPLE = "#3b8bd9", "#e07b1a", "#1d9e78", "#b565c9"
RED, GOLD, TEAL, GREY = "#e0504a", "#b8940f", "#2fa8b8", "#8a93a0"
SERVICE_COLOURS = {"traefik": ORANGE, "backend": BLUE, "postgres": GREEN, "frontend": PURPLE}
ERROR_COLOURS: dict[ErrorKind, str] = {
    "connect": GREY, "tls": PURPLE, "timeout": GOLD, "reset": TEAL, "4xx": BLUE, "5xx": RED,
    "wrong body": ORANGE,
}  # fmt: skip
OTHERS = (TEAL, GOLD, RED, GREY)
BAND = "rgba(128,138,150,0.13)"
# Longer runs are drawn by the minute: 1800 s says less than 30 min.
MINUTES_FROM = 600.0
# Samples further apart than this, in their usual distance, have a gap between them.
GAP = 2.5
# A bound further above the values than this is not drawn.
FAR = 3.0
CUTS = (0.0, 50.0, 90.0, 95.0, 99.0, 99.9, 99.99, 99.999)

Values = Sequence[float | None]


@dataclass(frozen=True)
class Chart:
    """A figure with what stands around it.

    Attributes:
        key: unique within a run.
        title: its heading.
        says: one line: the unit, and how to read it.
        figure: None where there is nothing to draw, and `says` why.
        timed: its x axis is the run's time, zoomed together with the others.
        log: whether a button for a logarithmic y axis makes sense.
        wide: takes the whole row.
    """

    key: str
    title: str
    says: str
    figure: go.Figure | None
    timed: bool = True
    log: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Clock:
    """The time axis of a run."""

    unit: str
    divisor: float
    end: float

    @classmethod
    def of(cls, run: Run) -> Clock:
        """Seconds, or minutes for a long run."""
        last = max((second.at + 1 for second in run.series), default=0.0)
        end = max(run.seconds, last, 1.0)
        if end > MINUTES_FROM:
            return cls("minutes", 60.0, end / 60.0)
        return cls("seconds", 1.0, end)

    def at(self, seconds: float) -> float:
        """A time of the run on this axis."""
        return round(seconds / self.divisor, 3)


def charts(run: Run) -> list[Chart]:
    """Every chart of a run: what users felt first, what the host did below."""
    clock = Clock.of(run)
    above = [_latency(run, clock), _distribution(run), _rate(run, clock), _errors(run, clock)]
    return [*above, *(_host(run, clock) if run.samples else [])]


def overlaid(runs: Sequence[Run]) -> Chart:
    """The percentile curves of several runs in one chart."""
    figure = _figure("ms", None)
    for number, run in enumerate(runs):
        histogram = figures.add_up(phase.histogram for phase in figures.judged(run))
        colour = (*SERVICE_COLOURS.values(), *OTHERS)[number % 8]
        _curve(figure, run.id, histogram, colour, dash=("solid", "dash", "dot")[number // 8 % 3])
    _nines(figure)
    says = "milliseconds that this share of the requests took at most"
    return Chart("overlaid", "Latency of all runs", says, figure, timed=False, log=True, wide=True)


def plain(text: str) -> str:
    """Text that plotly takes for text: it reads a little HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _figure(unit: str, clock: Clock | None) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        template="none", height=300, margin={"l": 52, "r": 12, "t": 30, "b": 40},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12},
        legend={"orientation": "h", "yanchor": "top", "y": -0.18, "x": 0, "xanchor": "left"},
        hovermode="x unified" if clock else "closest", barmode="stack", bargap=0, dragmode="zoom",
        yaxis={"title": {"text": unit, "standoff": 6}, "rangemode": "tozero", "zeroline": False},
        xaxis={"zeroline": False},
    )  # fmt: skip
    if clock:
        figure.update_xaxes(range=[0, clock.end], title={"text": clock.unit, "standoff": 4})
    return figure


def _rounded(values: Values) -> list[float | None]:
    """Four figures are more than a chart shows, and a third of the bytes."""
    return [
        None if value is None or not math.isfinite(value) else float(f"{value:.4g}")
        for value in values
    ]


def _line(
    figure: go.Figure,
    name: str,
    x: Sequence[float | None],
    y: Values,
    colour: str,
    *,
    dash: str = "solid",
    width: float = 1.8,
    shape: str = "linear",
    **more: Any,  # noqa: ANN401 - whatever plotly knows
) -> None:
    figure.add_scatter(
        name=plain(name), x=list(x), y=_rounded(y), mode="lines", connectgaps=False,
        line={"color": colour, "dash": dash, "width": width, "shape": shape}, **more,
    )  # fmt: skip


def _bars(
    figure: go.Figure, name: str, x: Sequence[float | None], y: Values, colour: str, width: float
) -> None:
    # Bars, not a filled line: plotly would draw a stack's missing value as zero.
    figure.add_bar(
        name=plain(name), x=list(x), y=_rounded(y), width=width,
        marker={"color": colour, "line": {"width": 0}},
    )  # fmt: skip


def _bound(figure: go.Figure, clock: Clock, value: float, text: str, **style: str) -> None:
    """A limit as a line with its words in the legend, where they cover nothing."""
    _line(
        figure, text, [0, clock.end], [value, value], style.get("colour", RED),
        dash=style.get("dash", "dash"), width=1.3, hoverinfo="skip",
    )  # fmt: skip


def _phases(figure: go.Figure, run: Run, clock: Clock, *, named: bool = True) -> None:
    """Every second phase is shaded; names stand in two rows, since short phases are narrow."""
    if len(run.phases) < 2 and all(phase.judged for phase in run.phases):
        return
    for number, phase in enumerate(run.phases):
        began, ended = clock.at(phase.began), clock.at(phase.began + phase.seconds)
        if number % 2 == 0:
            figure.add_vrect(x0=began, x1=ended, fillcolor=BAND, line_width=0, layer="below")
        if named:
            name = phase.name if phase.judged else f"{phase.name}, not judged"
            figure.add_annotation(
                x=began, y=1, yref="paper", xanchor="left", yanchor="top", borderpad=1,
                yshift=-13 * (number % 2), text=plain(name), showarrow=False, font={"size": 10},
            )  # fmt: skip


def _bounds(figure: go.Figure, run: Run, clock: Clock, values: Values, *names: str) -> None:
    """Draw the objectives' bounds that the values come near: a far one would flatten the lines."""
    highest = max((value for value in values if value is not None), default=0.0)
    for judgement in run.verdict.judgements if run.verdict else []:
        if judgement.name in names and judgement.bound is not None:
            whose = "our goal" if judgement.ours else "objective"
            style = {"colour": GOLD, "dash": "dashdot"} if judgement.ours else {}
            if judgement.bound <= FAR * highest:
                text = f"{whose}: {judgement.label} {judgement.wanted}"
                _bound(figure, clock, judgement.bound, text, **style)


def _latency(run: Run, clock: Clock) -> Chart:
    figure = _figure("ms", clock)
    x = _seconds(run, clock)
    p99 = [second.p99 for second in run.series]
    most = [second.max for second in run.series]
    _line(figure, "max", x, most, GREY, width=1.0, dash="dot")
    _line(figure, "P99", x, p99, ORANGE)
    _line(figure, "P50", x, [second.p50 for second in run.series], BLUE)
    _bounds(figure, run, clock, most, "p99", "p50", "goal_p99")
    _phases(figure, run, clock)
    opened = any(phase.mode == "open" for phase in run.phases)
    counted = "from the intended send time" if opened else "closed loop: each waits for the last"
    return Chart("latency", "Latency over time", f"milliseconds, each second; {counted}",
                 figure, log=True, wide=True)  # fmt: skip


def _seconds(run: Run, clock: Clock) -> list[float]:
    """The middle of each second: a second's bar covers it."""
    return [clock.at(second.at + 0.5) for second in run.series]


def _distribution(run: Run) -> Chart:
    figure = _figure("ms", None)
    phases = figures.judged(run)
    total = figures.add_up(phase.histogram for phase in phases)
    title = "Latency by percentile"
    if total is None or not total.get_total_count():
        return Chart("distribution", title, "the run has no histogram that can be read", None)
    _curve(figure, "all", total, BLUE, width=2.4)
    colours = (ORANGE, GREEN, PURPLE, TEAL, GOLD, RED, GREY)
    if len(phases) > 1:
        for number, phase in enumerate(phases):
            histogram = figures.add_up([phase.histogram])
            _curve(figure, phase.name, histogram, colours[number % 7], dash="dash")
    endpoints = dict.fromkeys(one.name for phase in phases for one in phase.endpoints)
    for number, name in enumerate(endpoints):
        found = [one.histogram for phase in phases for one in phase.endpoints if one.name == name]
        _curve(
            figure, name, figures.add_up(text for text in found if text), colours[number % 7],
            dash=("solid", "dot")[number // 7 % 2], visible="legendonly",
        )  # fmt: skip
    _nines(figure)
    says = (
        "milliseconds that this share of the requests took at most; "
        "tap a name in the legend to lay that kind of request over it"
    )
    return Chart("distribution", title, says, figure, timed=False, log=True, wide=True)


def _curve(
    figure: go.Figure,
    name: str,
    histogram: HdrHistogram | None,
    colour: str,
    *,
    dash: str = "solid",
    width: float = 1.8,
    **more: Any,  # noqa: ANN401 - whatever plotly knows
) -> None:
    points = figures.curve(histogram)
    if histogram is None or not points:
        return
    # 100 % lies at infinity; the last answer of n is the 1 - 1/n.
    most = max(float(histogram.get_total_count()), 2.0)
    x = [min(most, 100 / (100 - at)) if at < 100 else most for at, _ in points]
    _line(
        figure, name, _rounded(x), [value for _, value in points], colour, dash=dash, width=width,
        text=[f"{at:.6g} %" for at, _ in points], hovertemplate="%{text}: %{y} ms", **more,
    )  # fmt: skip


def _nines(figure: go.Figure) -> None:
    figure.update_xaxes(
        type="log", tickvals=[100 / (100 - cut) for cut in CUTS],
        ticktext=[f"{cut:g}%" for cut in CUTS],
    )  # fmt: skip


def _rate(run: Run, clock: Clock) -> Chart:
    figure = _figure("req/s", clock)
    x = _seconds(run, clock)
    if any(second.asked is not None for second in run.series):
        asked = [second.asked for second in run.series]
        _line(figure, "asked", x, asked, GREY, dash="dash", shape="hvh")
    sent = [second.sent for second in run.series]
    _line(figure, "sent", x, sent, BLUE, dash="dot", shape="hvh")
    _line(figure, "right answers", x, [s.right for s in run.series], GREEN, shape="hvh")
    _bounds(figure, run, clock, sent, "rate", "goal_rate")
    _phases(figure, run, clock, named=False)
    return Chart("rate", "Rate asked, sent, achieved", "requests a second", figure)


def _errors(run: Run, clock: Clock) -> Chart:
    kinds = [kind for kind in ERROR_KINDS if any(second.errors.get(kind) for second in run.series)]
    if not kinds:
        return Chart("errors", "Errors", "none: every answer was right", None)
    figure = _figure("errors/s", clock)
    x = _seconds(run, clock)
    for kind in kinds:
        counts: list[float | None] = [second.errors.get(kind, 0) for second in run.series]
        _bars(figure, kind, x, counts, ERROR_COLOURS[kind], clock.at(1))
    _phases(figure, run, clock, named=False)
    return Chart("errors", "Errors", "a second, by kind", figure)


@dataclass(frozen=True)
class _Watched:
    """The monitor's samples on a run's time axis, with a row of gaps where some are missing."""

    x: list[float]
    samples: list[Sample | None]
    width: float

    @classmethod
    def of(cls, run: Run, clock: Clock) -> _Watched:
        found = samples_between(run, -1.0, run.seconds)
        apart = [after - before for (before, _), (after, _) in pairwise(found)]
        usual = statistics.median(apart) if apart else 1.0
        x: list[float] = []
        samples: list[Sample | None] = []
        previous: float | None = None
        for at, sample in found:
            if previous is not None and at - previous > GAP * usual:
                x.append(clock.at((previous + at) / 2))
                samples.append(None)
            x.append(clock.at(at))
            samples.append(sample)
            previous = at
        return cls(x, samples, clock.at(usual))

    def read(self, value: Callable[[Sample], float | None]) -> list[float | None]:
        return [None if sample is None else value(sample) for sample in self.samples]

    def container(self, name: str) -> list[ContainerSample | None]:
        return [sample.containers.get(name) if sample else None for sample in self.samples]

    def names(self, of: Callable[[Sample], Mapping[str, object] | None]) -> list[str]:
        found = {name for sample in self.samples if sample for name in (of(sample) or {})}
        return sorted(found)


def _colour(name: str, number: int = 0) -> str:
    return SERVICE_COLOURS.get(name.partition("-")[0], OTHERS[number % len(OTHERS)])


def _any(values: Values) -> bool:
    return any(value is not None for value in values)


def _drawn(chart: Chart) -> Chart:
    """The chart, or that there is nothing to draw."""
    if chart.figure is not None and not chart.figure.data:
        return Chart(chart.key, chart.title, "could not be read", None)
    return chart


def _host(run: Run, clock: Clock) -> list[Chart]:
    watched = _Watched.of(run, clock)
    made = [
        _cpu(run, clock, watched), _memory(run, clock, watched), _load(run, clock, watched),
        _pressure(clock, watched), _held_up(clock, watched), _disk(clock, watched),
        _network(clock, watched), _connections(clock, watched), _transactions(clock, watched),
        _cache(clock, watched), _wal(clock, watched), _locks(clock, watched),
        _traefik(clock, watched),
    ]  # fmt: skip
    return [_drawn(chart) for chart in made]


def _cpu(run: Run, clock: Clock, watched: _Watched) -> Chart:
    figure = _figure("% of a CPU", clock)
    names = watched.names(lambda s: s.containers)
    for number, name in enumerate(names):
        values = [part.cpu_percent if part else None for part in watched.container(name)]
        if _any(values):
            _bars(figure, name, watched.x, values, _colour(name, number), watched.width)
    cpus = next((s.host.cpus for s in watched.samples if s and s.host.cpus), None)
    whole = watched.read(
        lambda s: None if s.host.cpu_percent is None or s.host.cpus is None
        else s.host.cpu_percent * s.host.cpus
    )  # fmt: skip
    if _any(whole):
        _line(figure, "whole host", watched.x, whole, GREY, width=1.4)
    highest = max((value for value in whole if value is not None), default=0.0)
    if cpus and highest > 50 * cpus:
        text = f"all there is: {cpus} CPU{'' if cpus == 1 else 's'}"
        _bound(figure, clock, 100 * cpus, text, colour=GREY)
    _phases(figure, run, clock)
    return Chart("cpu", "CPU of each container", "percent of one CPU, stacked", figure, wide=True)


def _memory(run: Run, clock: Clock, watched: _Watched) -> Chart:
    figure = _figure("% of the limit", clock)
    unlimited = []
    for number, name in enumerate(watched.names(lambda s: s.containers)):
        found = watched.container(name)
        limit = next((c.memory_limit for c in found if c and c.memory_limit), None)
        if limit is None:
            unlimited.append(name)
            continue
        held = [part.memory if part else None for part in found]
        values = [None if value is None else 100 * value / limit for value in held]
        if _any(values):
            _line(
                figure, f"{name} (limit {limit / MB:.0f} MB)", watched.x, values,
                _colour(name, number), customdata=[_held(part) for part in found],
                hovertemplate="%{y:.1f}% = %{customdata}",
            )  # fmt: skip
    if figure.data:
        _bound(figure, clock, 100, "limit: above it the kernel kills")
    figure.update_yaxes(range=[0, 108])
    _phases(figure, run, clock)
    says = "percent of its limit, as docker stats counts; point at a line for megabytes"
    if unlimited:
        says += f"; no limit was read for {', '.join(unlimited)}"
    return Chart("memory", "Memory of each container", says, figure, wide=True)


def _held(part: ContainerSample | None) -> str:
    if part is None or part.memory is None:
        return "not read"
    if part.memory_charged is None:
        return f"{part.memory / MB:.1f} MB"
    return f"{part.memory / MB:.1f} MB, {part.memory_charged / MB:.1f} MB with file cache"


def _load(run: Run, clock: Clock, watched: _Watched) -> Chart:
    figure = _figure("", clock)
    values = watched.read(lambda s: s.host.load1)
    if _any(values):
        _line(figure, "load average, 1 min", watched.x, values, BLUE)
        _bounds(figure, run, clock, values, "load_average")
    source = next((s.host.load_source for s in watched.samples if s and s.host.load_source), "")
    counted = ", counted from the machine's own tasks" if source == "tasks" else ""
    return Chart("load", "Load average", f"tasks that run or wait, one minute{counted}", figure)


def _pressure(clock: Clock, watched: _Watched) -> Chart:
    figure = _figure("% of the time", clock)
    for what, colour in (("cpu", BLUE), ("memory", PURPLE), ("io", ORANGE)):
        found = [s.host.pressure.get(what) if s else None for s in watched.samples]
        values = [pressure.some if pressure else None for pressure in found]
        if _any(values):
            _line(figure, what, watched.x, values, colour)
    return Chart("pressure", "Pressure", "share of time that some task waited (PSI)", figure)


def _held_up(clock: Clock, watched: _Watched) -> Chart:
    figure = _figure("a second", clock)
    title, says = "Held up", "milliseconds a second waiting for a CPU quota; major faults a second"
    read = False
    for number, name in enumerate(watched.names(lambda s: s.containers)):
        found = watched.container(name)
        for what, label, dash in (
            ("throttled_ms", "throttled", "solid"), ("major_faults", "major faults", "dot"),
        ):  # fmt: skip
            values = [getattr(c, what) if c else None for c in found]
            read = read or _any(values)
            if any(values):
                _line(figure, f"{name} {label}", watched.x, values, _colour(name, number),
                      dash=dash)  # fmt: skip
    if read and not figure.data:
        return Chart("held", title, "nothing was: no throttling, no major faults", None)
    return Chart("held", title, says, figure)


def _disk(clock: Clock, watched: _Watched) -> Chart:
    figure = _figure("% busy", clock)
    for number, name in enumerate(watched.names(lambda s: s.host.disks)):
        disks = [s.host.disks.get(name) if s else None for s in watched.samples]
        values = [disk.busy_percent if disk else None for disk in disks]
        waits = [disk.write_ms if disk else None for disk in disks]
        if _any(values):
            _line(
                figure, name, watched.x, values, (BLUE, TEAL, PURPLE, GOLD)[number % 4],
                customdata=["not read" if wait is None else f"{wait:.3g} ms" for wait in waits],
                hovertemplate="%{y:.1f} % busy, a write took %{customdata}",
            )  # fmt: skip
    return Chart("disk", "Disk", "percent of the time that it was busy", figure)


def _network(clock: Clock, watched: _Watched) -> Chart:
    figure = _figure("kB/s", clock)
    for number, name in enumerate(watched.names(lambda s: s.host.network)):
        links = [s.host.network.get(name) if s else None for s in watched.samples]
        for what, label, dash in (
            ("received_bytes", "received", "solid"), ("sent_bytes", "sent", "dash"),
        ):  # fmt: skip
            values = [getattr(link, what) if link else None for link in links]
            if _any(values):
                _line(figure, f"{name} {label}", watched.x,
                      [None if v is None else v / 1024 for v in values],
                      (BLUE, TEAL, PURPLE, GOLD)[number % 4], dash=dash)  # fmt: skip
    return Chart("network", "Network", "kilobytes a second", figure)


def _connections(clock: Clock, watched: _Watched) -> Chart:
    figure = _figure("connections", clock)
    colours = {
        "active": GREEN, "idle": GREY, "idle in transaction": RED,
        "idle in transaction (aborted)": PURPLE,
    }  # fmt: skip
    for number, state in enumerate(watched.names(lambda s: s.postgres.connections)):
        found = [s.postgres.connections if s else None for s in watched.samples]
        values = [None if states is None else states.get(state, 0) for states in found]
        _bars(figure, state, watched.x, values, colours.get(state, OTHERS[number % 4]),
              watched.width)  # fmt: skip
    allowed = next((s.postgres.max_connections for s in watched.samples
                    if s and s.postgres.max_connections), None)  # fmt: skip
    of = f"; {allowed} are allowed" if allowed else ""
    return Chart("connections", "Postgres: connections", f"by state{of}", figure)


def _transactions(clock: Clock, watched: _Watched) -> Chart:
    figure = _figure("a second", clock)
    commits = watched.read(lambda s: s.postgres.commits)
    rollbacks = watched.read(lambda s: s.postgres.rollbacks)
    if _any(commits):
        _line(figure, "committed", watched.x, commits, GREEN)
    if _any(rollbacks):
        _line(figure, "rolled back", watched.x, rollbacks, RED, dash="dash")
    return Chart("transactions", "Postgres: transactions", "a second", figure)


def _cache(clock: Clock, watched: _Watched) -> Chart:
    figure = _figure("%", clock)
    values = watched.read(lambda s: s.postgres.cache_hit_percent)
    if _any(values):
        _line(figure, "cache hits", watched.x, values, BLUE)
        lowest = min(value for value in values if value is not None)
        figure.update_yaxes(range=[max(0.0, min(90.0, lowest - 2)), 100.5])
    says = "percent of block reads found in shared buffers; a gap: no block was read"
    return Chart("cache", "Postgres: cache hits", says, figure)


def _wal(clock: Clock, watched: _Watched) -> Chart:
    figure = _figure("kB/s", clock)
    for label, colour, read in (
        ("WAL", ORANGE, lambda s: s.postgres.wal_bytes),
        ("temporary files", PURPLE, lambda s: s.postgres.temp_bytes),
    ):
        values = [None if value is None else value / 1024 for value in watched.read(read)]
        if _any(values):
            _line(figure, label, watched.x, values, colour)
    return Chart("wal", "Postgres: written", "kilobytes a second", figure)


def _locks(clock: Clock, watched: _Watched) -> Chart:
    figure = _figure("", clock)
    waiting = watched.read(lambda s: s.postgres.waiting)
    longest = watched.read(lambda s: s.postgres.longest_transaction)
    if _any(waiting):
        _line(figure, "sessions waiting for a lock", watched.x, waiting, RED, shape="hvh")
    if _any(longest):
        _line(figure, "longest transaction, s", watched.x, longest, BLUE, dash="dot")
    says = "sessions that wait; age of the oldest transaction in seconds"
    return Chart("locks", "Postgres: locks", says, figure)


def _traefik(clock: Clock, watched: _Watched) -> Chart:
    figure = _figure("req/s", clock)
    colours = {"2xx": GREEN, "3xx": TEAL, "4xx": GOLD, "5xx": RED}
    for number, status in enumerate(watched.names(lambda s: s.traefik.requests)):
        found = [s.traefik.requests if s else None for s in watched.samples]
        values = [None if counts is None else counts.get(status, 0.0) for counts in found]
        _bars(figure, status, watched.x, values, colours.get(status, OTHERS[number % 4]),
              watched.width)  # fmt: skip
    return Chart("traefik", "Traefik: requests", "a second, by status", figure)
