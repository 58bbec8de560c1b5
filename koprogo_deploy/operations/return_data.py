"""Return: in a rollback over a migration the data of before it serves again, as it was dumped.

The dump is restored beside what is live, which serves meanwhile. Then, under the maintenance page,
the serving backend stops and the databases are renamed. Nobody passes by the page until requests
go to the old release, then this machine does for the smoke tests, and it goes when they passed: if
anything fails before that all is put back, and nobody has written anything that this would lose.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from pyinfra import host, logger, state
from pyinfra.api import StringCommand, deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import maintenance
from koprogo_deploy.data import live
from koprogo_deploy.data.host import RETURN
from koprogo_deploy.facts.stack import StackState
from koprogo_deploy.maintenance import Maintenance
from koprogo_deploy.operations import context
from koprogo_deploy.operations.migrate import stack
from koprogo_deploy.operations.record import note
from koprogo_deploy.operations.routes import place_dynamic, read_back, traefik_up
from koprogo_deploy.operations.shell import container, psql, stop, wait_until_healthy
from koprogo_deploy.operations.step import step
from koprogo_deploy.operations.undo import Undo, undo_by
from koprogo_deploy.render import container_names
from koprogo_deploy.settings import Settings

IN_PLACE = "the dump is in place, and what served does not start on the other data: run it again"


@dataclass(frozen=True)
class Return:
    """What a return writes down on the host before it begins: what puts all back, and who ends it.

    Attributes:
        release: id of the release that is to serve.
        left: of the one that served.
        colours: of the one that served.
        other: Compose's name of the backend that is to serve.
        kept: name that the database which served gets.
        counted: the release that served was `current`, and no candidate that a cut run left.
        proxy: the two releases differ in Traefik.
    """

    release: str
    left: str
    colours: dict[str, str]
    other: str
    kept: str
    counted: bool = True
    proxy: bool = False

    @property
    def backend(self) -> str:
        """Compose's name of the backend that served."""
        return container_names(self.colours)["backend"]


def planned(found: StackState, served: Mapping[str, Any], now: datetime) -> Return:
    """What a return that begins now does. Pure.

    Args:
        found: what is deployed, with the release that is to serve as its target.
        served: manifest of what served when the run began.
        now: for the name of what is kept.

    Raises:
        OperationError: nothing served.
    """
    if not served or found.target is None:
        raise OperationError("nothing serves, so there is nothing to put the dump in place of")
    return Return(
        release=found.target["id"],
        left=served["id"],
        colours=served["colours"],
        other=container_names(found.target["colours"])["backend"],
        kept=live.old_name(now),
        counted=bool(found.current and served["id"] == found.current["id"]),
        proxy=served["specs"]["traefik"] != found.target["specs"]["traefik"],
    )


def under_page_command(settings: Settings, does: Return, wanted: Maintenance) -> str:
    """Written down, page on (its file comes on standard input), backend stopped, renamed."""
    file = f"{settings.install_root}/{RETURN}"
    exchange = f"{settings.install_root}/bin/koprogo-data exchange {does.kept} {live.NEW}"
    return (
        f"set -e\nprintf '%s\\n' {shlex.quote(json.dumps(asdict(does)))} > {file}.part\n"
        f"sync {file}.part; mv -T {file}.part {file}\n"
        f"(\n{maintenance.on_command(settings, wanted)}\n)\n"
        f"(\n{stop(does.backend)}\n)\n{exchange} >/dev/null"
    )


def undo_command(settings: Settings, does: Return) -> str:
    """Put back: nobody passes, databases renamed again, the backend that served, its routes.

    A release that goes back to its own data cannot start on what served. Once the dump is in
    place, there is only the way on: it fails, and the page stays for the run that ends it.
    """
    root, wanted = settings.install_root, page()
    exchange = f"{root}/bin/koprogo-data exchange {live.NEW} {does.kept}"
    closed = f"printf %s {shlex.quote(maintenance.render(wanted))} | (\n"
    closed += f"{maintenance.on_command(settings, wanted)}\n) >&2 || :"
    directory = f"{root}/releases/{does.left}"
    again = ":"
    if not does.counted:  # as the run that was cut had left it
        again = f"cd {root}; ln -sfn releases/{does.left} candidate.new; rm -f {directory}/bad\n"
        again += "mv -T candidate.new candidate"
    if does.other == does.backend:
        there = f"{psql('postgres')} -l | cut -d '|' -f 1 | grep -qx {does.kept}"
        script = (
            f"{closed}\nset -e\nif {there}; then\n  echo {shlex.quote(IN_PLACE)} >&2; exit 1\nfi\n"
            f"docker start {container(does.backend)} >/dev/null\n"
            f"{wait_until_healthy(does.backend, settings.backend_start_timeout)}"
        )
        return f"sudo -n sh -c {shlex.quote(script)}"
    script = (
        f"{closed}\nset -e\n"
        f"docker stop -t 10 {container(does.other)} >/dev/null 2>&1 || :\n"
        f"{exchange} >/dev/null\n"
        f"docker start {container(does.backend)} >/dev/null\n"
        f"{wait_until_healthy(does.backend, settings.backend_start_timeout)}\n"
        f"{again}\n{place_dynamic(root, directory)}\n"
        f"{traefik_up(settings, directory) if does.proxy else ':'}\n"
        f"{read_back(settings, does.colours)}"
    )
    return f"sudo -n sh -c {shlex.quote(script)}"


def open_command(settings: Settings) -> str:
    """What was written down goes, and then the page: whichever is left alone, nothing is undone."""
    off = maintenance.off_command(settings)
    return f"set -e\nrm -f {settings.install_root}/{RETURN}\n(\n{off}\n)"


def page(passing: tuple[str, ...] = ()) -> Maintenance:
    """The maintenance page while the data goes back."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Maintenance(now, context.who(), maintenance.RETURNING, 30, passing)


def own_page(found: StackState) -> bool:
    """Whether the maintenance page that is up is one of a rollback with its data."""
    up = found.maintenance
    return bool(up) and maintenance.parse(up).message == maintenance.RETURNING


def _undone_if_it_fails(settings: Settings, does: Return) -> None:
    opens = f"sudo -n sh -c {shlex.quote(open_command(settings))}"
    undo_by(undo_command(settings, does), Undo.what, opens)


@step
def dump_serves() -> Iterator[StringCommand | str]:
    """The dump of before the migration is what the old release will find."""
    going = context.going_back()
    if not state.is_executing or going is None:
        host.noop("the data stays as it is")
        return
    settings = context.current().settings
    found = stack(settings)
    if found.returning:  # a run that was cut; this one ends it, or puts all back
        if own_page(found):
            _undone_if_it_fails(settings, Return(**found.returning))
        else:
            logger.warning("    the page is off already: what fails is not put back by itself")
    if not going.dump:
        host.noop("the data stays as it is")
        return
    does = planned(found, going.served, datetime.now(UTC))
    if found.maintenance and not own_page(found):
        raise OperationError("a maintenance page is on: koprogo maintenance off, then run it again")
    root = settings.install_root
    file = f"{root}/dumps/{going.dump}.dump"
    yield f"{root}/bin/koprogo-data prepare {shlex.quote(file)} >/dev/null"
    _undone_if_it_fails(settings, does)
    note(returned={"dump": going.dump, "kept": does.kept})
    wanted = page()
    command = under_page_command(settings, does, wanted)
    yield StringCommand(command, _stdin=maintenance.render(wanted))
    logger.warning("    the site shows the maintenance page until the old release is verified")
    logger.info("    what served is kept as database %s", does.kept)


@step
def this_machine_passes() -> Iterator[StringCommand]:
    """The smoke tests pass by the page of this rollback; nobody else does until they passed."""
    if not state.is_executing:
        return
    settings = context.current().settings
    if not own_page(stack(settings)):
        host.noop("there is no page of a rollback")
        return
    wanted = page(context.own_addresses())
    yield StringCommand(
        f"(\n{maintenance.on_command(settings, wanted)}\n)", _stdin=maintenance.render(wanted)
    )


@step
def returned() -> Iterator[str]:
    """The smoke tests passed: nothing is put back any more, and the site is open again."""
    if not state.is_executing:
        return
    settings = context.current().settings
    found = stack(settings)
    undo_by("", Undo.what)
    if found.returning:
        logger.info(
            "    the database that served is kept; to let it go: pyinfra inventories/%s.py "
            "deploys/restore.py --data backup=drop_old",
            settings.environment,
        )
    if own_page(found):
        yield open_command(settings)
    elif found.returning:
        yield f"rm -f {settings.install_root}/{RETURN}"
    else:
        host.noop("the data is what the release works on")


@deploy("Return")
def return_stage() -> None:
    """In a rollback over a migration: the data of before it, under the maintenance page."""
    if context.current().settings.restore_dump:
        dump_serves(name="Put the dump in place of what is live")


@deploy("Return")
def pass_stage() -> None:
    """Requests go to the old release: this machine passes by the page, to verify it."""
    if context.current().settings.restore_dump:
        this_machine_passes(name="Let this machine pass by the page")


@deploy("Return")
def open_stage() -> None:
    """It is verified: everybody is let in, and nothing is put back any more."""
    if context.current().settings.restore_dump:
        returned(name="Let everybody in, and keep the data")
