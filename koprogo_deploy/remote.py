"""Looking at a host from the command line, over OpenSSH: the same facts as the deploys use."""

from __future__ import annotations

import base64
import gzip
import shlex
import subprocess
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pyinfra.api import FactBase

from koprogo_deploy import connection, journal, seed, status
from koprogo_deploy.accounts import Arrival
from koprogo_deploy.door import Environment
from koprogo_deploy.facts.releases import Images
from koprogo_deploy.facts.stack import Stack, StackState, parse_stack
from koprogo_deploy.operations import context
from koprogo_deploy.operations.shell import psql
from koprogo_deploy.plan import make
from koprogo_deploy.plan.gather import gather
from koprogo_deploy.plan.host import cut_problems, disk_needs, host_problems, login_problems
from koprogo_deploy.plan.model import Plan
from koprogo_deploy.plan.wanted import to_pull
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.pyinfra_adapter import commands

TIMEOUT = 120  # seconds for a command
_SSH_FAILED = 255  # exit code of ssh's own; others are the command's


def run(environment: Environment, command: str, stdin: str = "", within: float = TIMEOUT) -> str:
    """Run a shell command on the host and return what it prints.

    Args:
        environment: whose host.
        command: shell.
        stdin: for it.
        within: seconds that it may take.

    Raises:
        Refusal: the host cannot be reached, or the command failed; with its last words.
    """
    try:
        done = subprocess.run(
            connection.ssh_command(environment, command),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _failed(environment, f"no answer within {within:.0f} s") from None
    if done.returncode != 0:
        words = done.stderr.strip() or f"exit code {done.returncode}"
        if done.returncode == _SSH_FAILED:
            raise _failed(environment, words)
        problem = Problem("on the host", words.splitlines()[-1])
        raise Refusal(f"Host {environment.host}", [problem])
    return done.stdout


def as_root(environment: Environment, script: str, stdin: str = "", within: float = TIMEOUT) -> str:
    """As `run`, with the rights of root."""
    return run(environment, f"sudo -n sh -c {shlex.quote(script)}", stdin, within)


def _failed(environment: Environment, words: str) -> Refusal:
    name = environment.settings.environment
    fix = f"try: koprogo ssh {name} true"
    if name == "sandbox":
        fix += "   (is it up? make sandbox-up)"
    return Refusal(f"Host {environment.host}", [Problem("ssh", words.splitlines()[-1], fix)])


def stack(environment: Environment) -> StackState:
    """What is deployed on the host."""
    script = commands.text(Stack().command(root=environment.settings.install_root))
    return parse_stack(as_root(environment, script).splitlines())


def seed_state(environment: Environment) -> seed.State:
    """What of the realistic seed is in the database.

    Raises:
        Refusal: the host or its database cannot be asked.
    """
    answer = run(environment, f"sudo -n {psql()}", seed.STATE_SQL)
    try:
        return seed.parse_state(answer)
    except seed.SeedError as error:
        raise Refusal("Seed", [Problem("database", str(error))]) from None


def now(environment: Environment) -> status.Now:
    """What serves since when, kept releases, disk, and whether a deploy is running."""
    script = status.look_command(environment.settings.install_root)
    return status.parse(as_root(environment, script).splitlines())


def journal_of(environment: Environment) -> journal.Journal:
    """The journal on the host, its chain followed; empty where nothing was written yet."""
    file = shlex.quote(f"{environment.settings.install_root}/{journal.FILE}")
    script = f"[ ! -e {file} ] || gzip -c {file} | base64"
    packed = as_root(environment, script)
    return journal.read(gzip.decompress(base64.b64decode(packed)) if packed else b"")


def write_down(environment: Environment, kind: str, **values: Any) -> None:  # noqa: ANN401
    """Append a line to the journal on the host, such as `kind` "gate" of a load run.

    Args:
        environment: whose host.
        kind: as in `journal.entry`.
        values: whatever JSON holds; who and when are added.

    Raises:
        Refusal: the host cannot be reached, or the line could not be written.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = journal.entry(kind, **{"at": now, "by": context.who(), **values})
    script = journal.append_command(environment.settings.install_root)
    as_root(environment, script, line)


def look(environment: Environment, fact: type[FactBase], **arguments: Any) -> Any:  # noqa: ANN401
    """A fact of the host, as a deploy gathers it."""
    gatherer = fact()
    text = commands.text(gatherer.command(**arguments))
    return gatherer.process(as_root(environment, text).splitlines())


def plan(environment: Environment) -> Plan:
    """What a deploy would do to the host as it is now."""
    sets = context.secret_sets(environment)
    secret = context.backup_files(environment)
    found = gather(partial(look, environment), environment, sets, secret_files=secret)
    settings, stack = environment.settings, found.stack
    images = look(environment, Images) if stack.docker and to_pull(settings, stack) else []
    needs = disk_needs(settings, found.machine, stack, images)
    refusals = host_problems(found.machine, settings, int(time.time()), needs)
    # OpenSSH comes by a key, since nobody answers its questions; which one it does not say.
    local = connection.is_local(environment)
    refusals += login_problems(settings, found.machine, Arrival("local" if local else "publickey"))
    refusals += cut_problems(settings, stack)
    planner = make.Planner(datetime.now(UTC), context.who(), context.revision())
    return make.make(environment, sets, found, planner, refusals=refusals)
