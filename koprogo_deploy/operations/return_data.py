"""Return: in a rollback over a migration the data of before it serves again, as it was dumped.

The dump is restored beside what is live, which serves meanwhile. Then, under the maintenance page,
the serving backend stops and the databases are renamed; the page goes when requests go to the old
release. If anything fails before that, or the smoke tests do, all is put back.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import gevent
from pyinfra import host, logger, state
from pyinfra.api import StringCommand, deploy
from pyinfra.api.exceptions import OperationError
from pyinfra.api.state import BaseStateCallback

from koprogo_deploy import maintenance
from koprogo_deploy.data import live
from koprogo_deploy.maintenance import Maintenance
from koprogo_deploy.operations import context
from koprogo_deploy.operations.migrate import stack
from koprogo_deploy.operations.record import note
from koprogo_deploy.operations.shell import container, stop, wait_until_healthy
from koprogo_deploy.operations.step import step
from koprogo_deploy.render import container_names
from koprogo_deploy.settings import Settings

UNDO_TIMEOUT = 180  # seconds


class Undo(BaseStateCallback):
    """What puts everything back when a later step of the run fails; empty when nothing is to."""

    command = ""
    what = "the data of before the rollback"

    @staticmethod
    def operation_host_error(
        state: Any,  # noqa: ANN401 - pyinfra's own type
        host: Any,  # noqa: ANN401 - pyinfra's own type
        op_hash: str,
        retry_count: int = 0,
        max_retries: int = 0,
    ) -> None:
        """Put it back, and say so; what cannot be put back is said with the way to do it."""
        command, Undo.command = Undo.command, ""
        if not command:
            return
        logger.error("    %s serves again …", Undo.what)
        try:
            with gevent.Timeout(UNDO_TIMEOUT, exception=TimeoutError):
                ok, output = host.run_shell_command(StringCommand(command))
        except Exception as error:
            ok, output = False, error
        if not ok:
            logger.error("    it does not: %s", output)
            logger.error("    on the host, as root: %s", command)


def undo_by(command: str, what: str) -> None:
    """Have a command put everything back if a later step fails; an empty one: nothing any more.

    Args:
        command: shell, with the rights of root.
        what: then serves again.
    """
    if not any(isinstance(handler, Undo) for handler in state.callback_handlers):
        state.add_callback_handler(Undo())
    Undo.command, Undo.what = command, what


def under_page_command(settings: Settings, backend: str, old: str) -> str:
    """Page on (its file comes on standard input), backend stopped, databases renamed."""
    on = maintenance.on_command(settings, page())
    exchange = f"{settings.install_root}/bin/koprogo-data exchange {old} {live.NEW}"
    return f"set -e\n(\n{on}\n)\n(\n{stop(backend)}\n)\n{exchange} >/dev/null"


def undo_command(settings: Settings, backend: str, other: str, old: str) -> str:
    """Put back: databases renamed again, the backend that served runs, the page is gone.

    Args:
        settings: for paths, and Traefik's address.
        backend: Compose's name of the one that served.
        other: of the one that was to serve.
        old: name of the database that served.
    """
    exchange = f"{settings.install_root}/bin/koprogo-data exchange {live.NEW} {old}"
    script = (
        f"set -e\ndocker stop -t 10 {container(other)} >/dev/null 2>&1 || :\n"
        f"{exchange} >/dev/null\n"
        f"docker start {container(backend)} >/dev/null\n"
        f"{wait_until_healthy(backend, settings.backend_start_timeout)}\n"
        f"{maintenance.off_command(settings)}"
    )
    return f"sudo -n sh -c {shlex.quote(script)}"


def page() -> Maintenance:
    """The maintenance page while the data goes back."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Maintenance(now, context.who(), maintenance.RETURNING, 30, ())


@step
def dump_serves() -> Iterator[StringCommand | str]:
    """The dump of before the migration is what the old release will find."""
    going = context.going_back()
    if not state.is_executing or going is None or not going.dump:
        host.noop("the data stays as it is")
        return
    settings = context.current().settings
    found = stack(settings)
    if found.live is None or found.target is None:
        raise OperationError("nothing serves, so there is nothing to put the dump in place of")
    if found.maintenance and maintenance.parse(found.maintenance).message != maintenance.RETURNING:
        raise OperationError("a maintenance page is on: koprogo maintenance off, then run it again")
    backend = container_names(found.live["colours"])["backend"]
    other = container_names(found.target["colours"])["backend"]
    root = settings.install_root
    file = f"{root}/dumps/{going.dump}.dump"
    yield f"{root}/bin/koprogo-data prepare {shlex.quote(file)} >/dev/null"
    old = live.old_name(datetime.now(UTC))
    undo_by(undo_command(settings, backend, other, old), Undo.what)
    note(returned={"dump": going.dump, "kept": old})
    command = under_page_command(settings, backend, old)
    yield StringCommand(command, _stdin=maintenance.render(page()))
    logger.warning("    the site shows the maintenance page until the old release serves")
    logger.info("    what served is kept as database %s", old)


@step
def site_open() -> Iterator[str]:
    """The maintenance page of this rollback goes, once requests go to the old release."""
    if not state.is_executing:
        return
    settings = context.current().settings
    found = stack(settings).maintenance
    if not found or maintenance.parse(found).message != maintenance.RETURNING:
        host.noop("there is no page of a rollback")
        return
    yield f"set -e\n{maintenance.off_command(settings)}"


@step
def returned() -> Iterator[str]:
    """The smoke tests passed: nothing is put back any more."""
    if state.is_executing and Undo.command:
        Undo.command = ""
        name = context.current().settings.environment
        logger.info(
            "    the database that served is kept; to let it go: pyinfra inventories/%s.py "
            "deploys/restore.py --data backup=drop_old",
            name,
        )
    host.noop("the data is what the release works on")
    return
    yield


@deploy("Return")
def return_stage() -> None:
    """In a rollback over a migration: the data of before it, under the maintenance page."""
    if context.current().settings.restore_dump:
        dump_serves(name="Put the dump in place of what is live")


@deploy("Return")
def open_stage() -> None:
    """The maintenance page of such a rollback goes."""
    if context.current().settings.restore_dump:
        site_open(name="Open the site again")


@deploy("Return")
def returned_stage() -> None:
    """Such a rollback is not put back any more."""
    if context.current().settings.restore_dump:
        returned(name="Keep the data")
