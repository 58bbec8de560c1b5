"""What every stage starts from: the checked environment of the host pyinfra is working on."""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from pyinfra import host, inventory, state
from pyinfra.api import StringCommand
from pyinfra.api.exceptions import OperationError, PyinfraError

from koprogo_deploy import door, journal, machine, render
from koprogo_deploy.accounts import Arrival
from koprogo_deploy.connection import is_local
from koprogo_deploy.files import RemoteFile
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.settings import network


@cache
def _open(environment: str, overrides: str) -> door.Environment:
    try:
        return door.open_environment(environment, json.loads(overrides))
    except Refusal as refusal:
        raise PyinfraError(f"\n{refusal}") from None


def current() -> door.Environment:
    """The environment of the current host, checked; opened once a run.

    Raises:
        PyinfraError: the settings are refused; the message lists every problem.
    """
    environment = host.data.get("environment")
    if environment is None:
        raise PyinfraError(
            "no group data was read: run pyinfra from the project's root, such as\n"
            "    pyinfra inventories/production.py deploys/full.py"
        )
    return _open(environment, json.dumps(overrides()))


def overrides() -> dict[str, object]:
    """Values given with `--data`."""
    given = {k: v for k, v in inventory.get_override_data().items() if v is not None}
    return {**given, **_instead}


_instead: dict[str, object] = {}  # one run, one process, one host


def instead(**values: object) -> None:
    """Have this run work with these settings, whatever group data and `--data` say."""
    _instead.update(values)


_planned: dict[str, dict[str, Any]] = {}


def plan(manifest: dict[str, Any]) -> None:
    """Remember the release that this run would push to the current host.

    Without `-y` pyinfra asks every operation whether it would change something before the first
    one is executed: the later ones answer for this release, which is not on the host yet.
    """
    _planned[host.name] = manifest


def planned() -> dict[str, Any] | None:
    """The release that this run would push; None once operations are executed."""
    return None if state.is_executing else _planned.get(host.name)


_holder = ""  # one run, one process, one host


def hold(line: str) -> None:
    """Remember the line by which others know that this run holds the host's lock."""
    global _holder
    _holder = line


def holder() -> str:
    """The line of this run in the lock's file; empty while it does not hold the lock."""
    return _holder


_going_back: dict[str, GoingBack] = {}


@dataclass(frozen=True)
class GoingBack:
    """A rollback under way: which release is left, the line that marks it, and settings to verify.

    Attributes:
        left: id of the release that served when it began; empty where the chosen one did.
        mark: why that one is not to be deployed again by itself.
        settings: what the other one was rendered from, as far as it is known.
        dump: id of the release before whose migration the data was dumped, where that data has to
            serve again; empty where the data stays.
        served: manifest of what served when it began.
    """

    left: str
    mark: str
    settings: dict[str, Any]
    dump: str = ""
    served: dict[str, Any] = field(default_factory=dict)


def go_back(going: GoingBack) -> None:
    """Have the stages of this run work as a rollback on the current host."""
    _going_back[host.name] = going


def going_back() -> GoingBack | None:
    """The rollback that this run makes; None in a deploy."""
    return _going_back.get(host.name)


def smoke_overrides() -> dict[str, object]:
    """What the smoke tests compare with, beyond group data: `--data`, and an old release's own."""
    going = going_back()
    return {**(going.settings if going else {}), **overrides()}


def own_addresses() -> tuple[str, ...]:
    """This machine as the site may see it, for a maintenance page that lets it pass.

    A deploy on its own target comes by the gateway of the edge network. Where one comes to the site
    by another way than by SSH, `superadmin_addresses` has it.

    Raises:
        OperationError: the host does not say by which address it sees this machine, and no setting
            does: nobody could pass to verify what is done behind the page.
    """
    environment = current()
    settings = environment.settings
    listed = tuple(settings.superadmin_addresses)
    if is_local(environment):
        return passing(render.gateway(settings.edge_network), listed)
    ok, output = host.run_shell_command(StringCommand('echo "${SSH_CONNECTION%% *}"'))
    return passing(output.stdout.strip() if ok else "", listed)


def passing(own: str, listed: tuple[str, ...]) -> tuple[str, ...]:
    """Who passes by a maintenance page that this run puts up. Pure.

    Args:
        own: this machine's address as the host sees it; empty where the host did not say.
        listed: `superadmin_addresses`.

    Raises:
        OperationError: neither is known.
    """
    try:
        first: tuple[str, ...] = (network(own),)
    except ValueError:
        first = ()
    if not first and not listed:
        raise OperationError(
            "the host does not say by which address it sees this machine (SSH_CONNECTION is "
            f"{own or 'empty'!r}), so nobody could pass by the maintenance page to verify what is "
            "done behind it, and it was not begun. Name this machine's address in "
            "superadmin_addresses"
        )
    return tuple(dict.fromkeys((*first, *listed)))


def arrival() -> Arrival:
    """How this run came to the current host, as its SSH client knows it."""
    client = getattr(host.connector, "client", None)
    transport = client.get_transport() if client is not None else None
    if transport is None:
        return Arrival("local")
    handler = transport.auth_handler
    method, key = handler.auth_method, getattr(handler, "private_key", None)
    if method != "publickey" or key is None:
        return Arrival(method)
    return Arrival(method, f"{key.get_name()} {key.get_base64()}")


def secret_sets(environment: door.Environment) -> dict[str, dict[str, str]]:
    """Secret files by service, the certificate's key included.

    Raises:
        PyinfraError: the certificate's files cannot be read.
    """
    settings, tls = environment.settings, {}
    files = ("tls_certificate", "tls_key") if settings.tls == "files" else ("acme_ca_certificate",)
    for name in files:
        file = getattr(settings, name)
        if file is None:
            continue
        try:
            tls[name] = (door.ROOT / file).read_text(encoding="ascii")
        except OSError as error:
            problem = Problem(name, f"{file}: {error.strerror}")
            raise PyinfraError(str(Refusal("Certificate", [problem]))) from None
    return render.secret_sets(settings, environment.secrets, tls)


def backup_files(environment: door.Environment) -> list[RemoteFile]:
    """What the backups' repository is opened with: files of root's.

    Raises:
        OperationError: the SSH key that the settings name cannot be read.
    """
    return machine.backup_secrets(
        environment.settings, environment.secrets, backup_key(environment)
    )


def backup_key(environment: door.Environment) -> str:
    """Private key of an `sftp:` repository; empty for other places."""
    name = environment.settings.backup_ssh_key
    if name is None or not (environment.settings.backup_repository or "").startswith("sftp:"):
        return ""
    try:
        key = (door.ROOT / name).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise OperationError(f"backup_ssh_key: {name} cannot be read: {error}") from None
    return key if key.endswith("\n") else f"{key}\n"


def minute() -> str:
    """The time, for whoever reads a mark."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def who() -> str:
    """Who deploys, for manifest and journal: user and machine, or who a pipeline runs for."""
    return journal.who(os.environ, getpass.getuser(), socket.gethostname())


def why(reason: str | None) -> str:
    """Why: the reason that was given, else the subject of the checkout's newest commit."""
    return journal.why(reason, os.environ, _git("log", "-1", "--format=%s"))


def revision(root: Path = door.ROOT) -> str:
    """The commit of this checkout, with `+changes` when files differ from it; empty without git."""
    return _git("describe", "--always", "--dirty=+changes", "--abbrev=12", root=root)


def _git(*arguments: str, root: Path = door.ROOT) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=root,
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
