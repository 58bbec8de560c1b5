"""Take back: a release that was switched to and does not hold goes; the one before serves again.

So it is when its smoke tests fail, and when any step does between the switch and them: without
that, routes that were replaced would stay, unverified.
"""

from __future__ import annotations

import shlex
import time

from pyinfra import host, logger, state
from pyinfra.api import StringCommand
from pyinfra.api.exceptions import OperationError

from koprogo_deploy.facts.stack import StackState
from koprogo_deploy.operations import context, undo
from koprogo_deploy.operations.migrate import stack
from koprogo_deploy.operations.notes import about, note
from koprogo_deploy.operations.routes import (
    back_command,
    postgres_ready,
    put_away_command,
    same_postgres,
    to_blame,
    warm_command,
)
from koprogo_deploy.pyinfra_adapter import events
from koprogo_deploy.pyinfra_adapter.within import within
from koprogo_deploy.settings import Settings

TIMEOUT = 300  # seconds: requests under way end, and Postgres may have to start again


class OnFailure(events.Listener):
    """Takes the release back when a step fails between the switch and the smoke tests' verdict."""

    armed = False

    def step_failed(self, step: events.Step, host: object) -> None:
        """Take it back and say so; the host may be out of reach, then the next run goes on."""
        if not OnFailure.armed:
            return
        began = time.monotonic()
        try:
            with within(TIMEOUT):
                settings = context.current().settings
                found = stack(settings)
                if switched(found):
                    reason = f"failed {context.minute()} at {step.name}"
                    told = back(settings, found, reason, began, excuse(found))
                    logger.error("    %s", told)
        except Exception as error:
            logger.error("    the release could not be taken back: %s", error)


def listen() -> None:
    """Be there before whatever else hears of a failed step: the journal tells what became of it."""
    events.listen(OnFailure())


def if_a_later_step_fails() -> None:
    """From here on a step that fails takes the release back, once requests go to it."""
    OnFailure.armed = bool(state.is_executing)


def no_more() -> None:
    """The smoke tests have passed, or it is taken back already."""
    OnFailure.armed = False


def switched(found: StackState) -> bool:
    """Whether requests go to a release that does not count yet, and there is one before it.

    Both may have the same routes, where only Postgres or Traefik is another.
    """
    routed = found.candidate and found.dynamic == found.candidate["dynamic"]
    return bool(routed and found.current)


def excuse(found: StackState) -> str:
    """Why a release that failed after the switch is not to be marked for it; empty where it is.

    Asked before it is taken back: that restarts what may be why.

    Args:
        found: what was there before it failed; there are both releases.
    """
    assert found.candidate is not None
    assert found.current is not None
    conditions = [f"{{ {to_blame()}; }}"]
    # A Postgres that runs as this release wants it may be silent for that very reason.
    if found.candidate["specs"]["postgres"] == found.current["specs"]["postgres"]:
        conditions.append(postgres_ready())
        if postgres := found.containers.get("postgres"):
            conditions.append(same_postgres(postgres.started))
    if not _run(" && ".join(conditions)):
        return ""
    return (
        "It is not marked as bad: the host has no room, its Postgres does not answer or was "
        "started again meanwhile, or another run is at work. Run it again once this is mended"
    )


def back(
    settings: Settings, found: StackState, reason: str, began: float, excused: str = ""
) -> str:
    """Have the release before serve again; mark the other one, and put it away.

    If the release before does not come up any more, the other one serves on, unmarked: better one
    that fails a test than none.

    Args:
        settings: for the paths.
        found: what is deployed; there are both releases.
        reason: one line for the mark, such as which tests failed.
        began: when that was known, by `time.monotonic`.
        excused: what `excuse` said; a release that has one is taken back and not marked.

    Returns:
        What was done, for whoever deploys.

    Raises:
        OperationError: it does not serve again; says why.
    """
    assert found.candidate is not None
    assert found.current is not None
    no_more()
    bad, good = found.candidate, found.current
    mark = "" if excused else reason
    unmark = context.going_back() is not None
    logger.error("    taking release %s back: %s", bad["id"], reason)
    data = undo.pending()
    if wrong := undo.put_back():  # where its data is another one, that comes first
        raise OperationError(
            f"release {bad['id']} is to be taken back, and the data of {good['id']} is not put "
            f"back: {wrong}. The maintenance page stays; above is what puts it back"
        )
    if down := _run(warm_command(good, bad)):
        if data:
            raise OperationError(
                f"the data of release {good['id']} is put back, and it does not serve on it: "
                f"{down}. The maintenance page stays; koprogo status says what ends it"
            )
        told = serves_on(settings.environment, good["id"], bad["id"], reason, down)
        told += " --data retry_bad_release=true" if unmark else ""  # the rollback has marked it
        note(reason=told)
        raise OperationError(told)
    if wrong := _run(back_command(settings, good, bad, mark, unmark)):
        raise OperationError(
            f"release {bad['id']} is to be taken back, and {good['id']} does not serve again: "
            f"{wrong}. Run it again; if that does not help: koprogo status, koprogo ssh, then "
            "docker ps -a and docker logs koprogo-traefik-1"
        )
    undo.let_in()
    after = round(time.monotonic() - began, 2)
    note(outcome="taken back", back_after=after, **about(bad, found))
    if wrong := _run(put_away_command(settings, good, bad, mark, unmark)):
        logger.error("    what it left runs on: %s; the next run takes it away", wrong)
    again = (
        "It is not deployed again as it is: change something, or give --data retry_bad_release=true"
    )
    return (
        f"release {bad['id']} was taken back; {good['id']} serves again, since {after:.1f} s after "
        "the verdict. What it logged: koprogo ssh, then docker ps -a and docker logs. "
        f"{excused or again}"
    )


def serves_on(environment: str, good: str, bad: str, reason: str, down: str) -> str:
    """What is said where the release before does not come up, and the other one is left. Pure.

    Args:
        environment: for the commands.
        good: id of the release before.
        bad: id of the other one.
        reason: why it should be taken back.
        down: why the one before cannot serve.
    """
    why = down.partition(". Last lines of its log")[0]
    return (
        f"{reason}. Release {bad} serves on nevertheless, and is not marked as bad, for {good} "
        f"cannot serve again: {why}. Ways out: deploys/full.py with what has not the fault; the "
        f"same once more, if the fault was not the release's; or mend {good} (koprogo ssh "
        f"{environment}, then docker logs), then deploys/rollback.py --data release={good}"
    )


def _run(script: str) -> str:
    """Run it as root; why it failed, in a line, empty if it did not."""
    try:
        ok, output = host.run_shell_command(StringCommand(f"sudo -n sh -c {shlex.quote(script)}"))
    except Exception as error:  # a connection that is gone has many names
        return str(error) or type(error).__name__
    for line in output.stderr_lines:
        (logger.warning if ok else logger.error)("    %s", line)
    return "" if ok else (output.stderr_lines or [f"no answer from {host.name}"])[0]
