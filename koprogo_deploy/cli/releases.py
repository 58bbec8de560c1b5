"""`koprogo status` and `koprogo history`: what serves, and what was done."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from koprogo_deploy import backups, door
from koprogo_deploy.cli.backups import backups_of
from koprogo_deploy.cli.common import Environment, Json, out
from koprogo_deploy.journal import Head, Journal, compared, head_of
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.rehearsal import tables
from koprogo_deploy.screen import foreign, machine_json
from koprogo_deploy.visible import visible

_STYLES = {
    "deployed": "green", "rolled back": "cyan", "done": "green", "passed": "green",
    "on": "yellow", "off": "green",
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(status)
    app.command()(history)


def history(
    environment: Environment,
    limit: Annotated[int, typer.Option(min=1, help="so many of the newest lines")] = 20,
    check: Annotated[
        bool, typer.Option("--check", help="compare with the heads that the backups keep")
    ] = False,
    head: Annotated[
        list[str] | None,
        typer.Option("--head", metavar="HASH", help="and with this one, of a run's output"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what was done on the host, newest last, and check the journal's chain.

    The chain alone shows a change in its middle. That its end was cut off, or all of it written
    anew by root of the host, shows against a head that was kept elsewhere: **--check** asks the
    backups' repository, **--head** takes one from the output of a run.

    Exits 1 if a line was changed, added or taken out, or there is nothing to check against. Backups
    of a host before this one say nothing of it, where the journal says that it was recovered.
    """
    from koprogo_deploy import remote

    opened = door.open_environment(environment)
    journal = remote.journal_of(opened)
    given = [_given_head(word) for word in head or ()]
    seen = compared(journal, given, kept_heads(opened) if check else None)
    if as_json:
        machine_json(
            {
                "intact": not journal.broken,
                "broken": journal.broken,
                "torn": journal.torn,
                "head": journal.head,
                "compared": seen.compared,
                "before_recovery": seen.before,
                "missing": seen.missing,
                "entries": journal.entries[-limit:],
            }
        )
    else:
        show_history(out, journal, limit)
        for each in seen.missing:
            out.print(foreign(each, "red"))
        if seen.compared and not seen.missing:
            out.print(foreign(f"all {seen.compared} that were kept elsewhere are in it"))
        if seen.explained:
            out.print(foreign(seen.explained, "yellow"))
        if check and not backups.off_site(opened.settings):
            words = "the repository is on the host itself: who edits the journal can edit it too"
            out.print(words, style="yellow")
    raise typer.Exit(1 if journal.broken or seen.missing else 0)


def _given_head(word: str) -> Head:
    if not re.fullmatch("[0-9a-f]{32,64}", word):
        what = f'"{word}" is no head'
        raise Refusal(
            "Command line", [Problem("--head", what, "32 to 64 digits of a run's output")]
        )
    return Head("", 0, word, "the run whose head was given")


def kept_heads(opened: door.Environment) -> list[Head]:
    """Heads of the journal that the backups in the repository keep, oldest first."""
    return [
        head
        for each in backups_of(opened)
        if (
            head := head_of(
                each["tags"],
                f"backup {each['short_id']} of {each['time'][:16]}",
                datetime.fromisoformat(each["time"]).timestamp(),
            )
        )
    ]


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
        out.print(foreign(f"the chain is broken: {gap}", "red"))
    if not journal.broken:
        out.print(f"the chain of {len(journal.heads)} lines holds; head {journal.head}")


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
        *smoke.get("untried", ()),
        str(entry.get("measured", "")),
        *(
            f"{service} restarted: interrupted for {seconds:.1f} s"
            for service, seconds in (entry.get("interrupted") or {}).items()
        ),
        f"served again after {entry['back_after']:.1f} s" if "back_after" in entry else "",
    ]
    return (
        foreign(_minute(str(entry.get("at", "")))),
        foreign(entry.get("run", entry.get("kind", ""))),
        foreign(outcome, _STYLES.get(outcome, "red")),
        foreign(entry.get("release", "")),
        foreign(entry.get("by", "")),
        f"{entry['seconds']:.0f} s" if "seconds" in entry else "",
        Text("\n".join(visible(word) for word in words if word)),
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
    held = f", {lock['table']} locked for {lock['seconds']:.1f} s" if lock else ""
    if seen["locks"] is None:
        held = ", its locks were not watched"
    copied = seen["seconds"].get("copy", 0)
    return f"rehearsed: copied in {copied:.1f} s, migrated in {migrated:.1f} s{held}"


def status(environment: Environment, as_json: Json = False) -> None:
    """Say what serves, since when and by whom, and whether all is well. Exits 1 if not.

    The site is asked from here, by its names, as a visitor would; and the host by SSH.
    """
    opened = door.open_environment(environment)
    found = status_of(opened)
    if as_json:
        machine_json(found)
    else:
        show_status(out, f"KoproGo ({environment}) on {opened.host}", found)
    raise typer.Exit(0 if found["well"] else 1)


def status_of(opened: door.Environment) -> dict[str, Any]:
    """The report of `status`: what the site answers, and what its host says of itself."""
    from concurrent.futures import ThreadPoolExecutor

    from koprogo_deploy import front, remote
    from koprogo_deploy import status as of

    name = opened.settings.environment
    with ThreadPoolExecutor(1) as pool:
        outside = pool.submit(front.look, opened.settings)
        try:
            looks = remote.stack(opened), remote.now(opened), remote.journal_of(opened)
        except Refusal as refusal:
            why = "; ".join(problem.what for problem in refusal.problems)
            return of.unreachable(why, outside.result(), name)
        return of.report(
            *looks,
            environment=name,
            longest=backups.longest(opened.settings),
            warnings=backups.warnings(opened.settings),
            guarded=opened.settings.superadmin_guard,
            fronts=outside.result(),
        )


def show_status(out: Console, title: str, found: dict[str, Any]) -> None:
    """The report of `status`, for a person."""
    from koprogo_deploy.status import duration
    from koprogo_deploy.units import megabytes

    verdict = ("all is well", "green") if found["well"] else ("not well", "red")
    out.print(Text.assemble((visible(title), "bold"), ": ", verdict))
    for problem, advice in zip(found["problems"], found["advice"], strict=True):
        out.print(foreign(f"  {problem}", "red"))
        out.print(foreign(f"    -> {advice}"), soft_wrap=True)
    for note in found["notes"]:
        out.print(foreign(f"  {note}", "yellow"))
    for each in found["outside"]:
        ends = f"certificate for {each['days']:.0f} days more" if each["days"] is not None else ""
        answer = f"{each['name']}{each['path']} {each['problem'] or 'answers'}"
        out.print(foreign(f"  outside   {', '.join(part for part in (answer, ends) if part)}"))
    if not found["asked"]:
        return
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
    room = f"{megabytes(disk['free'])} free of {megabytes(disk['size'])}, {share:.0%} used"
    lines["disk"] = room if disk["at"] == "/" else f"{room}, at {disk['at']}"
    for name, value in lines.items():
        if value:
            out.print(foreign(f"  {name:10}{value}"))
    services = _table("service", "colour", "state", "up", "image")
    for name, service in found["services"].items():
        state = " ".join(part for part in (service["state"], service["health"]) if part)
        up = duration(service["up"]) if service["up"] is not None else ""
        style = "red" if service["wrong"] else ""
        digest = service["image"].rpartition("@sha256:")[2][:12]
        image = f"{service['asked']} ({digest})"
        colour = foreign(service["colour"] or "")
        services.add_row(name, colour, foreign(state, style), up, foreign(image))
    out.print(services)
    kept = _table("kept release", "made (UTC)", "by", "")
    for each in found["kept"]:
        mark = "serves" if each["id"] == found["release"] else ""
        words = f"bad: {each['bad']}" if each["bad"] else mark
        kept.add_row(*map(foreign, (each["id"], _minute(each["made"]), each["by"], words)))
    out.print(kept)


def _minute(text: str) -> str:
    return text[:16].replace("T", " ")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        narrow = column not in ("why and how", "image", "", "by")
        table.add_column(column, no_wrap=narrow, overflow="fold")
    return table
