"""Restore: a backup into a database and a directory beside the real ones, checked, then swapped.

The swap is a rename, of both; what served before stays under another name until it is dropped.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from koprogo_deploy import database
from koprogo_deploy.data import backup, dump, hashes, scratch, tree
from koprogo_deploy.data.host import (
    DATABASE,
    POSTGRES,
    SWAP,
    Config,
    Failed,
    keep,
    owner_sql,
    run,
    sql,
    sync,
)

NEW = "koprogo_restored"  # the database that is being restored, and the uploads' directory
OLD = "koprogo_before_"  # and what served before, with the time of the swap
NEWEST = "newest"  # of these
START_TIMEOUT = 120  # seconds for the backend
# Below the install root; there once what was restored was found to be as its manifest says.
COMPARED = "data/compared"

_LIST = f"""
SELECT coalesce(json_agg(json_build_array(datname, pg_database_size(oid)) ORDER BY datname), '[]')
FROM pg_database WHERE datname = '{NEW}' OR starts_with(datname, '{OLD}')"""  # noqa: S608


def prepare(config: Config, asked: str) -> dict[str, Any]:
    """Bring a backup beside what is live, and compare every table and upload with its manifest.

    The site serves meanwhile, and is not touched.

    Args:
        config: where the repository is.
        asked: `latest`, or the beginning of an id.

    Returns:
        What was restored, and by how many rows each live table differs, if that can be counted.

    Raises:
        Failed: it cannot be restored, is not what it should be, or does not fit the live release;
            nothing of it is left.
    """
    began = time.monotonic()
    finish(config)
    discard()
    compared = config.root / COMPARED
    compared.unlink(missing_ok=True)
    volume = backup.volume()
    uploads = volume.parent / NEW
    with backup.staged() as stage:
        try:
            uploads.mkdir(mode=0o700)
            snapshot, manifest = backup.fetch(config, asked, stage / backup.DUMP, uploads)
            backup.fits(config, manifest)
            tree.own(uploads, volume)
            bring(config, stage / backup.DUMP)
            found = hashes.tables(POSTGRES, database=NEW)
            problems = hashes.differences(manifest["tables"], found, "table")
            wanted = backup.only_files(manifest["uploads"])
            problems += hashes.differences(wanted, hashes.files(uploads), "upload")
            if problems:
                raise Failed(
                    f"backup {snapshot['short_id']} does not restore: {backup.told(problems)}"
                )
        except BaseException:
            with contextlib.suppress(Failed):
                discard()
            raise
    compared.touch(mode=0o600)
    return {
        "backup": snapshot["short_id"],
        "made": manifest["made"],
        "release": manifest["release"]["id"],
        "tables": len(found),
        "rows": sum(table["rows"] for table in found.values()),
        "uploads": len(wanted),
        "warnings": [tree.shown(str(each)) for each in manifest.get("warnings") or ()],
        **counted_since(found),
        "seconds": round(time.monotonic() - began, 1),
    }


def prepare_dump(config: Config, file: Path) -> dict[str, Any]:
    """Bring a dump beside what is live, the uploads being left as they are.

    Args:
        config: for the install root.
        file: a dump in custom format, such as of before a migration.

    Raises:
        Failed: it cannot be restored; nothing of it is left.
    """
    began = time.monotonic()
    finish(config)
    discard()
    dump.room(backup.volume(), dump.size(), "the restored database")
    try:
        bring(config, file)
    except BaseException:
        with contextlib.suppress(Failed):
            discard()
        raise
    return {"dump": str(file), "seconds": round(time.monotonic() - began, 1)}


def bring(config: Config, file: Path) -> None:
    """A dump into a database beside the live one, with the live one's guard of the superadmin."""
    sql(POSTGRES, database.DATABASE_SQL.replace(DATABASE, NEW), "postgres")
    dump.restore(file, POSTGRES, NEW)
    guard(guarded(config), NEW)
    owner_sql(POSTGRES, "ANALYZE", NEW)


def guarded(config: Config) -> str:
    """The hash that the live database's guard keeps as the superadmin's; empty without one.

    Where it cannot be read, which may be why the database is replaced, it is one of a password that
    nobody knows: until a deploy says otherwise, the public one does not work either.
    """
    there = f"SELECT to_regclass('{database.SCHEMA}.superadmin') IS NOT NULL"
    try:
        if sql(POSTGRES, there) == "t":
            return sql(POSTGRES, f"SELECT password_hash FROM {database.SCHEMA}.superadmin")  # noqa: S608
    except Failed:
        if _guard_is_wanted(config):
            return scratch.bcrypt(scratch.password())
    return ""


def _guard_is_wanted(config: Config) -> bool:
    try:
        text = (config.root / "current/manifest.json").read_text(encoding="utf-8")
        return bool(json.loads(text)["values"]["superadmin_guard"])
    except (OSError, ValueError, KeyError):
        return True


def guard(password_hash: str, name: str = DATABASE) -> None:
    """Have a database keep the superadmin's password, whoever writes to it from now on.

    Args:
        password_hash: bcrypt; empty: there is no guard.
        name: of the database.
    """
    if password_hash:
        sql(POSTGRES, database.guard_sql(password_hash), name)
        owner_sql(POSTGRES, database.GUARDED_SQL, name)


def counted_since(restored: dict[str, Any]) -> dict[str, Any]:
    """`since`: by how many rows each live table is ahead; None, and `uncounted` says why, where the
    live database cannot be read. That may be why it is to be replaced.
    """
    try:
        return {"since": rows_since(restored, hashes.tables(POSTGRES))}
    except Failed as error:
        return {"since": None, "uncounted": str(error)}


def rows_since(restored: dict[str, Any], live: dict[str, Any]) -> dict[str, int]:
    """By how many rows each live table is ahead of the backup; equal ones are left out. Pure."""
    counts = {
        name: live.get(name, {"rows": 0})["rows"] - restored.get(name, {"rows": 0})["rows"]
        for name in sorted({*restored, *live})
    }
    changed = {n for n in counts if live.get(n) != restored.get(n)}
    return {name: counts[name] for name in counts if name in changed}


def discard() -> None:
    """Remove what an earlier run restored and did not swap."""
    sql(POSTGRES, f"DROP DATABASE IF EXISTS {database.quoted(NEW)} WITH (FORCE)", "postgres")
    tree.remove(backup.volume().parent / NEW)


def backends() -> list[str]:
    """Names of the backend's running containers: what holds connections and uploads."""
    names = run(
        "docker",
        "ps",
        "--filter",
        "label=com.docker.compose.project=koprogo",
        "--format",
        "{{.Names}}",
    )
    return [name for name in names.split() if name.startswith("koprogo-backend-")]


def old_name(moment: datetime) -> str:
    """What a database that served is called after a swap at this moment. Pure."""
    return f"{OLD}{moment:%Y%m%dt%H%M%S}"


def swap_sql(old: str, coming: str) -> str:
    """Rename the live database to `old` and `coming` to the live one: both, or an error. Pure."""
    live = database.quoted(DATABASE)
    return f"""ALTER DATABASE {live} ALLOW_CONNECTIONS false;
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname IN ({database.literal(DATABASE)}, {database.literal(coming)});
BEGIN;
ALTER DATABASE {live} RENAME TO {database.quoted(old)};
ALTER DATABASE {database.quoted(coming)} RENAME TO {live};
COMMIT;
"""  # noqa: S608 - quoted


def swap(config: Config, before: str = "") -> dict[str, Any]:
    """Have what was restored serve, or what served before it; the other one stays.

    The backend stops for it and starts again. If it does not come up, everything is as it was. A
    swap that was cut is ended by the next command; if it is this very one, it is not made twice.

    Args:
        config: for the install root.
        before: `NEWEST` of those that served before a restore, or the name of one; none: what was
            restored.

    Raises:
        Failed: there is nothing to swap with, or the backend does not start on it.
    """
    began = time.monotonic()
    ended = finish(config)
    if ended and ended["swapped"] and is_asked(ended["coming"], before):
        return {"old": ended["old"], "stopped": round(time.monotonic() - began, 1)}
    coming = kept(before, databases()) if before else NEW
    if not before and (coming not in databases() or not (config.root / COMPARED).exists()):
        raise Failed("nothing is restored beside what is live, and compared")
    (config.root / COMPARED).unlink(missing_ok=True)
    old = old_name(datetime.now(UTC))
    stopped = backends()
    _remember(config, old=old, coming=coming, stopped=stopped)
    began = time.monotonic()
    try:
        wrong = put(old, coming, stopped)
    except Failed as error:
        wrong = str(error)
    if wrong:
        raise Failed(f"{wrong}. {_back(config, old, coming, stopped)}")
    _remember(config)
    return {"old": old, "stopped": round(time.monotonic() - began, 1)}


def is_asked(coming: str, before: str) -> bool:
    """Whether a swap with `coming` is the one that `before` asks for. Pure."""
    if before == NEWEST:
        return coming.startswith(OLD)
    return coming == (before or NEW)


def kept(before: str, there: Iterable[str]) -> str:
    """Which of those that served before a restore is asked for. Pure.

    Args:
        before: `NEWEST`, or its name.
        there: databases, oldest first.

    Raises:
        Failed: it is not there; says which are.
    """
    names = [name for name in there if re.fullmatch(rf"{OLD}\d+t\d+", name)]
    if not names:
        raise Failed("nothing that served before a restore is kept here")
    if before == NEWEST:
        return names[-1]
    if before not in names:
        raise Failed(f"no {before} is kept here; what served before restores: {', '.join(names)}")
    return before


def put(old: str, coming: str, backends_then: list[str]) -> str:
    """Rename what is not renamed yet, and have the backends come up on it.

    Returns:
        Why they do not come up; nothing if they do.

    Raises:
        Failed: Postgres does not answer, or something cannot be renamed.
    """
    if coming in databases() or (backup.volume().parent / coming).exists():
        stop(backends(), 35)
    exchange(old, coming)
    try:
        start(backends_then)
    except Failed as error:
        return str(error)
    return ""


def _back(config: Config, old: str, coming: str, stopped: list[str]) -> str:
    """What served before a swap that failed serves again, as far as that can be; what became."""
    try:
        _until_answered()
        wrong = put(coming, old, stopped)
    except Failed as error:
        with contextlib.suppress(Failed):
            start(stopped)
        return f"It is not put back: {error}. The next deploys/restore.py ends it"
    _remember(config)
    return (
        f"What served before is back, and {wrong}" if wrong else "What served before serves again"
    )


def _until_answered() -> None:
    """Wait for Postgres: it may be what failed, and is starting again."""
    end = time.monotonic() + START_TIMEOUT
    while time.monotonic() < end:
        with contextlib.suppress(Failed):
            databases()
            return
        time.sleep(1)


def _remember(config: Config, **values: Any) -> None:  # noqa: ANN401 - whatever JSON holds
    file = config.root / SWAP
    if not values:
        file.unlink(missing_ok=True)
        return
    keep(file, json.dumps(values))


def finish(config: Config) -> dict[str, Any] | None:
    """End a swap that was cut, if there is one, and say so on stderr.

    Whichever database has the live one's name stays live, for people may work on it since; the
    uploads follow. If no backend runs and none comes up on what was swapped in, what served before
    serves again. Either way the swap is over then.

    Returns:
        What was cut: `old` and `coming`, and whether it is `swapped` now; None: nothing was.

    Raises:
        Failed: Postgres does not answer, or something cannot be renamed.
    """
    file = config.root / SWAP
    if not file.exists():
        return None
    cut = json.loads(file.read_text(encoding="utf-8"))
    old, coming, running = cut["old"], cut["coming"], backends()
    names = _whose_start_ends_it(config, cut["stopped"], running)
    swapped = coming not in databases()
    wrong = put(old, coming, names) if swapped else put(coming, old, names)
    told = (
        f"a swap that was cut before anything was renamed is forgotten: {DATABASE} serves as before"
    )
    if swapped:
        told = f"a swap that was cut is ended: what served before it is kept as {old}"
    if wrong and swapped and not running and old in databases():
        aside = old_name(datetime.now(UTC))
        _remember(config, old=aside, coming=old, stopped=names)
        told = (
            f"a swap that was cut is taken back, since {wrong}: what served before it is live, and "
            f"what was swapped in is kept as {aside}"
        )
        wrong, swapped = put(aside, old, names), False
    _remember(config)
    print(f"{told}; but {wrong}" if wrong else told, file=sys.stderr)
    return {"old": old, "coming": coming, "swapped": swapped, "told": told}


def _whose_start_ends_it(config: Config, stopped: list[str], running: list[str]) -> list[str]:
    """Backends that have to run after a swap: releases may have come and gone since it was cut."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        if backup.backend(config) in running:
            return running
    there = run("docker", "ps", "-a", "--format", "{{.Names}}").split()
    return sorted({*running, *(name for name in stopped if name in there)})


def exchange(old: str, coming: str) -> None:
    """Rename database and uploads; what is renamed already is left, so that it can be run again."""
    volume = backup.volume()
    try:
        if coming in databases():
            sql(POSTGRES, swap_sql(old, coming), "postgres")
        if (volume.parent / coming).exists():
            if volume.exists():
                volume.rename(volume.parent / old)
            (volume.parent / coming).rename(volume)
            sync(volume.parent)
    except OSError as error:
        raise Failed(f"the uploads cannot be renamed: {error}") from None
    finally:
        for name in (DATABASE, *databases()):
            again = f"ALTER DATABASE {database.quoted(name)} ALLOW_CONNECTIONS true"
            sql(POSTGRES, again, "postgres")


def stop(names: list[str], grace: int) -> None:
    """Stop containers, each within so many seconds."""
    if names:
        run("docker", "stop", "-t", str(grace), *names)


def start(names: list[str]) -> None:
    """Start containers that were stopped, and wait until each is healthy."""
    if names:
        run("docker", "start", *names)
        until_healthy(names)


def until_healthy(names: list[str]) -> None:
    """Wait for containers that were started.

    Raises:
        Failed: one does not come up; with its last words.
    """
    end = time.monotonic() + START_TIMEOUT
    look = "{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}} {{.RestartCount}}"
    for name in names:
        while True:
            state = run("docker", "inspect", "-f", look, name).split()
            if state[:2] == ["running", "healthy"]:
                break
            if state[0] != "running" or state[1] == "unhealthy" or time.monotonic() > end:
                said = run("sh", "-c", f"docker logs --tail 5 {name} 2>&1").strip().splitlines()
                raise Failed(f"{name} does not come up: {' | '.join(said)}")
            time.sleep(0.2)


def databases() -> dict[str, int]:
    """Databases that restores brought or left: bytes by name, oldest first."""
    return dict(json.loads(sql(POSTGRES, _LIST, "postgres")))


def drop_old(config: Config) -> dict[str, Any]:
    """Remove what served before restores, database and uploads; says what, and its bytes.

    Raises:
        Failed: a swap that was cut had to be ended first; then nothing is removed, for what served
            until then may be what is wanted.
    """
    if ended := finish(config):
        raise Failed(
            f"{ended['told']}. Nothing was dropped: look at the site first. Then the same command "
            "drops what is kept, and --data backup=before has it serve again"
        )
    (config.root / COMPARED).unlink(missing_ok=True)
    found = databases()
    for name in found:
        sql(POSTGRES, f"DROP DATABASE {database.quoted(name)} WITH (FORCE)", "postgres")
    dropped = sum(found.values())
    for path in sorted(backup.volume().parent.iterdir()):
        if path.name == NEW or re.fullmatch(rf"{OLD}\d+t\d+", path.name):
            dropped += tree.size(path)
            tree.remove(path)
    return {"dropped": sorted(found), "bytes": dropped}
