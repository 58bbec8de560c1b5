"""The command line of `koprogo-data`. Results are JSON on stdout, reasons are on stderr."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from koprogo_deploy import journal
from koprogo_deploy.data import backup, dump, hashes, live, repository, scratch, upgrade
from koprogo_deploy.data.host import (
    CLIENTS,
    DATA_LOCK,
    DEPLOY_LOCK,
    DEPLOY_WAIT,
    LIST_WAIT,
    POSTGRES,
    Config,
    Failed,
    holder,
    limit,
    lock,
    read_config,
)

WAIT = 600  # seconds for another command of ours, where the settings say nothing
# Of `upgrade`: no scratch server runs meanwhile, and Compose needs more than the clients' share.
WHOLE_LINE = ("change", "resume", "undo", "done")
INVOCATION = "INVOCATION_ID"  # systemd's number of a unit's run, also for what it runs afterwards
_SCHEDULED = {"backup": backup.backup, "drill": backup.drill}


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    top = argparse.ArgumentParser("koprogo-data", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    server = commands.add_parser("scratch", help="a throw-away Postgres server")
    server.add_argument("what", choices=("up", "down", "let-in", "login"))
    server.add_argument("--image", default="", help="other than the running server's")
    server.add_argument("--role", default="", help="let-in: that a backend logs in as")
    server.add_argument("--owner", type=int, default=0, help="let-in: uid that it runs as")
    server.add_argument("--secrets", nargs="*", default=[], help="let-in: files that it reads")
    server.add_argument("--email", default="", help="login: that gets a password of its own")
    commands.add_parser("copy", help="the real database into the scratch server")
    out = commands.add_parser("dump", help="the real database to a file")
    out.add_argument("file", type=Path)
    out.add_argument("--hash", action="store_true", help="hash its tables as well")
    back = commands.add_parser("restore", help="a dump into the scratch server")
    back.add_argument("file", type=Path)
    content = commands.add_parser("hash", help="content hash of every table")
    content.add_argument("--scratch", action="store_true", help="of the scratch server")
    for name, what in (("backup", "make a backup"), ("drill", "prove the newest backup")):
        run = commands.add_parser(name, help=f"{what}, and write it down")
        run.add_argument("--by", default="the timer", help="who asks, for the journal")
        run.add_argument("--locked", action="store_true", help="the caller is a deploy")
    clean = commands.add_parser("clean", help="after a run that a timer's unit ended")
    clean.add_argument("kind", choices=tuple(_SCHEDULED))
    commands.add_parser("list", help="backups in the repository")
    beside = commands.add_parser("prepare", help="a backup beside what is live, compared")
    beside.add_argument("backup", help="latest, or the beginning of an id, or a dump's path")
    swap = commands.add_parser("swap", help="have what was restored serve; the old one stays")
    swap.add_argument(
        "--before",
        nargs="?",
        default="",
        const=live.NEWEST,
        metavar="NAME",
        help="what served before a restore; the newest of those unless named",
    )
    rename = commands.add_parser("exchange", help="rename databases; what is renamed is left")
    rename.add_argument("old", help="what the live one is called from now on")
    rename.add_argument("coming", help="the one that becomes the live one")
    commands.add_parser("discard", help="remove what was restored and not swapped")
    commands.add_parser("drop-old", help="remove what served before restores")
    major = commands.add_parser("upgrade", help="a major version of Postgres: see its deploy")
    major.add_argument("what", choices=(*WHOLE_LINE, "prepare", "counted", "drop"))
    major.add_argument("--release", default="", help="whose Postgres is to serve")
    major.add_argument("--back", action="store_true", help="the cluster that served before")
    major.add_argument("--anyway", action="store_true", help="also if something was written since")
    return top


def work(config: Config, given: argparse.Namespace, staged: Callable[[], None]) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Do what was asked for, and return the result.

    Args:
        config: of this host.
        given: the command line.
        staged: called once a backup needs neither database nor uploads any more.
    """
    match given.command:
        case "scratch" if given.what == "up":
            return scratch.up(config, given.image)
        case "scratch" if given.what == "let-in":
            made = scratch.let_in(config, given.role, given.secrets, given.owner)
            return {"directory": str(made)}
        case "scratch" if given.what == "login":
            return scratch.known_login(given.email)
        case "scratch":
            return {"removed": scratch.down(config)}
        case "copy":
            return dump.copy()
        case "dump":
            return dump.dump(given.file.absolute(), hashed=given.hash)
        case "restore":
            return dump.restore(given.file)
        case "hash":
            return hashes.tables(scratch.NAME if given.scratch else POSTGRES)
        case "backup" | "drill":
            return scheduled(config, given.command, given.by, staged)
        case "clean":
            backup.clean(config, given.kind)
            return {}
        case "list":
            return repository.snapshots(config)
        case "prepare" if given.backup.startswith("/"):
            return live.prepare_dump(config, Path(given.backup))
        case "prepare":
            return live.prepare(config, given.backup)
        case "swap":
            return live.swap(config, given.before)
        case "exchange":
            live.exchange(given.old, given.coming)
            return {"live": given.coming, "kept": given.old}
        case "discard":
            live.discard()
            return {}
        case "drop-old":
            return live.drop_old(config)
        case "upgrade":
            flags = [name for name in ("back", "anyway") if getattr(given, name)]
            return upgrade.work(config, given.what, given.release, flags)
    raise AssertionError(given.command)


def scheduled(
    config: Config, kind: str, by: str, staged: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """A backup or a drill; either way the journal gets its line."""
    began = time.monotonic()
    try:
        result = _SCHEDULED[kind](config, staged)
    except Exception as error:  # also what nobody thought of: else it failed without a word
        seconds = round(time.monotonic() - began, 1)
        _failed(config, kind, by, why(error), seconds=seconds)
        raise
    backup.write_down(config, kind, by, outcome="done", **result)
    return result


def _failed(config: Config, kind: str, by: str, reason: str, **values: object) -> None:
    unit = os.environ.get(INVOCATION)
    try:
        backup.write_down(config, kind, by, outcome="failed", reason=reason, unit=unit, **values)
    except (Failed, OSError) as error:  # why it failed is what has to be heard
        print(f"the journal has no line of it: {error}", file=sys.stderr)


@contextlib.contextmanager
def written_down(root: Path, given: argparse.Namespace) -> Iterator[None]:
    """What keeps a backup or a drill from beginning is in the journal as well.

    Args:
        root: the install root; its settings may be what cannot be read.
        given: the command line.
    """
    try:
        yield
    except Exception as error:
        if given.command in _SCHEDULED:
            _failed(Config(root, "", 0), given.command, given.by, why(error))
        raise


def why(error: Exception) -> str:
    """Why it failed, on a line; of what nobody thought of, where in the program it was. Pure."""
    if isinstance(error, (Failed, OSError)):
        return str(error)
    at = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" ({Path(each.filename).name}, line {each.lineno})" for each in at)
    return f"{type(error).__name__}: {error}{where}"


def ended(root: Path, kind: str) -> None:
    """Have the journal tell of a timer's run that could write nothing itself.

    One that was killed could not, nor one that never began. Asked by systemd after the run.
    """
    result = os.environ.get("SERVICE_RESULT", "success")
    if result == "success" or (result == "exit-code" and _told(root, kind)):
        return
    reason = {
        "oom-kill": "it was out of memory",
        "timeout": "it took too long",
        "exit-code": f"its unit failed before it began: journalctl -u koprogo-{kind} says why",
    }
    _failed(Config(root, "", 0), kind, "the timer", reason.get(result, f"it was ended: {result}"))


def _told(root: Path, kind: str) -> bool:
    """Whether this very run of the unit has its line; of none that has a number, it is believed."""
    unit = os.environ.get(INVOCATION)
    if not unit:
        return True
    try:
        entries = journal.read((root / journal.FILE).read_bytes()).entries
    except FileNotFoundError:
        return False
    return any((each.get("kind"), each.get("unit")) == (kind, unit) for each in entries)


def main(root: Path, arguments: list[str]) -> int:
    """Run a command within its memory limit, alone.

    Args:
        root: the install root.
        arguments: without the program's name.

    Returns:
        The exit code: 0, or 1 when it failed.
    """
    given = parser().parse_args(arguments)
    os.umask(0o077)
    try:
        if given.command == "clean":
            ended(root, given.kind)  # before the locks, one of which may be why
        with contextlib.ExitStack() as held:
            deploys = held.enter_context(contextlib.ExitStack())
            with written_down(root, given):
                config = prepared(root, given, arguments, held, deploys)
            # What is left of a backup is restic's: a deploy need not wait for the storage.
            print(json.dumps(work(config, given, staged=deploys.close)))
    except Exception as error:
        print(f"koprogo-data {given.command}: {why(error)}", file=sys.stderr)
        return 1
    return 0


def prepared(
    root: Path,
    given: argparse.Namespace,
    arguments: list[str],
    held: contextlib.ExitStack,
    deploys: contextlib.ExitStack,
) -> Config:
    """The settings, once this runs within its memory limit and has its locks.

    Args:
        root: the install root.
        given: the command line, read.
        arguments: the same as it came.
        held: keeps the lock on the data.
        deploys: keeps the one of deploys, of a backup or a drill that no deploy asks for.
    """
    config = read_config(root)
    whole = given.command == "upgrade" and given.what in WHOLE_LINE
    limit(config.memory if whole else CLIENTS, [sys.executable, "-I", sys.argv[0], *arguments])
    who = f"koprogo-data {given.command}"
    if given.command in _SCHEDULED:
        who = holder(given.command, given.by)
        if not given.locked:
            deploys.enter_context(lock(DEPLOY_LOCK, DEPLOY_WAIT, who))
    wait = config.backup.get("wait", WAIT)
    if given.command == "list":  # somebody looks on, and is told who holds it
        wait = min(wait, LIST_WAIT)
    held.enter_context(lock(DATA_LOCK, wait, who))
    return config
