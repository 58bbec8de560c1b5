"""Looking at a host from the command line, over OpenSSH: the same facts as the deploys use."""

from __future__ import annotations

import shlex
import subprocess

from koprogo_deploy import connection, render, seed
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


def _failed(environment: Environment, words: str) -> Refusal:
    name = environment.settings.environment
    fix = f"try: koprogo ssh {name} true"
    if name == "sandbox":
        fix += "   (is it up? make sandbox-up)"
    return Refusal(f"Host {environment.host}", [Problem("ssh", words.splitlines()[-1], fix)])


def stack(environment: Environment) -> StackState:
    """What is deployed on the host."""
    script = Stack().command(root=environment.settings.install_root).get_raw_value()
    return parse_stack(run(environment, f"sudo -n sh -c {shlex.quote(script)}").splitlines())


def seed_state(environment: Environment) -> seed.State:
    """What of the realistic seed is in the database.

    Raises:
        Refusal: the host or its database cannot be asked.
    """
    answer = run(environment, f"sudo -n {psql()}", seed.STATE_SQL)
    try:
        return seed.parse_state(answer)
    except seed.SeedError as error:
        raise _failed(environment, str(error)) from None


def wanted(environment: Environment, state: StackState) -> tuple[render.Release, list[str]]:
    """The release that a deploy would make, and images whose tag it would resolve first."""
    images = known_digests(environment.settings, state)
    unresolved = [s for s in SERVICES if s not in images]
    for service in unresolved:
        images[service] = environment.settings.image(service)
    sets = context.secret_sets(environment)
    return wanted_release(environment, sets, images, state).release, unresolved
