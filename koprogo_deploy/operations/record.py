"""Record: a run that changed something, or failed, gets a line in the host's journal."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyinfra import host, logger, state
from pyinfra.api import StringCommand, deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import database, direct, journal
from koprogo_deploy.facts.stack import Database, StackState
from koprogo_deploy.operations import context
from koprogo_deploy.operations.looks import look
from koprogo_deploy.operations.migrate import stack
from koprogo_deploy.operations.notes import about as about
from koprogo_deploy.operations.notes import note as note
from koprogo_deploy.operations.notes import notes
from koprogo_deploy.operations.progress import Progress
from koprogo_deploy.operations.step import said, step
from koprogo_deploy.plan.text import Mask
from koprogo_deploy.pyinfra_adapter import events
from koprogo_deploy.pyinfra_adapter.within import within

ANSWER = 5  # seconds for the database's word
TIMEOUT = 20  # seconds for a line, on a connection that may be the reason of the failure
CHECKS = ("Preflight | ", "Plan | ")  # a run that these end has touched nothing


class Recorder(events.Listener):
    """What the run did so far; one run, one process, one host."""

    began = datetime.now(UTC)
    steps: list[dict[str, Any]] = []  # noqa: RUF012
    changed = False
    before: StackState | None = None
    notes = notes

    def step_ended(self, step: events.Step) -> None:
        """Note how long a step took, and whether it changed something."""
        Recorder.changed = Recorder.changed or step.changed
        _note_step(step)

    def step_failed(self, step: events.Step, host: object) -> None:
        """Write down that the run failed here."""
        name = _note_step(step)
        if name.startswith((*CHECKS, "Record | ", "Back up | ")):  # a backup writes its own line
            return
        hide = Mask(context.current().secrets.values.values())
        reason = hide(said[-1].strip().splitlines()[0]) if said else None
        values = {"outcome": "failed", "step": name, "reason": reason, **Recorder.notes}
        try:
            with within(TIMEOUT):
                _write(**values)
        except Exception as error:
            logger.error("    the journal has no line of this run: %s", error)


def _note_step(step: events.Step) -> str:
    name, now = step.name, time.monotonic()
    started = Progress.started.get(step.key, now)
    at, took = round(started - Progress.began, 2), round(now - started, 2)
    Recorder.steps.append({"name": name, "at": at, "seconds": took})
    return name


def listen() -> None:
    """Follow the run from here on; once, however many hosts there are."""
    events.listen(Recorder())


def begin(found: StackState) -> None:
    """Remember what served before anything was touched."""
    if state.is_executing:
        Recorder.before = found


def _write(**values: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    settings = context.current().settings
    root = settings.install_root
    try:
        found = stack(settings)
    except Exception:  # of a host that is broken the line says less
        found = Recorder.before or StackState()
    left = ""
    if values["outcome"] in ("failed", "taken back"):
        # A Postgres that hangs may be why: the line is written all the same.
        with contextlib.suppress(Exception), within(ANSWER):
            left = _cannot_restart(found)
    if left:
        logger.error("    %s", left)
    worked_on = found.target if values["outcome"] == "failed" else found.current
    line = journal.entry(
        "run",
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        began=Recorder.began.isoformat(timespec="seconds"),
        run=deploy_name(),
        environment=settings.environment,
        before=_serving(Recorder.before),
        serves=_serving(found),
        revision=context.revision() or None,
        by=context.who(),
        why=context.why(settings.reason) or None,
        seconds=round(time.monotonic() - Progress.began, 1),
        steps=Recorder.steps,
        cannot_restart=left or None,
        **{**about(worked_on, found), **values},
    )
    command = f"sudo -n sh -c {shlex.quote(journal.append_command(root))}"
    ok, output = host.run_shell_command(StringCommand(command), _stdin=line)
    if not ok:
        raise OSError(output.stderr or f"no answer from {host.name}")
    try:
        lines, head = journal.written(output.stdout)
    except ValueError as error:
        raise OSError(str(error)) from None
    logger.info("    the journal has %d lines; head %s", lines, head)
    return str(values["outcome"])


def _cannot_restart(found: StackState) -> str:
    """What is said where a release that failed has migrated, and what serves lacks that."""
    if found.live is None:
        return ""
    answer = look(Database, query=database.migrations_query())
    newer = direct.lacking(found, database.parse_migrations(answer.get("migrations")))
    if not newer:
        return ""
    serving = found.live["id"]
    ways = direct.ways_out(serving, context.current().settings.environment)
    return f"{direct.lacks(serving, newer)}. {ways[0].upper()}{ways[1:]}"


def _serving(found: StackState | None) -> str | None:
    live = found.live if found else None
    return live["id"] if live else None


def deploy_name() -> str:
    """Which of `deploys/` this run is, such as `full`; empty for none."""
    named = [Path(word).stem for word in sys.argv if Path(word).parent.name == "deploys"]
    return ", ".join(named)


def outcome(before: StackState, now: StackState, back: bool) -> str:
    """What a run that ended well brought about.

    Args:
        before: what was there when it began.
        now: what is there.
        back: the run was a rollback.
    """
    # One that was cut after the switch left a release that served and did not count.
    served = {manifest["id"] if manifest else None for manifest in (before.current, before.live)}
    if now.current is None or served == {now.current["id"]}:
        return "done"
    return "rolled back" if back else "deployed"


def wrong_with_the_host() -> str:
    """What the smoke tests of this run found, no fault of the release; empty for nothing."""
    seen = notes.get("smoke", {})
    return str(seen["failed"]) if seen.get("of") == "host" else ""


@step
def recorded() -> Any:  # noqa: ANN401 - a generator without a command
    """Write a line if the run changed something, or the host is not well; else nothing."""
    if not state.is_executing:
        return
    wrong = wrong_with_the_host()
    if wrong:
        note(reason=f"the host is not well: {wrong}")
    elif not Recorder.changed:
        host.noop("nothing changed, nothing to write down")
        return
    settings = context.current().settings
    what = outcome(
        Recorder.before or StackState(), stack(settings), context.going_back() is not None
    )
    try:
        _write(**{**Recorder.notes, "outcome": what})
    except OSError as error:
        raise OperationError(
            f"what was done is done, and the journal has no line of it: {error}"
        ) from None
    host.noop(f"the journal says: {what}")
    return
    yield


@step
def host_is_well() -> Any:  # noqa: ANN401 - a generator without a command
    """Fail a run whose smoke tests found the host not well, now that its release counts."""
    if wrong := wrong_with_the_host():
        name = context.current().settings.environment
        raise OperationError(
            f"the host is not well: {wrong}. The smoke tests above say what. It is no fault of the "
            f"release, which serves and counts; once it is mended: koprogo smoke {name}"
        )
    host.noop("the smoke tests found nothing wrong with the host")
    return
    yield


@deploy("Record")
def record_stage() -> None:
    """The journal gets a line, if there is something to tell; a host that is not well is told."""
    recorded(name="Write the journal")
    host_is_well(name="Find the host well")
