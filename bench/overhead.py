"""What watching and guarding cost: CPU for each request, by container.

    python -m bench.overhead                           four rounds: 25 minutes
    python -m bench.overhead --runs 1 --seconds 10     a first look
    python -m bench.overhead --go-on                   what was finished is kept

On the sandbox's box, and on no other, each by itself against the deploy as it is: the monitor
watches; Traefik writes its access log (as `access_log = "stdout"` does) or counts no metrics (its
own file edited and the proxy restarted, for a while); a middleware is taken off the route that the
load takes, or, as the load test's client is exempt from the rate limit, that one is put on it. The
configurations take turns within each round; everything is taken back, also when it is stopped.

Load: the realistic mix through TLS, open loop at a fixed rate, so that all have the same work.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import typer
import yaml

from bench import measure
from bench.box import Box
from bench.figures import Failed, Figures, err
from bench.measure import MACHINE, REST, Kept, Load, Measured
from koprogo_deploy import render

RATE = 250
ROUTER = "api-load-client"
# So high that it lets everything pass: it is to count, not to refuse.
NO_LIMIT = 1_000_000
CHANGING = 4.0  # seconds for a change of configuration

Edit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Configuration:
    """The deploy as it is, but for one thing.

    Attributes:
        monitor: it watches meanwhile.
        routes: edits Traefik's dynamic file.
        proxy: edits Traefik's static file, from text to text.
    """

    name: str
    monitor: bool = False
    routes: Edit | None = None
    proxy: Callable[[Box, str], str] | None = None


def without(*names: str) -> Edit:
    """Take middlewares off the route of the load."""

    def edit(dynamic: dict[str, Any]) -> None:
        router = dynamic["http"]["routers"][ROUTER]
        missing = [name for name in names if name not in router["middlewares"]]
        if missing:
            raise Failed(f"router {ROUTER} has no middleware {missing[0]}")
        router["middlewares"] = [m for m in router["middlewares"] if m not in names]
        if not router["middlewares"]:
            del router["middlewares"]

    return edit


def rate_limited(dynamic: dict[str, Any]) -> None:
    """Put the rate limit on the route of the load, as others have it, but never reached."""
    http = dynamic["http"]
    http["routers"][ROUTER]["middlewares"].insert(1, "rate-limit")
    http["middlewares"]["rate-limit"]["rateLimit"] |= {"average": NO_LIMIT, "burst": NO_LIMIT}


def with_access_log(box: Box, _text: str) -> str:
    """Traefik's file as `access_log = "stdout"` makes it."""
    settings = box.environment.settings.model_copy(update={"access_log": "stdout"})
    return render.template("traefik/traefik.yaml", settings=settings)


def without_metrics(_box: Box, text: str) -> str:
    """Traefik's file without its metrics."""
    static = yaml.safe_load(text)
    if "metrics" not in static:
        raise Failed("Traefik's file has no metrics to switch off")
    del static["metrics"]
    return yaml.safe_dump(static)


PLAIN = Configuration("as deployed")
CONFIGURATIONS = (
    PLAIN,
    Configuration("with the monitor", monitor=True),
    Configuration("with the access log", proxy=with_access_log),
    Configuration("without metrics", proxy=without_metrics),
    Configuration("without headers", routes=without("headers")),
    Configuration("without compress", routes=without("compress")),
    Configuration("without retry", routes=without("retry")),
    Configuration("with the rate limit", routes=rate_limited),
    Configuration("without any middleware", routes=without("headers", "compress", "retry")),
)


def edited(text: str, edit: Edit | None) -> dict[str, Any] | None:
    """The dynamic file after an edit; None without one."""
    if edit is None:
        return None
    dynamic: dict[str, Any] = copy.deepcopy(yaml.safe_load(text))
    edit(dynamic)
    return dynamic


def measure_round(box: Box, kept: Kept, todo: Sequence[Configuration], load: Load, n: int) -> None:
    """What of a round is not there yet."""
    for configuration in measure.rotated(todo, n):
        if kept.get(measure.key(configuration.name, load.name, n)):
            continue
        with ExitStack() as changed:
            dynamic = edited(box.root(f"cat {box.dynamic_file}"), configuration.routes)
            changed.enter_context(box.routes(dynamic, ROUTER))
            if configuration.proxy:
                before = box.root(f"cat {box.static_file}")
                changed.enter_context(box.proxy(configuration.proxy(box, before)))
            watched = load.watched() if configuration.monitor else load
            measured = measure.measure(box, configuration.name, watched, n)
            kept.put(measured)
            err.print(f"[dim]round {n + 1}, {configuration.name}, {measure.said(measured)}[/]")


def tabulate(figures: Figures, measured: Sequence[Measured]) -> None:
    """A row for each configuration: what a request costs where, and what the difference is."""
    groups: Mapping[str, list[Measured]] = {
        configuration.name: [m for m in measured if m.configuration == configuration.name]
        for configuration in CONFIGURATIONS
    }
    plain = groups[PLAIN.name]
    for name, group in groups.items():
        if not group:
            continue
        cells = [
            measure.middle(group, lambda m, s=service: m.costs[s].per_request, 0)  # type: ignore[misc]
            for service in ("traefik", "backend", "postgres", REST)
        ]
        total = measure.middle(group, lambda m: m.costs[MACHINE].per_request, 0)
        if name == PLAIN.name:
            difference = ""
        else:
            difference = measure.against(plain, group, lambda m: m.costs[MACHINE].per_request)
        figures.rows.append((name, *cells, total, difference))
    watching = groups["with the monitor"]
    own = [s.monitor_cpu_percent for m in watching for s in m.run.samples]
    known = [value for value in own if value is not None]
    if known:
        figures.notes.append(
            f"the monitor says of itself: {sum(known) / len(known):.2f} % of a CPU, in "
            f"{len(known)} of {len(own)} seconds"
        )
    figures.notes.append(
        "rest: what of the box is none of the four containers: engine, SSH, system, and the monitor"
    )


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    runs: measure.Rounds = 4,
    seconds: measure.Seconds = 30,
    only: measure.Only = None,
    go_on: measure.GoOn = False,
    markdown: measure.Markdown = False,
) -> None:
    """Measure, print the table, write all runs to bench/results/."""
    todo = measure.chosen(CONFIGURATIONS, only, lambda c: c.name)
    load = Load(f"{RATE}/s", seconds, rate=RATE)
    figures = Figures(
        f"CPU µs for each request at {RATE}/s, medians (range)",
        " ".join(["python -m bench.overhead", *sys.argv[1:]]).replace(" --markdown", ""),
        ("", "Traefik", "backend", "Postgres", "rest", "all", "difference"),
    )
    with measure.benchmark("overhead") as box:
        kept = measure.kept("overhead", go_on, {"seconds": seconds, "rate": RATE})
        each = seconds + measure.STARTING + CHANGING
        err.print(f"{runs} rounds of {len(todo)}: {measure.minutes(runs * len(todo) * each)}")
        for n in range(runs):
            measure_round(box, kept, todo, load, n)
        measured = kept.all()
        tabulate(figures, measured)
        figures.notes += measure.caveats(measured)
        figures.measured["runs"] = [json.loads(m.model_dump_json()) for m in measured]
        figures.finish("overhead", markdown)


if __name__ == "__main__":
    app()
