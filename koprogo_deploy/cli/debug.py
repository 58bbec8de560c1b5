"""`koprogo debug`: slow queries, indexes, plans, locks, logs. Reads; cannot change anything."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from rich.text import Text

from koprogo_deploy import door
from koprogo_deploy.cli.common import EnvironmentOption, Where, out
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.screen import complain, machine_json
from koprogo_deploy.settings import SERVICES

debug_app = typer.Typer(
    no_args_is_help=True,
    help="What the database and the logs say about a slow or failing site. Reads only.",
)

JsonOption = Annotated[bool, typer.Option("--json", help="JSON for machines")]


def register(app: typer.Typer) -> None:
    """Add the family to the command line."""
    app.add_typer(debug_app, name="debug")


def _json(value: object) -> None:
    machine_json(value, indent=2, default=str, ensure_ascii=False)


def _refuse(where: str, error: ValueError, fix: str = "") -> Refusal:
    return Refusal("koprogo debug", [Problem(where, str(error), fix)])


@debug_app.command("slow-queries")
def slow_queries(
    environment: EnvironmentOption = Where.sandbox,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="how many statements")] = 10,
    by: Annotated[str, typer.Option(help="total, mean or calls")] = "total",
    full: Annotated[bool, typer.Option("--full", help="whole texts, however long")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the statements that cost most time, as Postgres counted them."""
    from koprogo_deploy.debug import show, statements
    from koprogo_deploy.debug.ask import ask

    if by not in ("total", "mean", "calls"):
        raise _refuse("--by", ValueError(f'"{by}"'), "total, mean or calls")
    opened = door.open_environment(environment)
    about = ask(opened, statements.ABOUT_SQL)[0]
    if reason := statements.missing(about):
        fix = "the extension comes with a deploy"
        raise Refusal(f"Database on {opened.host}", [Problem("pg_stat_statements", reason, fix)])
    sql = statements.query(about["columns"], by, limit)  # type: ignore[arg-type]
    found = statements.parse(about, ask(opened, sql)[0])
    if as_json:
        _json(dataclasses.asdict(found))
        return
    show.lines(out, show.slow(found, by, full))


@debug_app.command("indexes")
def index_command(
    environment: EnvironmentOption = Where.sandbox,
    everything: Annotated[bool, typer.Option("--all", help="used ones too, nothing cut")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show indexes that are unused, twice the same, or missing, and tables read whole."""
    from koprogo_deploy.debug import indexes, show
    from koprogo_deploy.debug.ask import ask

    opened = door.open_environment(environment)
    found = indexes.parse(ask(opened, indexes.SQL)[0])
    if as_json:
        redundant = [
            {"index": r.index.name, "because_of": r.by.name, "table": r.index.table, "kind": r.kind}
            for r in found.redundant
        ]
        _json(
            dataclasses.asdict(found)
            | {
                "redundant": redundant,
                "unused": [index.name for index in found.unused],
                "unused_but_needed": [index.name for index in found.unused_but_needed],
                "invalid": [index.name for index in found.invalid],
                "missing": [dataclasses.asdict(key) for key in found.missing],
            }
        )
        return
    show.lines(out, show.index_report(found, everything))


@debug_app.command("explain")
def explain_command(
    endpoint: Annotated[
        str,
        typer.Argument(help="buildings, units, owners, expenses, meetings, documents or users"),
    ],
    environment: EnvironmentOption = Where.sandbox,
    org: Annotated[
        str | None, typer.Option(help="whose list, by name or slug; default: who has most rows")
    ] = None,
    page: Annotated[int, typer.Option(help="which page")] = 1,
    per_page: Annotated[int, typer.Option(help="rows a page, 1 to 100")] = 20,
    sort: Annotated[str, typer.Option(help="a column that the list sorts by")] = "",
    order: Annotated[str, typer.Option(help="asc or desc")] = "asc",
    as_json: JsonOption = False,
) -> None:
    """Show how Postgres carries out a tenant's own list: the plan, with times and buffers.

    It runs the queries that the application sends, page and count, and reads only.
    """
    from koprogo_deploy.debug import explain, show
    from koprogo_deploy.debug.ask import ask

    if order not in ("asc", "desc"):
        raise _refuse("--order", ValueError(f'"{order}"'), "asc or desc")
    try:
        asked = explain.Page(endpoint.strip("/"), page, per_page, sort, order == "desc")
    except ValueError as error:
        raise _refuse("explain", error) from None
    opened = door.open_environment(environment)
    script = explain.about_sql(asked) + explain.seen_sql(asked)
    organizations, about, seen = ask(opened, script)
    try:
        tenant = explain.choose([explain.Organization(**o) for o in organizations], org)
    except ValueError as error:
        raise _refuse("--org", error) from None
    table, statements = explain.about(about), [explain.Seen(**s) for s in seen]
    queries = {"the page": explain.page_query(asked, statements)}
    if counting := explain.count_query(asked, statements):
        queries["the count for its pages"] = counting
    raw = ask(opened, explain.explain_sql(list(queries.values()), tenant.id, asked))
    if as_json:
        _json(
            {
                "endpoint": asked.endpoint,
                "organization": dataclasses.asdict(tenant),
                "table": dataclasses.asdict(table),
                "queries": [
                    {**dataclasses.asdict(query), "plan": plan[0]}
                    for query, plan in zip(queries.values(), raw, strict=True)
                ],
            }
        )
        return
    plans = [
        (title, query, explain.parse_plan(plan, asked, table, query.filtered))
        for (title, query), plan in zip(queries.items(), raw, strict=True)
    ]
    show.lines(out, show.explained(asked, tenant, table, plans))


@debug_app.command("locks")
def lock_command(
    environment: EnvironmentOption = Where.sandbox,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="look again every 2 s")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show who waits for whom in the database, since when, and for what."""
    from koprogo_deploy.debug import locks, show
    from koprogo_deploy.debug.ask import ask

    opened = door.open_environment(environment)

    def look() -> locks.Locks:
        return locks.parse(ask(opened, locks.SQL)[0])

    def tell() -> None:
        found = look()
        if as_json:
            machine_json(dataclasses.asdict(found), indent=None, default=str, ensure_ascii=False)
        else:
            show.lines(out, show.lock_report(found))

    if not watch:
        tell()
    elif as_json or not sys.stdout.isatty():
        _repeat(tell)
    else:
        from rich.console import Group
        from rich.live import Live

        with Live(console=out, auto_refresh=False) as live:
            _repeat(lambda: live.update(Group(*show.lock_report(look())), refresh=True))


def _repeat(action: Callable[[], None], seconds: float = 2.0) -> None:
    while True:
        action()
        time.sleep(seconds)


@debug_app.command("logs")
def log_command(
    services: Annotated[
        list[str] | None,
        typer.Argument(help="backend, frontend, postgres, traefik; default: all of them"),
    ] = None,
    environment: EnvironmentOption = Where.sandbox,
    level: Annotated[
        str | None, typer.Option(help="this level and worse: debug, info, warn, error")
    ] = None,
    slow: Annotated[str | None, typer.Option(help="what took so long or longer: 250ms, 1s")] = None,
    request: Annotated[str | None, typer.Option(help="part of a path, an id, or any text")] = None,
    since: Annotated[str, typer.Option(help="10m, 2h, or 2026-01-31T10:00:00Z")] = "10m",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until Ctrl-C")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="a JSON object for each entry")] = False,
) -> None:
    """Show the containers' logs in one stream, both colours, filtered. Times are UTC.

    Exits 1 when a log could not be read: what was not read does not count as without errors.
    """
    from koprogo_deploy.debug import logs, show

    chosen, wanted = _wanted(services or [], level, slow, request, since)
    opened = door.open_environment(environment)
    secrets = sorted(opened.secrets.values.values(), key=len, reverse=True)
    reading, shown = logs.Reading(), 0
    blind = logs.blind_spots(opened.settings, chosen, wanted)
    if follow:
        _tell(blind)
    again = logs.Repeats()
    for entry in logs.read(opened, chosen, since, follow, reading):
        if not wanted.takes(entry):
            continue
        shown += 1
        entry.text = logs.mask(entry.text, secrets)
        entry.more = [logs.mask(line, secrets) for line in entry.more]
        if as_json:
            machine_json(logs.as_dict(entry), indent=None, ensure_ascii=False)
        elif follow or not again.add(entry):
            _print(show.repeated(again.take()))
            _print(show.log_entry(entry))
    _print(show.repeated(again.take()))
    if not follow:
        _tell(logs.summary(reading, shown, since))
        _tell(blind)
    for name in reading.ended:
        _tell([f"{name}: the container ended"])
    for name, reason in reading.unread.items():
        complain(f"NOT READ: {name}: {reason}")
    if reading.unread:
        raise typer.Exit(1)


def _print(lines: Iterator[Text]) -> None:
    for line in lines:
        out.print(line, soft_wrap=not sys.stdout.isatty())


def _tell(lines: list[str]) -> None:
    for line in lines:
        complain(f"note: {line}")


def _wanted(
    services: list[str], level: str | None, slow: str | None, request: str | None, since: str
) -> tuple[list[str], Any]:
    """What was asked for, or every reason why it cannot be."""
    from koprogo_deploy.debug import logs

    problems = [
        Problem("service", f'"{name}"', f"one of {', '.join(SERVICES)}")
        for name in services
        if name not in SERVICES
    ]
    if level and level not in logs.LEVELS:
        problems.append(Problem("--level", f'"{level}"', f"one of {', '.join(logs.LEVELS)}"))
    slow_ms = None
    try:
        slow_ms = logs.parse_duration(slow) if slow else None
    except ValueError as error:
        problems.append(Problem("--slow", str(error)))
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?", since):
        try:
            logs.parse_duration(since)
        except ValueError as error:
            problems.append(Problem("--since", str(error), "or a time: 2026-01-31T10:00:00Z"))
    if problems:
        raise Refusal("koprogo debug logs", problems)
    return services or list(SERVICES), logs.Wanted(level, slow_ms, request)
