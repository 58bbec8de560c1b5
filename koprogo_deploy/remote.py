"""Looking at a host from the command line, over OpenSSH: the same facts as the deploys use."""

from __future__ import annotations

import base64
import gzip
import shlex
import subprocess
from datetime import UTC, datetime
from typing import Any

from koprogo_deploy import connection, journal, render, seed, status
from koprogo_deploy.door import Environment
from koprogo_deploy.facts.stack import Stack, StackState, parse_stack
from koprogo_deploy.operations import context
from koprogo_deploy.operations.release import known_digests, wanted_release
from koprogo_deploy.operations.shell import psql
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.settings import SERVICES


def run(environment: Environment, command: str, stdin: str = "") -> str:
    """Run a shell command on the host and return what it prints.

    Raises:
        Refusal: the host cannot be reached, or the command failed; with its last words.
    """
    try:
        done = subprocess.run(
            connection.ssh_command(environment, command),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _failed(environment, "no answer within 120 s") from None
    if done.returncode != 0:
        raise _failed(environment, done.stderr.strip() or f"exit code {done.returncode}")
    return done.stdout


def as_root(environment: Environment, script: str, stdin: str = "") -> str:
    """As `run`, with the rights of root."""
    return run(environment, f"sudo -n sh -c {shlex.quote(script)}", stdin)


def _failed(environment: Environment, words: str) -> Refusal:
    name = environment.settings.environment
    fix = f"try: koprogo ssh {name} true"
    if name == "sandbox":
        fix += "   (is it up? make sandbox-up)"
    return Refusal(f"Host {environment.host}", [Problem("ssh", words.splitlines()[-1], fix)])


def stack(environment: Environment) -> StackState:
    """What is deployed on the host."""
    script = Stack().command(root=environment.settings.install_root).get_raw_value()
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


def wanted(environment: Environment, state: StackState) -> tuple[render.Release, list[str]]:
    """The release that a deploy would make, and images whose tag it would resolve first."""
    images = known_digests(environment.settings, state)
    unresolved = [s for s in SERVICES if s not in images]
    for service in unresolved:
        images[service] = environment.settings.image(service)
    sets = context.secret_sets(environment)
    return wanted_release(environment, sets, images, state).release, unresolved
