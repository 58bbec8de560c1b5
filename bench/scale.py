"""The lists with 1, 10 and 100 times the data, with and without their indexes.

    python -m bench.scale                          three rounds: 25 minutes
    python -m bench.scale --runs 1 --seconds 10    a first look
    python -m bench.scale --go-on                  what was finished is kept

On the sandbox's box, and on no other: it REMOVES THE SEEDED DATA there and seeds anew at each
scale, drops indexes of the lists' tables and makes them again, exactly as they were. At the end,
also when it is stopped, data and indexes are as the deploy makes them. Load: the four lists in
turn, each tenant's own, open loop at a modest rate, so that what is measured is the answer and
not the queue. Reads only. After each: what Postgres did, by EXPLAIN (ANALYZE, BUFFERS).

At the largest scale then what would help: the lists filtered by tenant, as later revisions of
KoproGo do it (the stand-in's fault `tenant_filter`).
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import typer

from bench import indexes, measure
from bench.box import SEED_LOGIN, Box, undisturbed
from bench.figures import Figures, err
from bench.measure import Kept, Load, Measured
from koprogo_deploy import seed
from koprogo_deploy.load.profiles import Mix

SCALES = (1, 10, 100)
RATE = 100  # requests a second over all lists
AT_MOST = 2.0  # times slower at the largest scale
SEEDING, DEPLOYS = 8.0, 40.0  # seconds for a change of scale, and for the tenant filter
FILTERED = "filtered by tenant"


@dataclass(frozen=True)
class Listed:
    """A list of the application: its table, its default order, whether KoproGo filters it."""

    table: str
    sort: str
    filtered: bool

    @property
    def endpoint(self) -> str:
        """The request's name in a run."""
        return f"GET /{self.table}"


LISTS = (
    Listed("buildings", "created_at", filtered=True),
    Listed("owners", "last_name", filtered=True),
    Listed("units", "unit_number", filtered=False),
    Listed("expenses", "expense_date", filtered=False),
)
MIX = Mix({listed.endpoint: 1 for listed in LISTS}, {}, 100)

ALL, WITHOUT, KEYS = "all indexes", "without 20250103000003", "keys only"
INDEXED = (ALL, WITHOUT, KEYS)


def dropped(box: Box, variant: str) -> set[str]:
    """Names of the indexes that a variant does without."""
    definitions = indexes.secondary(box)
    if variant == WITHOUT:
        return indexes.same_service(definitions, indexes.migration())
    return set(definitions) if variant == KEYS else set()


def plans(box: Box, filtered: bool) -> dict[str, list[str]]:
    """What Postgres does for each list's count and page.

    Args:
        box: with the data.
        filtered: every list by tenant, not only those that KoproGo filters.
    """
    query = f"SELECT organization_id FROM users WHERE email = '{SEED_LOGIN}';"
    where = f" WHERE organization_id = '{box.sql(query)}'"
    found = {}
    for listed in LISTS:
        own = where if listed.filtered or filtered else ""
        asked = indexes.statements(listed.table, listed.sort, own)
        found[listed.table] = [str(indexes.explain(box, statement)) for statement in asked]
    return found


def reseed(box: Box, scale: int) -> None:
    """Exactly this much data, analysed."""
    box.sql(seed.clear_sql())
    box.deploy("seed", **({} if scale == 1 else {"seed_scale": scale}))
    box.sql("VACUUM ANALYZE;")
    box.wait()


@contextlib.contextmanager
def seeded_again(box: Box) -> Iterator[None]:
    """At the end, what the deploy seeds."""
    try:
        yield
    finally:
        with undisturbed():
            reseed(box, 1)


@contextlib.contextmanager
def tenant_filter(box: Box) -> Iterator[None]:
    """The stand-in filters every list by tenant for a while."""
    stages = ("release", "migrate", "cutover", "settle")  # no seed, no smoke tests
    try:
        for stage in stages:
            box.deploy(stage, backend_environment={"STANDIN_FAULTS": "tenant_filter"})
        yield
    finally:
        with undisturbed():
            for stage in stages:
                box.deploy(stage)


def one(box: Box, kept: Kept, found: dict[str, object], name: str, load: Load, n: int) -> None:
    """A measurement, and its plans."""
    measured = measure.measure(box, name, load, n)
    kept.put(measured)
    found[name] = plans(box, filtered=FILTERED in name)
    kept.note("plans", found)
    err.print(f"[dim]round {n + 1}, {name}, {measure.said(measured)}[/]")


def measure_round(box: Box, kept: Kept, load: Load, n: int) -> None:
    """What of a round is not there yet: each scale, and at each the variants in turns."""
    found = kept.noted("plans")
    for scale in measure.rotated(SCALES, n):
        variants = [*measure.rotated(INDEXED, n), *([FILTERED] if scale == max(SCALES) else [])]
        names = {variant: f"×{scale}, {variant}" for variant in variants}
        if all(kept.get(measure.key(name, load.name, n)) for name in names.values()):
            continue
        reseed(box, scale)
        for variant, name in names.items():
            if kept.get(measure.key(name, load.name, n)):
                continue
            if variant == FILTERED:
                with tenant_filter(box):
                    box.wait()
                    one(box, kept, found, name, load, n)
            else:
                with indexes.without(box, dropped(box, variant)):
                    one(box, kept, found, name, load, n)


def endpoint(measured: Measured, name: str, percentile: str) -> float | None:
    """A list's percentile in a run, in milliseconds."""
    found = next((e for e in measured.phase.endpoints if e.name == name), None)
    value: float | None = getattr(found.latency, percentile) if found else None
    return value


def tabulate(figures: Figures, kept: Kept) -> None:
    """A row for each list and variant, the scales side by side."""
    measured, found = kept.all(), kept.noted("plans")

    def group(name: str) -> list[Measured]:
        return [m for m in measured if m.configuration == name]

    def both(name: str, listed: Listed) -> str:
        def shown(percentile: str) -> str:
            return measure.middle(
                group(name), lambda m: endpoint(m, listed.endpoint, percentile), 1, spread=False
            )

        both_of = (shown("p50"), shown("p99"))
        return " / ".join(both_of) if all(both_of) else ""

    for listed in LISTS:
        for variant in (*INDEXED, FILTERED):
            cells = [both(f"×{scale}, {variant}", listed) for scale in SCALES]
            base = ALL if variant == FILTERED else variant
            ratio = growth(group(f"×1, {base}"), group(f"×{max(SCALES)}, {variant}"), listed)
            if any(cells):
                times = "" if ratio is None else f"{ratio:.2f}×"
                figures.rows.append((f"{listed.endpoint}, {variant}", *cells, times))
    figures.notes += conclusions(measured)
    for name, lists in found.items():
        if f"×{max(SCALES)}, " in name:
            for table, (counted, page) in lists.items():
                figures.notes.append(f"{name}, {table}: count: {counted}; page: {page}")
    figures.measured["plans"] = found


def growth(
    small: Sequence[Measured], large: Sequence[Measured], listed: Listed, percentile: str = "p50"
) -> float | None:
    """How many times slower a list is at the largest scale, of medians."""
    sides = []
    for side in (small, large):
        known = measure.values(side, lambda m: endpoint(m, listed.endpoint, percentile))
        if not known:
            return None
        sides.append(median(known))
    return sides[1] / sides[0] if sides[0] else None


def conclusions(measured: Sequence[Measured]) -> list[str]:
    """Whether each list holds the bound at the largest scale, with all indexes."""

    def group(name: str) -> list[Measured]:
        return [m for m in measured if m.configuration == name]

    most = max(SCALES)
    said = []
    for listed in LISTS:
        small, large = group(f"×1, {ALL}"), group(f"×{most}, {ALL}")
        p50, p99 = (growth(small, large, listed, p) for p in ("p50", "p99"))
        if p50 is None or p99 is None:
            continue
        holds = "within" if max(p50, p99) <= AT_MOST else "NOT within"
        text = (
            f"{listed.endpoint}: ×{most} is {holds} {AT_MOST:.0f}× of ×1 (P50 {p50:.2f}×, "
            f"P99 {p99:.2f}×)"
        )
        mended = growth(small, group(f"×{most}, {FILTERED}"), listed)
        if not listed.filtered and mended is not None:
            text += f"; {FILTERED}: P50 {mended:.2f}×"
        said.append(text)
    return said


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    runs: measure.Rounds = 3,
    seconds: measure.Seconds = 30,
    go_on: measure.GoOn = False,
    markdown: measure.Markdown = False,
) -> None:
    """Measure, print the table, write all runs to bench/results/."""
    load = Load(f"lists at {RATE}/s", seconds, rate=RATE, mix=MIX)
    times = " / ".join(f"×{scale}" for scale in SCALES)
    figures = Figures(
        f"Lists at {times} of the data, P50 / P99 in ms, medians",
        " ".join(["python -m bench.scale", *sys.argv[1:]]).replace(" --markdown", ""),
        ("", *(f"×{scale}" for scale in SCALES), f"P50 ×{max(SCALES)} : ×1"),
    )
    with measure.benchmark("scale") as box:
        kept = measure.kept("scale", go_on, {"seconds": seconds, "rate": RATE})
        each = runs * (seconds + measure.STARTING)
        whole = (len(SCALES) * len(INDEXED) + 1) * each + runs * (len(SCALES) * SEEDING + DEPLOYS)
        err.print(f"{runs} rounds at {times}: {measure.minutes(whole)}")
        with seeded_again(box):
            for n in range(runs):
                measure_round(box, kept, load, n)
        tabulate(figures, kept)
        figures.notes += measure.caveats(kept.all())
        figures.measured["runs"] = [json.loads(m.model_dump_json()) for m in kept.all()]
        figures.finish("scale", markdown)


if __name__ == "__main__":
    app()
