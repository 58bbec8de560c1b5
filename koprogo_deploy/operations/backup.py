"""Backups: made on time by the host itself, and by command. The work is `koprogo-data`'s."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from typing import Any

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, StringCommand, deploy

from koprogo_deploy import backups
from koprogo_deploy.files import archive, differing, unpack_command
from koprogo_deploy.machine import TIMERS, backup_secret_paths, backup_units
from koprogo_deploy.operations import context
from koprogo_deploy.operations.lock import say_who_is_at_work
from koprogo_deploy.operations.looks import machine_now
from koprogo_deploy.operations.step import said, step
from koprogo_deploy.pyinfra_adapter import commands
from koprogo_deploy.units import megabytes


@step
def backups_scheduled(timers: bool = True) -> Iterator[StringCommand | str]:
    """The host has what opens the repository, and makes backups and drills on time.

    Args:
        timers: without them nothing is made: what would be backed up is not there yet.
    """
    environment = context.current()
    settings = environment.settings
    for warning in backups.warnings(settings):
        logger.warning("    %s", warning)
    units = backup_units(settings) if timers else []
    wanted = context.backup_files(environment)
    state = machine_now()
    changed = differing([*units, *wanted], state.files)
    needless = {*backup_secret_paths(settings)} - {file.path for file in wanted}
    gone = sorted(needless & set(state.files))
    if gone:
        yield f"rm -f {shlex.join(gone)}"
    if changed:
        directory = f"{settings.install_root}/data/backup"
        yield StringCommand(
            f"install -d -m 700 {directory} && {unpack_command('/')}", _stdin=archive(changed)
        )
    names = " ".join(TIMERS)
    if {file.path for file in changed} & {file.path for file in units}:
        yield (
            f"systemctl daemon-reload && systemctl enable -q {names} && systemctl restart {names}"
        )
    elif timers and any(state.units.get(timer) != "active enabled" for timer in TIMERS):
        yield f"systemctl enable -q --now {names}"
    elif not changed and not gone:
        host.noop("backups and drills are scheduled" if timers else "the repository can be opened")


def data_command(words: str, around: str = "{}", stdin: str = "") -> FunctionCommand:
    """Run `koprogo-data` on the host, say its reason if it fails, keep its result in `results`.

    Args:
        words: command and options, as the shell takes them.
        around: a script with `{}` where the command is to be.
        stdin: for the script.
    """
    program = f"{context.current().settings.install_root}/bin/koprogo-data"
    script = around.replace("{}", f"{program} {words}")
    return told_command(words.split()[0], script, stdin)


results: dict[str, Any] = {}  # of this run, by command


def told_command(what: str, script: str, stdin: str = "") -> FunctionCommand:
    """Run a script around `koprogo-data`; keep its result in `results`, and say what it says.

    Args:
        what: the command, such as `prepare`.
        script: shell; the last line of JSON that it prints is the result.
        stdin: for the script.
    """
    return commands.calling(_telling(what, script, stdin))


def _telling(what: str, script: str, stdin: str) -> Callable[[Any], bool]:
    def run(host: Any) -> bool:  # noqa: ANN401 - pyinfra's own type
        say_who_is_at_work(host)
        line = StringCommand(f"sudo -n sh -c {shlex.quote(script)}")
        done, output = host.run_shell_command(line, _stdin=stdin)
        for text in output.stdout_lines:
            if text.startswith("{"):
                results[what] = json.loads(text)
        reason = output.stderr.strip()
        if not done:
            reason = reason or f"no answer from {host.name}"
            said.append(reason)
        for text in reason.splitlines():
            (logger.warning if done else logger.error)("    %s", text)
        return bool(done)

    return run


@step
def backup_made() -> Iterator[FunctionCommand]:
    """Make a backup now, and read it back."""
    yield data_command(f"backup --locked --by {shlex.quote(context.who())}")
    made = results.get("backup")
    if made:
        logger.info(
            "    backup %s: database %s (%s rows), %s uploads (%s), read back whole",
            made["backup"],
            megabytes(made["dump"]),
            made["rows"],
            made["uploads"],
            megabytes(made["uploads_bytes"]),
        )
        for warning in made.get("warnings") or ():
            logger.warning("    %s", warning)


@deploy("Backups")
def schedule_stage() -> None:
    """Backups and drills are made by the host, on time."""
    backups_scheduled(name="Schedule backups and drills")


@deploy("Backups")
def repository_stage() -> None:
    """What opens the repository, and no timer yet."""
    backups_scheduled(name="Have what opens the repository", timers=False)


@deploy("Back up")
def backup_stage() -> None:
    """A backup now."""
    backup_made(name="Back up database and uploads, and read it back")
