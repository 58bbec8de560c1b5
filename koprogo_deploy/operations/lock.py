"""One deploy at a time: a lock on the host that dies with the connection that holds it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from pyinfra import host, logger, state
from pyinfra.api import StringCommand
from pyinfra.api.exceptions import OperationError

from koprogo_deploy.data import host as data
from koprogo_deploy.operations import context
from koprogo_deploy.operations.record import deploy_name
from koprogo_deploy.operations.step import step
from koprogo_deploy.pyinfra_adapter import connection
from koprogo_deploy.settings import Settings

PATH = data.DEPLOY_LOCK
EARLIER = f"{data.EARLIER}deploy"
OLD_WORDS = "/run/lock/koprogo-deploy"  # in koprogo-data of that version, and not in today's

_held: dict[str, object] = {}  # by host name; the lock lasts as long as what is kept here


def lock_command(holder: str, wait: int, wait_for_data: int, root: str) -> str:
    """Shell command that takes the lock and keeps it until its standard input ends.

    Prints `held`, or `busy` and who holds it; before that `waiting` and who, for each backup or
    drill that it waits for. A deployer that is killed or cut off closes its connection, and with
    it this input: no lock is ever left behind.

    The lock of an earlier version is taken as well, where a program of that version has it or may
    still come for it. It lies where everybody may write: only a file of root's counts, which nobody
    else can remove there, and only a holder that root wrote down is waited for.

    Args:
        holder: who deploys and since when, for the others to read.
        wait: seconds to wait for another deploy.
        wait_for_data: seconds to wait for backups and drills.
        root: the install root, where `koprogo-data` of an earlier version may lie.
    """
    at_the_data = "|".join(f'"{begin}"*' for begin in data.AT_THE_DATA)
    program = f"{root}/data/lib/koprogo_deploy/data/host.py"
    script = f"""umask 077; mkdir -p {data.RUN}; other=0; data=0; told=; old={EARLIER}
ours() {{ [ -f "$1" ] && [ ! -L "$1" ] && [ "$(stat -c %u "$1")" = "$(id -u)" ]; }}
get() {{
  until flock -w 1 $1; do
    holder=; ours $2.holder && holder=$(cat $2.holder)
    [ $1 = 8 ] && [ -z "$holder" ] && return 1
    case $holder in
      {at_the_data})
        [ "$told" = "$holder" ] || echo "waiting $holder"
        told=$holder; data=$((data + 1)); [ $data -lt {wait_for_data} ] && continue ;;
      *)
        other=$((other + 1)); [ $other -lt {wait} ] && continue ;;
    esac
    [ $1 = 9 ] || rm -f {PATH}.holder
    echo "busy $holder"; exit
  done
}}
new() {{ rm -rf $old; ( set -C; : > $old ) 2>/dev/null && exec 8<$old && flock -n 8; }}
exec 9>>{PATH}; get 9 {PATH}
printf '%s\n' {shlex.quote(holder)} > {PATH}.holder
if ours $old; then exec 8<$old; get 8 $old || new; else ! grep -qs {OLD_WORDS} {program} || new; fi
! ours $old || {{ chmod 600 $old; rm -f $old.holder; }}
echo held; cat >/dev/null; rm -f {PATH}.holder"""
    return f"sudo -n sh -c {shlex.quote(script)} 2>&1"


def answer(lines: Iterable[str], waiting: Callable[[str], None]) -> str:
    """The line that says whether the lock is held; else whatever the other end said last."""
    last = ""
    for line in lines:
        last = line.strip() or last
        kind, _, holder = last.partition(" ")
        if kind == "waiting":
            waiting(holder)
        elif kind in ("held", "busy"):
            return last
    return last


def refusal(answer: str, host: str, settings: Settings) -> str:
    """Why the lock was not given, and what to do about it. Pure."""
    if answer.partition(" ")[0] != "busy":
        said = answer or "the host said nothing"
        return (
            f"nobody could ask {host} whether another deploy is running: {said}. Nothing was "
            "touched. The user needs to be root, or sudo without a password: on the host, "
            "sudo -n true says whether that works"
        )
    other = answer.removeprefix("busy").strip() or "nobody could say who"
    if data.is_at_the_data(other):
        return (
            f"{other} is still running on {host} after {settings.backup_wait} s. Nothing was "
            "touched. Run it again later, or give --data backup_wait=30min"
        )
    return (
        f"another deploy is running on {host}: {other}. Nothing was touched. "
        "Wait for it, or give --data lock_wait=10min"
    )


def _say(holder: str) -> None:
    longest = context.current().settings.backup_wait
    logger.warning("    %s is running: waiting for it to end, %s s at most", holder, longest)


def say_who_is_at_work(host: Any) -> None:  # noqa: ANN401 - pyinfra's own type
    """Say which command works on the host's data now: whatever else does waits for it."""
    script = f"flock -n {data.DATA_LOCK} true || cat {data.DATA_LOCK}.holder"
    _, output = host.run_shell_command(StringCommand(f"sudo -n sh -c {shlex.quote(script)}"))
    if holder := output.stdout.strip():
        _say(holder)


@step
def one_at_a_time() -> Iterator[str]:
    """Hold the lock for the rest of the run; refuse if another deploy holds it. Changes nothing.

    A backup or a drill that holds it ends by itself: it is waited for, and that is said.
    """
    if not state.is_executing or host.name in _held:
        return
    settings = context.current().settings
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    own = f"{context.who()} since {since}"
    if deploy_name() == "backup":
        own = data.holder("backup", context.who())
    command = lock_command(own, settings.lock_wait, settings.backup_wait, settings.install_root)
    longest = settings.lock_wait + settings.backup_wait + 30
    keeper, lines = connection.begin(host, command, longest)
    said = answer(lines, _say)
    if said != "held":
        raise OperationError(refusal(said, host.name, settings))
    _held[host.name] = keeper
    context.hold(own)
    host.noop("no other deploy is running")
    return
    yield
