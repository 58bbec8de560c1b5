"""What cannot be switched: Postgres restarts behind the maintenance page, Traefik in the open.

How long requests were interrupted is measured on the host, said, and written to the journal: the
next plan expects what was measured.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import UTC, datetime

from pyinfra import host as current_host
from pyinfra import logger
from pyinfra.api import FunctionCommand, StringCommand

from koprogo_deploy import maintenance
from koprogo_deploy.facts.stack import StackState
from koprogo_deploy.operations import context
from koprogo_deploy.operations.notes import interrupted
from koprogo_deploy.operations.shell import container
from koprogo_deploy.operations.step import said, why_failed
from koprogo_deploy.pyinfra_adapter import commands
from koprogo_deploy.settings import Settings

ANSWERS_WITHIN = 10  # seconds, Traefik after its start


def behind_the_page(settings: Settings, found: StackState, restart: str) -> str:
    """Shell commands that restart Postgres while everybody gets 503 with Retry-After.

    Without a proxy that serves there is nobody to tell: then it is just restarted.
    """
    traefik = found.containers.get("traefik")
    if found.live is None or traefik is None or not traefik.serving:
        return restart
    backends = [container(name) for name in found.containers if name.startswith("backend-")]
    now = datetime.now(UTC)
    return maintenance.during(settings, restart, context.who(), now, backends)


def timed(command: str, service: str, meanwhile: str) -> FunctionCommand:
    """Run a command whose output may have a line `interrupted<TAB>seconds`; say and remember it.

    Args:
        command: shell; its complaints are shown.
        service: which one is restarted.
        meanwhile: what requests got, for the line that says so.
    """
    return commands.calling(_running(command, service, meanwhile))


def _running(command: str, service: str, meanwhile: str) -> Callable[[object], bool]:
    def run(_host: object) -> bool:
        line = f"sudo -n sh -c {shlex.quote(command)}"
        ok, output = current_host.run_shell_command(StringCommand(line))
        for complaint in output.stderr_lines:
            (logger.warning if ok else logger.error)("    %s", complaint)
        if not ok and (words := why_failed(output.stderr_lines)):
            said.append(words)
        for told in output.stdout_lines:
            word, _, seconds = told.partition("\t")
            if word != "interrupted":
                logger.info("    %s", told)
                continue
            interrupted(service, float(seconds))
            logger.info("    %s for %.1f s", meanwhile, float(seconds))
        return bool(ok)

    return run


def watched(domain: str, restart: str) -> str:
    """Shell commands that restart Traefik, and measure for how long it answers nothing.

    Args:
        domain: a name that it serves.
        restart: shell commands.
    """
    url = shlex.quote(f"https://{domain}/")
    resolve = shlex.quote(f"{domain}:443:127.0.0.1")
    return f"""(
set -e
seen=$(mktemp)
( while :; do
    s=no; curl -sko /dev/null -m 1 --resolve {resolve} {url} && s=yes
    echo "$(date +%s.%N) $s"; sleep 0.05
  done ) > "$seen" 2>/dev/null &
watcher=$!
trap 'kill $watcher 2>/dev/null; rm -f "$seen"' EXIT
more() {{  # it answers once more than this often, within so many seconds
  ends=$(( $(date +%s) + $2 ))
  until [ "$(grep -c yes "$seen")" -gt "$1" ]; do
    [ "$(date +%s)" -lt "$ends" ] || return 1
    sleep 0.05
  done
}}
more 0 2 || :
{restart}
# What then judges whether it serves comes later: a certificate may have to be issued first.
more "$(grep -c yes "$seen")" {ANSWERS_WITHIN} || exit 0
awk '$2 == "yes" {{ if (down) total += $1 - last; down = 0; last = $1 }}
  $2 == "no" {{ down = last > 0 }} END {{ printf "interrupted\\t%.2f\\n", total }}' "$seen"
)"""
