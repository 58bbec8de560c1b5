"""Rehearse: pending migrations run on a copy of the data first; then the data is dumped."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pyinfra import host, logger, state
from pyinfra.api import StringCommand, deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import database, direct, on_host, rehearsal
from koprogo_deploy.facts.releases import Dumps
from koprogo_deploy.facts.stack import StackState
from koprogo_deploy.operations import context
from koprogo_deploy.operations import on_host as host_side
from koprogo_deploy.operations.lock import say_who_is_at_work
from koprogo_deploy.operations.looks import look, machine_now
from koprogo_deploy.operations.migrate import answered, stack, target
from koprogo_deploy.operations.record import note
from koprogo_deploy.operations.shell import ENGINE, stop
from koprogo_deploy.operations.step import step
from koprogo_deploy.operations.trial import login, put_away, remember_ill
from koprogo_deploy.plan.host import STAYS_FREE, no_room
from koprogo_deploy.render import container_names
from koprogo_deploy.settings import Settings
from koprogo_deploy.units import MB, megabytes

_WAL = 256 * MB  # of the scratch server, at most
_LEAST = STAYS_FREE // 2  # on the disk while the copy is migrated: what serves goes on writing
_SPARE = 64 * MB  # four segments of WAL: what serves goes on writing meanwhile


@dataclass(frozen=True)
class Waiting:
    """Pending migrations, with all of the image's and of the database's."""

    versions: list[str]
    image: set[str]
    applied: Mapping[str, bool]


def waiting(found: StackState) -> Waiting:
    """What the release that is being worked on would apply; nothing where it cannot start."""
    image = database.versions(found.migrations.get(target(found)["id"], []))
    answer = answered(database.migrations_query())
    applied = database.parse_migrations(answer.get("migrations"))
    if database.cannot_start(applied, image):
        return Waiting([], image, applied)  # the next stage says so
    return Waiting(rehearsal.pending(applied, image), image, applied)


def unrouted_running(found: StackState) -> list[str]:
    """Colours that a run which was cut left running: the rehearsal takes their line of memory."""
    live = set(container_names(found.live["colours"]).values()) if found.live else set()
    return sorted(
        name
        for name, each in found.containers.items()
        if found.live and name not in live and each.status == "running"
    )


def room() -> None:
    """Refuse, with the numbers, where copy and dump do not fit on the disk.

    Raises:
        OperationError: they do not; nothing was touched.
    """
    machine = machine_now()
    needs = {
        "to stay free": STAYS_FREE,
        "a copy of the database": machine.database + _WAL,
        "a dump of it, at most": machine.database,
    }
    if reason := no_room(machine.disk_free, needs):
        raise OperationError(
            f"migrations are pending, and the disk has no room to rehearse them: {reason}. "
            "Nothing was touched. Make room: journalctl --vacuum-size=100M, docker image ls, a "
            "lower releases_kept"
        )


def migration_needs(grown: int) -> dict[str, int]:
    """What the real migration needs on Postgres' disk, in bytes, by what for. Pure.

    Args:
        grown: bytes that the copy has more, migrated.
    """
    return {
        "to stay free": _SPARE,
        "what the migrations add": grown,
        "as much again in WAL": grown,
    }


def room_for_real(grown: int) -> None:
    """Refuse, with the numbers, where Postgres' own disk would be full in the midst of it.

    Raises:
        OperationError: it would; the real database was not touched.
    """
    if reason := no_room(machine_now().data_free, migration_needs(grown)):
        raise OperationError(
            f"the migrations pass on a copy, and the disk of Postgres' data has no room for the "
            f"real ones: {reason}. The database was not touched, and the release is not to blame: "
            "make room and run it again"
        )


def _without_password(known: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A login that is tried on the copy, where it gets a password of the copy's own."""
    return {name: known[name] for name in ("email", "lists")} if known else None


def paths(settings: Settings) -> dict[str, Any]:
    """What the host's program is told in any case."""
    root = settings.install_root
    return {"mark": f"{root}/rehearsal", "data": f"{root}/bin/koprogo-data"}


@step
def migrations_rehearsed() -> Iterator[str]:
    """Pending migrations run on a copy: there the new image has to come up and answer."""
    if not state.is_executing:
        return
    environment = context.current()
    settings = environment.settings
    found = stack(settings)
    todo = waiting(found)
    if found.rehearsal:
        logger.info("    an earlier run was cut while it rehearsed: what it left is removed")
        host_side.run("rehearse", {**paths(settings), "clean": True})
    if not todo.versions:
        host.noop("no migration is pending")
        return
    room()
    if strays := unrouted_running(found):
        yield f"set -e\n{stop(*strays)}"
    remember_ill(found)
    manifest = target(found)
    size = megabytes(machine_now().database)
    logger.info("    %d pending, rehearsed on a copy of %s …", len(todo.versions), size)
    asked = {
        **paths(settings),
        "let_in": rehearsal.let_in(manifest["definitions"]["backend"]),
        "run": rehearsal.run_command(manifest["definitions"]["backend"], settings.install_root),
        "timeout": settings.backend_start_timeout,
        "query": database.migrations_query(),
        "ask": on_host.source("ask"),
        "login": _without_password(login()),
        "disk": ENGINE,
        "least": _LEAST,
    }
    say_who_is_at_work(host)
    answer = host_side.run("rehearse", asked)
    limit = settings.migration_lock_limit
    seen = rehearsal.judge(answer, todo.versions, todo.image, limit / 1000 if limit else None)
    note(rehearsal=rehearsal.noted(seen))
    lines, warnings = rehearsal.told(seen, settings.migration_lock_warning / 1000)
    for line in lines if seen.migrations else ():
        logger.info("    %s", line)
    for line in warnings:
        logger.warning("    %s", line)
    if seen.fault == "host":
        raise OperationError(
            f"the migrations cannot be rehearsed: {seen.reason}. The database was not touched, "
            "and the release is not to blame: run it again once this is mended"
        )
    if not seen.fault:
        room_for_real(seen.grown)
        host.noop("the migrations were rehearsed")
        return
    for line in seen.log:
        logger.error("    | %s", line)
    reason = direct.on_one_line([seen.reason])
    if found.live:
        yield from put_away(settings, found, manifest, f"its migrations fail on a copy: {reason}")
    raise OperationError(
        f"the migrations of release {manifest['id']} do not pass on a copy of the database: "
        f"{seen.reason}. The real database was not touched, and what serves goes on. What the new "
        "backend logged there is above. It is not deployed again as it is: change something, or "
        "give --data retry_bad_release=true"
    )


@step
def database_dumped() -> Iterator[StringCommand]:
    """The real database is dumped before its schema changes: the way back."""
    if not state.is_executing:
        return
    settings = context.current().settings
    found = stack(settings)
    todo = waiting(found)
    if not todo.versions:
        host.noop("no migration is pending")
        return
    manifest, root = target(found), settings.install_root
    file = f"{root}/dumps/{manifest['id']}.dump"
    kept: dict[str, dict[str, Any]] = look(Dumps, root=root) if found.dumps else {}
    earlier = kept.get(manifest["id"])
    if earlier and set(earlier["applied"]) != set(todo.applied):
        # A run that was cut between two migrations made it: that one is the way back.
        logger.info("    %s of before the first migration is kept", file)
        host.noop("the database was dumped before its migrations")
        return
    answer = dump(root, file)
    told = {
        "release": manifest["id"],
        "before": found.live["id"] if found.live else None,
        "at": answer["at"],
        "applied": sorted(todo.applied),
        **{name: answer[name] for name in ("bytes", "seconds", "sha256")},
    }
    note(dump={**told, "applied": len(todo.applied)})
    yield StringCommand(
        f"set -e; umask 077; cd {root}/dumps; cat > .new; sync .new; mv -T .new "
        f"{manifest['id']}.json; sync .",
        _stdin=json.dumps(told),
    )
    logger.info("    %s: %s in %.1f s", file, megabytes(told["bytes"]), told["seconds"])


def dump(root: str, file: str) -> dict[str, Any]:
    """Have the host dump its database, and read the dump back.

    Raises:
        OperationError: there is no whole dump, so the migration must not begin.
    """
    directory = shlex.quote(file.rpartition("/")[0])
    script = (
        f"umask 077; mkdir -p {directory}; chmod 700 {directory}; rm -f {directory}/*.part; "
        f"{root}/bin/koprogo-data dump {shlex.quote(file)}"
    )
    began = f"date -u +%s.%N; {script}"
    ok, output = host.run_shell_command(StringCommand(f"sudo -n sh -c {shlex.quote(began)}"))
    if not ok:
        words = [line for line in output.stderr_lines if line.strip()]
        raise OperationError(
            f"no dump, so no migration: {(words or ['no answer'])[-1]}. The database was not "
            "touched; run it again once this is mended"
        )
    moment, *rest = output.stdout_lines
    at = datetime.fromtimestamp(float(moment), UTC).isoformat(timespec="milliseconds")
    return {**json.loads(rest[-1]), "at": at}


@deploy("Rehearse")
def rehearse_stage() -> None:
    """Pending migrations on a copy of the data; a dump of it before they are real."""
    migrations_rehearsed(name="Rehearse the pending migrations on a copy")
    database_dumped(name="Dump the database before its migration")
