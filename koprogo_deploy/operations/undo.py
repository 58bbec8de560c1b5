"""Undo: what puts the data back when a later step of the run fails, before anybody is let in again.

Data and routes belong together: the data comes first, then the routes of the release that it is
of, then the maintenance page goes.
"""

from __future__ import annotations

from typing import Any

from pyinfra import host as current_host
from pyinfra import logger
from pyinfra.api import StringCommand

from koprogo_deploy.pyinfra_adapter import events
from koprogo_deploy.pyinfra_adapter.within import within

UNDO_TIMEOUT = 180  # seconds


class Undo(events.Listener):
    """What puts everything back when a later step of the run fails; empty when nothing is to."""

    command = ""
    opens = ""
    what = "the data of before the rollback"

    def step_failed(self, step: events.Step, host: Any) -> None:  # noqa: ANN401 - pyinfra's own type
        """Put it back and let everybody in, unless whoever took the release back did."""
        if Undo.command and not put_back(host):
            let_in(host)


def undo_by(command: str, what: str, opens: str = "") -> None:
    """Have a command put everything back if a later step fails; an empty one: nothing any more.

    Args:
        command: shell, with the rights of root.
        what: then serves again.
        opens: shell that takes the page away; it is run once the routes are right, too.
    """
    events.listen(Undo())
    Undo.command, Undo.what, Undo.opens = command, what, opens


def pending() -> bool:
    """Whether a run is in the midst of the data."""
    return bool(Undo.command)


def put_back(host: Any = None) -> str:  # noqa: ANN401 - pyinfra's own type
    """Put the data back, if a run is in the midst of it; why it could not be, empty if it is.

    What cannot be put back is said with the way to do it; the page stays.
    """
    command, Undo.command = Undo.command, ""
    if not command:
        return ""
    logger.error("    %s serves again …", Undo.what)
    if wrong := _run(host or current_host, command):
        logger.error("    it does not: %s", wrong)
        logger.error("    on the host, as root: %s", command)
        Undo.opens = ""
    return wrong


def let_in(host: Any = None) -> None:  # noqa: ANN401 - pyinfra's own type
    """What was put back serves: its page goes."""
    command, Undo.opens = Undo.opens, ""
    if command and (wrong := _run(host or current_host, command)):
        logger.error("    the maintenance page is still up: %s", wrong)
        logger.error("    on the host, as root: %s", command)


def _run(host: Any, script: str) -> str:  # noqa: ANN401 - pyinfra's own type
    try:
        with within(UNDO_TIMEOUT):
            ok, output = host.run_shell_command(StringCommand(script))
    except Exception as error:  # a connection that is gone has many names
        return str(error) or type(error).__name__
    return "" if ok else str(output) or "it failed"
