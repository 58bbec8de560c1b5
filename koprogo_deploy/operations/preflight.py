"""Preflight: the host is one we can deploy to, before anything on it is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pyinfra import host, logger
from pyinfra.api import deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import accounts, cut, maintenance
from koprogo_deploy.facts.releases import Images
from koprogo_deploy.operations import context, take_back
from koprogo_deploy.operations.lock import one_at_a_time
from koprogo_deploy.operations.looks import look, machine_now, watch_commands
from koprogo_deploy.operations.migrate import stack
from koprogo_deploy.operations.progress import show_progress
from koprogo_deploy.operations.record import begin, listen
from koprogo_deploy.operations.step import step
from koprogo_deploy.plan.host import (
    cut_problems,
    data_problems,
    disk_needs,
    host_problems,
    login_problems,
)
from koprogo_deploy.plan.wanted import to_pull
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.pyinfra_adapter import connection
from koprogo_deploy.units import MB


@step
def host_is_acceptable(does: str = "") -> Iterator[str]:
    """Refuse a host that the budget, the engine or the data do not fit. Changes nothing."""
    settings = context.current().settings
    state = machine_now()
    found = stack(settings)
    # A new host has no engine to ask yet.
    images = look(Images) if found.docker and to_pull(settings, found) else []
    needs = disk_needs(settings, state, found, images)
    problems = host_problems(state, settings, state.read, needs)
    problems += login_problems(settings, state, context.arrival())
    problems += data_problems(settings, state, found, upgrading=does == cut.UPGRADE)
    problems += cut_problems(settings, found, does)
    if problems:
        raise OperationError(f"\n{Refusal(f'Host {host.name}', problems)}")
    for warning in accounts.warnings(state.other_logins):
        logger.warning("    %s", warning)
    begin(found)
    host.noop(f"{state.os} {state.os_version}, {state.memory // MB} MB: the budget fits")
    return
    yield  # an operation is a generator; this one has no command


def lets_pass(headers: Mapping[str, str] | None, restarting: bool) -> bool | None:
    """Whether this machine passes by the maintenance page; None where nobody knows. Pure.

    Args:
        headers: of what the site answers; None where it does not answer.
        restarting: a page of a deploy that was cut is there, which this one takes away.
    """
    if headers is None:
        return None
    return restarting or not maintenance.ours(headers)


@step
def maintenance_lets_us_pass(does: str = "") -> Iterator[str]:
    """While maintenance is on the smoke tests have to pass by it: refuse where they cannot."""
    settings = context.current().settings
    found = stack(settings).maintenance
    if not found:
        host.noop("no maintenance is on")
        return
    import httpx2  # seldom needed, and slow to import

    from koprogo_deploy.outside import Outside

    wanted = maintenance.parse(found)
    if wanted.message == cut.PAGES.get(does):
        host.noop("a run that was cut left the maintenance page; this one ends it")
        return
    with Outside(settings, timeout=5) as outside:
        try:
            headers, silent = outside.api.get("/health").headers, ""
        except httpx2.HTTPError as error:
            headers, silent = None, str(error) or type(error).__name__
    passes = lets_pass(headers, stack(settings).restarting)
    if passes is None:
        # The deploy may mend that, and its smoke tests find out.
        told = "the site does not answer, so nobody knows whether this machine passes"
        logger.warning("    %s; %s: %s", maintenance.told(wanted), told, silent)
        host.noop(told)
        return
    if not passes:
        name = settings.environment
        problem = Problem(
            "maintenance",
            f"{maintenance.told(wanted)}. This machine does not, so the smoke tests would fail",
            f"koprogo maintenance on {name} --allow ADDRESS, or koprogo maintenance off {name}",
        )
        raise OperationError(f"\n{Refusal(f'Host {host.name}', [problem])}")
    logger.warning("    %s; this machine passes", maintenance.told(wanted))
    host.noop("this machine passes by the maintenance page")
    return
    yield


@deploy("Preflight")
def preflight(does: str = "", verifies: bool = True) -> None:
    """Settings, secrets, budget and host are acceptable; nothing is touched.

    Args:
        does: what the run does to the data, one of `cut.PAGES`: it may end one that was cut.
        verifies: it has smoke tests, or is followed by what has; they have to pass by a page.
    """
    show_progress()
    take_back.listen()
    listen()
    connection.tune(host)
    watch_commands()
    context.current()
    one_at_a_time(name="Be the only deploy")
    host_is_acceptable(name="Check the host", does=does)
    if verifies:
        maintenance_lets_us_pass(name="Check for maintenance", does=does)
