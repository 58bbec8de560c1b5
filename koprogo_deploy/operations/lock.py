"""One deploy at a time: a lock on the host that dies with the connection that holds it."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from pyinfra import host, state
from pyinfra.api.exceptions import OperationError

from koprogo_deploy.operations import context
from koprogo_deploy.operations.step import step

PATH = "/run/lock/koprogo-deploy"

_held: dict[str, Any] = {}  # by host name; the lock lasts as long as what is kept here


def lock_command(holder: str, wait: int) -> str:
    """Shell command that takes the lock and keeps it until its standard input ends.

    Prints `held`, or `busy` and who holds it. A deployer that is killed or cut off closes its
    connection, and with it this input: no lock is ever left behind.

    Args:
        holder: who deploys and since when, for the others to read.
        wait: seconds to wait for a lock that is taken.
    """
    script = (
        f"exec 9>>{PATH}; "
        f'if flock -w {wait} 9; then printf "%s\\n" {shlex.quote(holder)} > {PATH}.holder; '
        f"echo held; cat >/dev/null; rm -f {PATH}.holder; "
        f'else echo "busy $(cat {PATH}.holder)"; fi'
    )
    return f"sudo -n sh -c {shlex.quote(script)}"


def take(command: str, connector: Any, timeout: int) -> tuple[Any, str]:  # noqa: ANN401
    """Run the command beside pyinfra's own ones and read its first line.

    Returns:
        What keeps the lock (a channel of the SSH connection, or a process), and the line.
    """
    client = getattr(connector, "client", None)
    if client is None:  # pyinfra's local connector: the deploy runs on its own target
        process = subprocess.Popen(
            ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, process.stdout.readline().strip()
    channel = client.get_transport().open_session()
    channel.settimeout(timeout)
    channel.exec_command(command)
    return channel, channel.makefile().readline().strip()


@step
def one_at_a_time() -> Iterator[str]:
    """Hold the lock for the rest of the run; refuse if another deploy holds it. Changes nothing."""
    if not state.is_executing or host.name in _held:
        return
    wait = context.current().settings.lock_wait
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    keeper, answer = take(
        lock_command(f"{context.who()} since {since}", wait), host.connector, timeout=wait + 30
    )
    if answer != "held":
        other = answer.removeprefix("busy").strip() or "nobody could say who"
        raise OperationError(
            f"another deploy is running on {host.name}: {other}. Nothing was touched. "
            "Wait for it, or give --data lock_wait=10min"
        )
    _held[host.name] = keeper
    host.noop("no other deploy is running")
    return
    yield
