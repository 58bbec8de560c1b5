"""`koprogo status` and `koprogo history`: what serves, and what was done."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from koprogo_deploy import backups, door
from koprogo_deploy.cli.common import Environment, out
from koprogo_deploy.journal import Journal
from koprogo_deploy.rehearsal import tables

_STYLES = {
    "deployed": "green", "rolled back": "cyan", "done": "green", "passed": "green",
    "on": "yellow", "off": "green",
}  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="for machines")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(status)
    app.command()(history)


def history(
    environment: Environment,
    limit: Annotated[int, typer.Option(min=1, help="so many of the newest lines")] = 20,
    as_json: Json = False,
) -> None:
    """Show what was done on the host, newest last, and check the journal's chain.

    Exits 1 if a line of the journal was changed, added or taken out.
    """
    from koprogo_deploy import remote

    journal = remote.journal_of(door.open_environment(environment))
    if as_json:
        _print_json(
            {
                "intact": not journal.broken,
                "broken": journal.broken,
                "torn": journal.torn,
                "head": journal.head,
                "entries": journal.entries[-limit:],
            }
        )
    else:
        show_history(out, journal, limit)
    raise typer.Exit(1 if journal.broken else 0)


def show_history(out: Console, journal: Journal, limit: int) -> None:
    """The newest lines as a table, and whether the chain holds."""
    if not journal.entries and not journal.broken:
        out.print("nothing was written down yet")
        return
    table = _table("when (UTC)", "run", "outcome", "release", "by", "took", "why and how")
    for entry in journal.entries[-limit:]:
        table.add_row(*_row(entry))
    out.print(table)
    hidden = len(journal.entries) - limit
    if hidden > 0:
        out.print(f"and {hidden} older lines: --limit {len(journal.entries)}")
    for number in journal.torn:
        out.print(f"line {number} was cut short while it was written")
    for gap in journal.broken:
        out.print(f"[red]the chain is broken: {gap}")
    if not journal.broken:
        out.print(f"the chain of {len(journal.entries)} lines holds; newest {journal.head[:12]}")


def _row(entry: dict[str, Any]) -> tuple[str | Text, ...]:
    outcome = str(entry.get("outcome", entry.get("kind", "")))
    smoke = entry.get("smoke", {})
    words = [
        f"at {entry['step']}" if entry.get("step") else "",
        str(entry.get("reason", "")),
        str(entry.get("cannot_restart", "")),
        str(entry.get("why", "")),
        _rehearsed(entry.get("rehearsal", {})),
        _upgraded(entry.get("upgrade", {})),
        f"smoke: {smoke['tests']}" if smoke else "",
        str(entry.get("measured", "")),
        *(
            f"{service} restarted: interrupted for {seconds:.1f} s"
            for service, seconds in (entry.get("interrupted") or {}).items()
        ),
        f"served again after {entry['back_after']:.1f} s" if "back_after" in entry else "",
    ]
    return (
        _minute(str(entry.get("at", ""))),
        str(entry.get("run", entry.get("kind", ""))),
        Text(outcome, style=_STYLES.get(outcome, "red")),
        str(entry.get("release", "")),
        str(entry.get("by", "")),
        f"{entry['seconds']:.0f} s" if "seconds" in entry else "",
        Text("\n".join(word for word in words if word)),
    )


def _upgraded(seen: dict[str, Any]) -> str:
    if not seen:
        return ""
    page = f", maintenance page for {seen['page']:.1f} s" if "page" in seen else ""
    return f"Postgres {seen['from']} -> {seen['to']}{page}"


def _rehearsed(seen: dict[str, Any]) -> str:
    if not seen:
        return ""
    migrated = sum(seen["migrations"].values())
    lock = max(tables(seen["locks"] or []), key=lambda each: float(each["seconds"]), default=None)
    return (
        f"rehearsed: copied in {seen['seconds'].get('copy', 0):.1f} s, migrated in {migrated:.1f} s"
        + (f", {lock['table']} locked for {lock['seconds']:.1f} s" if lock else "")
    )


def status(environment: Environment, as_json: Json = False) -> None:
    """Say what serves, since when and by whom, and whether all is well. Exits 1 if not."""
    from koprogo_deploy import remote
    from koprogo_deploy.status import report

    opened = door.open_environment(environment)
    found = report(
        remote.stack(opened),
        remote.now(opened),
        remote.journal_of(opened),
        environment=environment,
        longest=backups.longest(opened.settings),
        warning=backups.not_off_site(opened.settings),
        guarded=opened.settings.superadmin_guard,
    )
    if as_json:
        _print_json(found)
    else:
        show_status(out, f"KoproGo ({environment}) on {opened.host}", found)
    raise typer.Exit(0 if found["well"] else 1)


def show_status(out: Console, title: str, found: dict[str, Any]) -> None:
    """The report of `status`, for a person."""
    from koprogo_deploy.status import duration
    from koprogo_deploy.units import megabytes

    verdict = "[green]all is well" if found["well"] else "[red]not well"
    out.print(f"[bold]{title}[/]: {verdict}")
    for problem, advice in zip(found["problems"], found["advice"], strict=True):
        out.print(Text(f"  {problem}", style="red"))
        out.print(Text(f"    -> {advice}"), soft_wrap=True)
    for note in found["notes"]:
        out.print(Text(f"  {note}", style="yellow"))
    disk, last, since = found["disk"], found["last"], found["since"]
    lines = {"serves": found["release"] or "nothing"}
    if since:
        ago = datetime.now(UTC) - datetime.fromisoformat(since["at"])
        moment = f"{_minute(since['at'])} UTC ({duration(ago.total_seconds())})"
        lines["since"] = f"{moment} by {since['by']}"
        lines["why"] = since["why"]
    if last:
        took = f"{last['seconds']:.0f} s"
        lines["last run"] = f"{_minute(last['at'])} UTC, {last['run']}: {last['outcome']} in {took}"
    lines["deploy"] = found["running"] or "none is running"
    for kind, last in found["data"].items():
        lines[kind] = f"{last['outcome']} {duration(last['age'])} ago" if last else "none yet"
    share = 1 - disk["free"] / disk["size"]
    lines["disk"] = f"{megabytes(disk['free'])} free of {megabytes(disk['size'])}, {share:.0%} used"
    for name, value in lines.items():
        if value:
            out.print(Text(f"  {name:10}{value}"))
    services = _table("service", "colour", "state", "up", "image")
    for name, service in found["services"].items():
        state = " ".join(part for part in (service["state"], service["health"]) if part)
        up = duration(service["up"]) if service["up"] is not None else ""
        style = "red" if service["wrong"] else ""
        digest = service["image"].rpartition("@sha256:")[2][:12]
        image = f"{service['asked']} ({digest})"
        services.add_row(name, service["colour"] or "", Text(state, style=style), up, image)
    out.print(services)
    kept = _table("kept release", "made (UTC)", "by", "")
    for each in found["kept"]:
        mark = "serves" if each["id"] == found["release"] else ""
        words = Text(f"bad: {each['bad']}" if each["bad"] else mark)
        kept.add_row(each["id"], _minute(each["made"]), each["by"], words)
    out.print(kept)


def _minute(text: str) -> str:
    return text[:16].replace("T", " ")


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=1))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        narrow = column not in ("why and how", "image", "", "by")
        table.add_column(column, no_wrap=narrow, overflow="fold")
    return table
