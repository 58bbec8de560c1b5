"""CPU quotas or weights, and whose Postgres settings: measured, not assumed.

    python -m bench.tuning                         four rounds of everything: 45 minutes
    python -m bench.tuning --runs 1 --seconds 10   a first look
    python -m bench.tuning --go-on                 what was finished is kept, the rest is measured

On the sandbox's box, and on no other: for each configuration it sets CPU quotas in the containers'
cgroups and Postgres' settings in `postgresql.auto.conf` (with a restart of Postgres), then loads
the site through TLS from 127.0.0.1: open loop at two rates, closed loop saturated. Configurations
take turns within each round. Everything is taken back at the end, also when it is stopped.

The original's settings are those of its `deploy/production/docker-compose.yml` at f88f8439.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import typer

from bench import measure
from bench.box import Box
from bench.figures import Figures, err
from bench.measure import Kept, Load, Measured
from koprogo_deploy.tuning import tune

ORIGINAL_QUOTAS = {"traefik": 0.25, "backend": 0.75, "frontend": 0.5}
ORIGINAL_POSTGRES = {
    "max_connections": "15",
    "shared_buffers": "256MB",
    "effective_cache_size": "768MB",
    "work_mem": "5MB",
    "maintenance_work_mem": "64MB",
    "wal_buffers": "8MB",
    "min_wal_size": "512MB",
    "max_wal_size": "1GB",
    "random_page_cost": "1.1",
    "effective_io_concurrency": "200",
    "shared_preload_libraries": "pg_stat_statements",
    "log_min_duration_statement": "1000",
}
# Of ours, not of what is compared: without them nobody could log in, or in another clock.
CONNECTING = ("listen_addresses", "hba_file", "password_encryption", "timezone", "log_timezone")
# What initdb writes, whatever the source code's own value is.
BY_INITDB = {"shared_buffers": "128MB"}

RATES = (250, 1000)
USERS = 50
RESTARTS = 5.0  # seconds for a change of configuration


@dataclass(frozen=True)
class Configuration:
    """What is compared: quotas, and whose Postgres settings."""

    name: str
    quotas: bool
    postgres: Literal["ours", "original", "default"]


OURS = Configuration("ours", quotas=False, postgres="ours")
CONFIGURATIONS = (
    OURS,
    Configuration("original", quotas=True, postgres="original"),
    Configuration("ours + quotas", quotas=True, postgres="ours"),
    Configuration("ours + original Postgres", quotas=False, postgres="original"),
    Configuration("ours + default Postgres", quotas=False, postgres="default"),
)


def loads(seconds: int) -> tuple[Load, ...]:
    """What each configuration has to bear: the realistic mix."""
    opened = (Load(f"{rate}/s", seconds, rate=rate) for rate in RATES)
    return (*opened, Load("saturated", seconds, users=USERS))


def postgres_values(box: Box, whose: str) -> dict[str, str]:
    """Settings on top of the deploy's file, so that the server has whosever they are."""
    if whose == "ours":
        return {}
    ours = [setting.name for setting in tune(box.environment.settings)]
    named = [name for name in {*ours, *ORIGINAL_POSTGRES} if name not in CONNECTING]
    values = box.postgres_defaults(named) | BY_INITDB
    return values | (ORIGINAL_POSTGRES if whose == "original" else {})


def measure_round(box: Box, kept: Kept, todo: Sequence[tuple[Configuration, Load]], n: int) -> None:
    """What of a round is not there yet, each configuration's loads together."""
    for configuration in measure.rotated(CONFIGURATIONS, n):
        mine = [load for of, load in todo if of == configuration]
        mine = [m for m in mine if not kept.get(measure.key(configuration.name, m.name, n))]
        if not mine:
            continue
        with ExitStack() as changed:
            changed.enter_context(box.postgres(postgres_values(box, configuration.postgres)))
            changed.enter_context(box.quotas(ORIGINAL_QUOTAS if configuration.quotas else {}))
            for load in mine:
                measured = measure.measure(box, configuration.name, load, n)
                kept.put(measured)
                err.print(f"[dim]round {n + 1}, {configuration.name}, {measure.said(measured)}[/]")


def compared(ours: Sequence[Measured], group: Sequence[Measured]) -> str:
    """Rate and P99 beside ours."""
    rate = measure.against(ours, group, lambda m: m.phase.achieved_rate, "rate")
    p99 = measure.against(ours, group, lambda m: m.phase.latency.p99, "P99")
    return "; ".join(part for part in (rate, p99) if part)


def tabulate(figures: Figures, measured: Sequence[Measured], seconds: int) -> None:
    """A row for each load and configuration, and how it compares with ours."""
    for load in loads(seconds):
        ours = [m for m in measured if (m.configuration, m.load) == (OURS.name, load.name)]
        for configuration in CONFIGURATIONS:
            group = [m for m in measured if m.configuration == configuration.name]
            group = [m for m in group if m.load == load.name]
            if not group:
                continue
            figures.rows.append(
                (
                    f"{load.name}, {configuration.name}",
                    measure.middle(group, lambda m: m.phase.achieved_rate, 0),
                    measure.middle(group, lambda m: m.phase.latency.p50, 1),
                    measure.middle(group, lambda m: m.phase.latency.p99, 1),
                    measure.middle(group, lambda m: m.costs["traefik"].throttled_percent, 0),
                    measure.middle(group, lambda m: m.costs[measure.MACHINE].per_request, 0),
                    "" if configuration == OURS else compared(ours, group),
                )
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
    chosen = measure.chosen(CONFIGURATIONS, only, lambda c: c.name)
    todo = [(configuration, load) for configuration in chosen for load in loads(seconds)]
    figures = Figures(
        "CPU quotas and Postgres settings, medians (range)",
        " ".join(["python -m bench.tuning", *sys.argv[1:]]).replace(" --markdown", ""),
        (
            "",
            "right/s",
            "P50 ms",
            "P99 ms",
            "Traefik throttled %",
            "CPU µs/request",
            "against ours",
        ),
    )
    with measure.benchmark("tuning") as box:
        kept = measure.kept("tuning", go_on, {"seconds": seconds})
        whole = runs * sum(load.seconds + measure.STARTING for _, load in todo)
        whole += runs * len(chosen) * RESTARTS
        err.print(f"{runs} rounds of {len(todo)}: {measure.minutes(whole)}")
        for n in range(runs):
            measure_round(box, kept, todo, n)
        measured = kept.all()
        tabulate(figures, measured, seconds)
        figures.notes += measure.caveats(measured)
        figures.measured["runs"] = [json.loads(m.model_dump_json()) for m in measured]
        figures.finish("tuning", markdown)


if __name__ == "__main__":
    app()
