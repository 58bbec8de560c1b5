"""Restore: a backup comes beside what is live, is compared, and then serves in its place."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, StringCommand, deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import database, maintenance
from koprogo_deploy.command_line import as_written
from koprogo_deploy.data import live
from koprogo_deploy.data.host import DATABASE
from koprogo_deploy.facts.stack import Database, StackState, Uploads
from koprogo_deploy.maintenance import Maintenance
from koprogo_deploy.operations import context, planning
from koprogo_deploy.operations.backup import data_command, results
from koprogo_deploy.operations.looks import look, machine_now
from koprogo_deploy.operations.migrate import backend_migrated, stack
from koprogo_deploy.operations.record import note
from koprogo_deploy.operations.release import promote_command
from koprogo_deploy.operations.shell import stop
from koprogo_deploy.operations.step import step
from koprogo_deploy.plan.services import old_containers
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.settings import Settings
from koprogo_deploy.units import megabytes

OLD = live.OLD  # --data backup=koprogo_before_…: what served before another one
BEFORE = "before"  # --data backup=before: what served before the last restore
DROP_OLD = "drop_old"  # --data backup=drop_old: let it go
EXPECTED = "the API is away for some 10 s; visitors get the maintenance page"


INSTEAD = (
    "deploys/restore.py brings a backup in place of what is there. A recovery that was cut when "
    "its data was there already is ended by deploys/full.py. If this host is meant nevertheless: "
    "--data over_data=true"
)
# As the volumes' directories are there, Docker would not make them again.
SET_ASIDE = (
    "docker rm -f koprogo-postgres-1 koprogo-backend-blue-1 koprogo-backend-green-1; "
    "cd /var/lib/docker/volumes && for v in koprogo_postgres_data koprogo_uploads; do "
    "[ ! -d $v/_data ] || { mv -T $v/_data $v/set_aside && mkdir -m 700 $v/_data && "
    "chown --reference=$v/set_aside $v/_data; }; done"
)
ASIDE = (
    "if that data is to serve: deploys/full.py starts Postgres on it. If a backup is to serve in "
    f"its place, set it aside by hand, on the host as root: {SET_ASIDE}; then recover.py again"
)


def other_release(serving: str) -> tuple[str, str]:
    """Why a release is not recovered over the data of another one, and what to do. Pure."""
    what = (
        f"release {serving} serves here, and group data asks for another one: it would migrate "
        "the data that is there without a rehearsal, and let go what serves before it is verified"
    )
    return what, (
        "deploys/full.py first, or deploys/restore.py, which brings a backup to the release that "
        "serves"
    )


def asked(settings: Settings) -> str:
    """Which backup to restore.

    Raises:
        OperationError: none was named; restoring is never the default.
    """
    if not settings.backup:
        name = settings.environment
        raise OperationError(
            f"which backup? koprogo backups {name} lists them; then --data backup=ID, or "
            f"--data backup=latest. After a restore: --data backup={BEFORE} takes it back, "
            f"--data backup={OLD}… has an earlier one serve that koprogo status {name} lists, "
            f"--data backup={DROP_OLD} lets go what served before"
        )
    return as_written("backup", sys.argv) or settings.backup


def is_here(which: str) -> bool:
    """Whether what is to serve is on the host already: it served before a restore. Pure."""
    return which == BEFORE or which.startswith(OLD)


def swap_words(which: str) -> str:
    """`koprogo-data`'s, which have a backup, or what served before, change places. Pure."""
    if which == BEFORE:
        return "swap --before"
    return f"swap --before {shlex.quote(which)}" if is_here(which) else "swap"


def told_since(since: Mapping[str, int] | None, uncounted: str = "") -> str:
    """What a restore loses, counted: how far the live tables are ahead of the backup. Pure.

    Args:
        since: rows by table; None: the live database cannot be read.
        uncounted: why not.
    """
    if since is None:
        return f"what was written since cannot be counted: {uncounted}"
    if not since:
        return "nothing was written since"
    parts = [f"{name.removeprefix('public.')} {rows:+d}" for name, rows in since.items() if rows]
    same = len(since) - len(parts)
    if same:
        parts.append(f"{same} more changed without a row more or less")
    return f"written since, and not in it: {', '.join(parts)} (rows)"


def in_the_way(rows: Mapping[str, int] | None, version: str, uploads: tuple[int, int]) -> list[str]:
    """What a host that is to be empty holds, in words; nothing if it is. Pure.

    Args:
        rows: of the application's tables; None: nobody could count them.
        version: Postgres' major version of the data directory; empty without one.
        uploads: their number and bytes.
    """
    found = []
    if rows is None and version:
        found.append(f"a data directory of Postgres {version}, of which no server answers")
    counted = [f"{number} {name}" for name, number in sorted((rows or {}).items()) if number]
    if counted:
        found.append(f"a database with rows of the application ({', '.join(counted)})")
    if uploads[0]:
        found.append(f"{uploads[0]} uploads ({megabytes(uploads[1])})")
    return found


def holds_nothing(rows: Mapping[str, int] | None, uploads: int) -> bool:
    """Whether what was restored has no row of the application and no upload. Pure."""
    return rows is not None and not any(rows.values()) and not uploads


def older_told(others: list[str], chosen: str) -> str:
    """Why `latest` is not taken: it holds nothing, and there are others. Pure.

    Args:
        others: ids and times of the other backups, oldest first.
        chosen: id of the newest one.
    """
    return (
        f"the newest backup, {chosen}, holds no row of the application and no upload: it is of an "
        f"empty stack. There are others: {', '.join(others[-5:])} (koprogo backups). Nothing was "
        f"restored. Name the one that is meant: --data backup=ID; this one: --data backup={chosen}"
    )


def rows_held(name: str = DATABASE) -> dict[str, int] | None:
    """Rows of the application in a database of the current host; None where no server answers."""
    roles = look(Database, query=database.ROLE_QUERY, database="postgres")
    if roles and not roles["database"]:
        return {}  # a run was cut before it made one
    found = look(Database, query=database.held_query(), database=name)
    return dict(found["rows"]) if found else None


@step
def host_is_empty() -> Iterator[str]:
    """Refuse to recover over somebody's data. Changes nothing."""
    settings = context.current().settings
    rows, version = rows_held(), machine_now().postgres_version
    found = in_the_way(rows, version, look(Uploads))
    if not found:
        host.noop("the host holds no data")
        return
    what = f"this host holds {' and '.join(found)}, and recover.py is for an empty one"
    unknown = rows is None and bool(version)
    if settings.over_data and not unknown:
        serving, wanted = stack(settings).live, planning.decide(seeds=False).seen.wanted.release
        if serving is None or serving["hash"] == wanted.hash:
            logger.warning("    %s; over_data: what it holds stays beside what is restored", what)
            host.noop("it is to be recovered over its data")
            return
        what, fix = other_release(serving["id"])
    else:
        fix = ASIDE if unknown else INSTEAD
    raise OperationError(f"\n{Refusal(f'Host {host.name}', [Problem('data', what, fix)])}")
    yield


def alone(state: StackState, root: str) -> list[str]:
    """Commands after which what serves is alone at the data. Pure.

    What a run left which was cut may be of another schema: it would come up on what is restored,
    and migrate it.
    """
    if state.live is None:
        return []
    steps = []
    if state.live is state.candidate:
        steps.append(promote_command(root, state.live["id"]))
    elif state.candidate:
        steps.append(f"rm -f {root}/candidate")
    others = old_containers(state.containers, state.live["colours"])
    if at_work := [name for name in others if state.containers[name].status != "exited"]:
        steps.append(f"set -e\n{stop(*at_work)}")
    return steps


@step
def serving_is_alone() -> Iterator[str]:
    """Nothing but what serves works on the data: what a run left which was cut is let go."""
    settings = context.current().settings
    asked(settings)  # nothing is let go for a restore that is refused
    state = stack(settings)
    steps = alone(state, settings.install_root)
    if state.live and steps:
        context.plan(state.live)
    else:
        host.noop("nothing but what serves works on the data")
    yield from steps


@step
def restored_beside() -> Iterator[FunctionCommand]:
    """The backup is restored beside what is live, and each table and upload compared."""
    settings = context.current().settings
    which = asked(settings)
    if which == DROP_OLD or is_here(which):
        host.noop("nothing to bring from the repository")
        return
    yield data_command(f"prepare {shlex.quote(which)}")
    found: dict[str, Any] | None = results.get("prepare")
    if found:
        logger.info(
            "    backup %s of %s: %s tables (%s rows) and %s uploads are as its manifest says; "
            "%.0f s",
            found["backup"],
            found["made"],
            found["tables"],
            found["rows"],
            found["uploads"],
            found["seconds"],
        )
        for warning in found["warnings"]:
            logger.warning("    of this backup: %s", warning)
        logger.warning("    %s", told_since(found["since"], found.get("uncounted", "")))
        note(restore={k: found[k] for k in ("backup", "made", "tables", "rows", "uploads")})
        if holds_nothing(rows_held(live.NEW), found["uploads"]):
            logger.warning("    it holds no row of the application and no upload")
            if which == "latest" and (others := _others(settings, found["backup"])):
                yield data_command("discard")
                raise OperationError(older_told(others, found["backup"]))


def _others(settings: Settings, chosen: str) -> list[str]:
    """Id and time of every other backup in the repository, oldest first."""
    script = f"sudo -n sh -c {shlex.quote(f'{settings.install_root}/bin/koprogo-data list')}"
    ok, output = host.run_shell_command(StringCommand(script))
    if not ok:
        raise OperationError(output.stderr.strip() or f"no answer from {host.name}")
    return [
        f"{each['short_id']} of {each['time'][:16].replace('T', ' ')}"
        for each in json.loads(output.stdout)
        if each["short_id"] != chosen
    ]


@step
def swapped() -> Iterator[FunctionCommand]:
    """What was restored serves; what served before stays beside it until it is told to go."""
    settings = context.current().settings
    which = asked(settings)
    page = stack(settings).maintenance
    ours = (
        bool(page) and maintenance.parse(page).message == maintenance.RESTORING
    )  # of a run that was cut
    if which == DROP_OLD:
        yield data_command("drop-old", page_off(settings) if ours else "{}")
        if gone := results.get("drop-old"):
            logger.info(
                "    dropped: %s; %s freed",
                ", ".join(gone["dropped"]) or "nothing",
                megabytes(gone["bytes"]),
            )
        return
    logger.warning("    %s", EXPECTED)
    words = swap_words(which)
    if page and not ours:
        yield data_command(words)  # somebody's own page stays as it is
    else:
        yield data_command(words, *under_page(settings, context.own_addresses()))
    if done := results.get("swap"):
        logger.info(
            "    the API was away for %.1f s; what served before stays as %s",
            done["stopped"],
            done["old"],
        )
        note(swap=done)


def under_page(settings: Settings, passing: tuple[str, ...]) -> tuple[str, str]:
    """Script around the swap that has the maintenance page up meanwhile, and its input.

    The page goes again also when the swap fails: then what served before serves again. It stays
    where the run was cut; the next one, which may pass, takes it away.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    wanted = Maintenance(now, context.who(), maintenance.RESTORING, 30, passing)
    on = f"({maintenance.on_command(settings, wanted)}\n) || exit 1\n"
    return on + page_off(settings), maintenance.render(wanted)


def page_off(settings: Settings) -> str:
    """Script around a command that takes the page away after it, whatever became of it."""
    off = maintenance.off_command(settings)
    return f"{{}}\nfailed=$?\n({off}\n) || failed=1\nexit $failed"


@deploy("Preflight")
def empty_stage() -> None:
    """The host that is to be recovered holds no data; nothing is touched."""
    host_is_empty(name="Check that the host is empty")


@deploy("Restore")
def restore_stage() -> None:
    """A backup in place of what is live."""
    serving_is_alone(name="Let go what a cut run left")
    restored_beside(name="Bring the backup beside what is live, and compare it")
    swapped(name="Swap")
    backend_migrated(name="Bring back the guard and the observer, which no backup holds")
