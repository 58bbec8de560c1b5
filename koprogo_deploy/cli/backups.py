"""`koprogo backups`: what is in the repository, and what of it is proven."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from koprogo_deploy import backups, door
from koprogo_deploy.cli.common import Environment, Json, out
from koprogo_deploy.data.host import LIST_WAIT
from koprogo_deploy.journal import Journal
from koprogo_deploy.screen import foreign, machine_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="backups")(list_backups)


def list_backups(environment: Environment, as_json: Json = False) -> None:
    """List the backups in the repository, and which of them a drill restored and compared.

    Make one: `pyinfra inventories/production.py deploys/backup.py`. Restore one:
    `deploys/restore.py --data backup=ID`.
    """
    from koprogo_deploy import remote

    opened = door.open_environment(environment)
    found = rows(backups_of(opened), remote.journal_of(opened))
    if as_json:
        machine_json(found)
        return
    show(out, found, backups.place(opened.settings))
    for warning in backups.warnings(opened.settings):
        out.print(Text(warning, style="yellow"))


def backups_of(opened: door.Environment) -> list[dict[str, Any]]:
    """The backups in the repository, as restic lists them, oldest first."""
    from koprogo_deploy import remote

    program = f"{opened.settings.install_root}/bin/koprogo-data list"
    # Whatever holds it up on the host ends before this does, and says why.
    within = LIST_WAIT + opened.settings.backup_list_timeout + remote.TIMEOUT
    found: list[dict[str, Any]] = json.loads(remote.as_root(opened, program, within=within))
    return found


def rows(snapshots: list[dict[str, Any]], journal: Journal) -> list[dict[str, Any]]:
    """What is known of each backup, oldest first. Pure.

    Args:
        snapshots: as restic lists them.
        journal: says which were read back, and which a drill proved.
    """
    made = {e["backup"]: e for e in journal.entries if e["kind"] == "backup" and "backup" in e}
    drills = {
        e["backup"]: e["at"]
        for e in journal.entries
        if e["kind"] == "drill" and e["outcome"] == "done"
    }
    first = datetime.fromisoformat(journal.entries[0]["at"]) if journal.entries else None
    found = []
    for each in snapshots:
        at = datetime.fromisoformat(each["time"]).astimezone(UTC)
        line = made.get(each["short_id"], {})
        releases = [t.removeprefix("release:") for t in each["tags"] if t.startswith("release:")]
        found.append(
            {
                "id": each["short_id"],
                "at": at.isoformat(),
                "release": releases[0] if releases else None,
                "rows": line.get("rows"),
                "uploads": line.get("uploads"),
                "warnings": line.get("warnings") or [],
                "bytes": each.get("summary", {}).get("total_bytes_processed"),
                # A new host's journal does not know of what another one made. What is not in there
                # though it was written then was cut, before it was read back or written down.
                "read_back": bool(line) if line or (first and first <= at) else None,
                "drilled": drills.get(each["short_id"]),
            }
        )
    return found


def show(out: Console, found: list[dict[str, Any]], place: str) -> None:
    """The backups, for a person."""
    from koprogo_deploy.units import megabytes

    if not found:
        out.print(f"no backup in {place} yet", markup=False)
        return
    table = Table(box=None, pad_edge=False)
    for column in (
        "backup",
        "made (UTC)",
        "release",
        "size",
        "rows",
        "uploads",
        "read back",
        "drill",
    ):
        right = column in ("size", "rows", "uploads")
        table.add_column(column, no_wrap=True, justify="right" if right else "left")
    words = {
        True: Text("yes", style="green"),
        False: Text("not known here: not read back", style="red"),
        None: Text("by another host"),
    }
    for each in found:
        size = each["bytes"]
        counts = [str(each[name]) if each[name] is not None else "" for name in ("rows", "uploads")]
        table.add_row(
            foreign(each["id"]),
            _minute(each["at"]),
            foreign(each["release"] or ""),
            megabytes(size) if size is not None else "",
            *counts,
            words[each["read_back"]],
            foreign(_minute(each["drilled"]) if each["drilled"] else ""),
        )
    out.print(table)
    out.print(f"in {place}", markup=False)
    for each in found:
        for warning in each["warnings"]:
            out.print(Text(f"{each['id']}: {warning}", style="yellow"))


def _minute(text: str) -> str:
    return text[:16].replace("T", " ")
