"""Preflight: the host is one we can deploy to, before anything on it is touched."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import budget
from koprogo_deploy.facts.host import HostState
from koprogo_deploy.machine import ENGINE_PACKAGES
from koprogo_deploy.operations import context
from koprogo_deploy.operations.lock import one_at_a_time
from koprogo_deploy.operations.looks import machine_now, watch_commands
from koprogo_deploy.operations.migrate import stack
from koprogo_deploy.operations.progress import show_progress
from koprogo_deploy.operations.record import begin, listen
from koprogo_deploy.operations.step import step
from koprogo_deploy.operations.wire import tune_connection
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.settings import Settings
from koprogo_deploy.units import GB, MB, megabytes

_DISK_NEEDED = 3 * GB  # two releases' images side by side, and the engine
_CLOCK_TOLERANCE = 60


def host_problems(state: HostState, settings: Settings, now: int) -> list[Problem]:
    """What about the host stands against a deploy. Pure.

    Args:
        state: the host's facts.
        settings: what the environment asks for.
        now: seconds since 1970 by our own clock.
    """
    problems = []
    if (state.os, state.os_version) not in ENGINE_PACKAGES:
        known = ", ".join(f"{name} {version}" for name, version in sorted(ENGINE_PACKAGES))
        problems.append(Problem("operating system", f"{state.os} {state.os_version}", known))
    proven = budget.against(budget.budget(settings), state.memory)
    if not proven.fits:
        fix = "lower a limit in group data, or take a bigger VPS"
        problems.append(Problem("memory", f"the budget {budget.overrun(proven)}", fix))
    if state.disk_free < _DISK_NEEDED:
        what = f"{megabytes(state.disk_free)} free on /, a release needs {megabytes(_DISK_NEEDED)}"
        problems.append(Problem("disk", what, "make room: docker image prune, journalctl --vacuum"))
    skew = abs(state.clock - now)
    if skew > _CLOCK_TOLERANCE:
        fix = "timedatectl on the host; certificates and tokens depend on the clock"
        problems.append(Problem("clock", f"{skew} s away from this machine's", fix))
    if state.postgres_version and state.postgres_version != str(settings.postgres_major):
        what = f"the data is of Postgres {state.postgres_version}, the image of "
        fix = "a major version up goes by dump and restore; keep the old image until then"
        problems.append(Problem("postgres_major", f"{what}{settings.postgres_major}", fix))
    return problems


@step
def host_is_acceptable() -> Iterator[str]:
    """Refuse a host that the budget, the engine or the data do not fit. Changes nothing."""
    settings = context.current().settings
    state = machine_now()
    problems = host_problems(state, settings, int(time.time()))
    if problems:
        raise OperationError(f"\n{Refusal(f'Host {host.name}', problems)}")
    begin(stack(settings))
    host.noop(f"{state.os} {state.os_version}, {state.memory // MB} MB: the budget fits")
    return
    yield  # an operation is a generator; this one has no command


@deploy("Preflight")
def preflight() -> None:
    """Settings, secrets, budget and host are acceptable; nothing is touched."""
    show_progress()
    listen()
    tune_connection()
    watch_commands()
    context.current()
    one_at_a_time(name="Be the only deploy")
    host_is_acceptable(name="Check the host")
