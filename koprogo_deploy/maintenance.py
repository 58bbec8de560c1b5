"""Maintenance: Traefik itself answers 503 to everybody but listed addresses. Pure.

One more file beside the routes of a release, which no deploy touches: it stays through deploys,
restarts and reboots until it is taken away. A deploy that has to restart Postgres puts up a page
of its own for that time, above it: what was put up by hand is still there afterwards.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from koprogo_deploy.operations.shell import DRAIN, drained
from koprogo_deploy.render import short_hash, template, traefik_address
from koprogo_deploy.settings import Settings

HEADER = "X-Maintenance"  # tells our 503 from any other one, and carries the message
MESSAGE = "KoproGo is being maintained"
UPGRADING = "KoproGo's database is being upgraded"  # the page of a major version of Postgres up
RESTORING = "KoproGo's data is being restored"  # the page of a restore
RETURNING = "KoproGo goes back to an earlier state"  # the page of a rollback with its data
SECONDS = 10  # Traefik reads a changed file within 0.1

BY_HAND = "maintenance"  # names of the two pages: of their file, router and middleware
RESTART = "restart"
_PRIORITY = {BY_HAND: 100000, RESTART: 100001}
_WRITTEN = {
    BY_HAND: "koprogo maintenance on; koprogo maintenance off takes it away",
    RESTART: "a deploy that restarts Postgres; it takes it away, and so does a reboot",
}
ASK_AGAIN = 5  # seconds; a restart takes about so long


@dataclass(frozen=True)
class Maintenance:
    """What somebody switched on.

    Attributes:
        since: when, as ISO time.
        by: who.
        message: one line of ASCII, for a header.
        retry_after: seconds after which clients may ask again.
        allow: addresses and networks that pass.
    """

    since: str
    by: str
    message: str
    retry_after: int
    allow: tuple[str, ...]


def one_line(message: str) -> str:
    """A message as a header can carry it.

    Raises:
        ValueError: it is empty or not one line of ASCII; says what is right.
    """
    if "{{" in message or "}}" in message:  # Traefik takes what is between for a template
        raise ValueError("two braces have a meaning to Traefik; leave them out")
    if not message or not (message.isascii() and message.isprintable()):
        raise ValueError(f"{message!r} does not fit into a header; write one line of plain ASCII")
    return message


def rule(allow: tuple[str, ...]) -> str:
    """Traefik's rule for the requests that get 503."""
    return " && ".join(["PathPrefix(`/`)", *(f"!ClientIP(`{address}`)" for address in allow)])


def service(wanted: Maintenance, name: str = BY_HAND) -> str:
    """Name of Traefik's service: another one for other values."""
    return f"{name}-{short_hash(json.dumps(asdict(wanted)))}"


def render(wanted: Maintenance, name: str = BY_HAND) -> str:
    """The file, with all that was asked for on its first line."""
    return template(
        "traefik/maintenance.yaml",
        name=name,
        by_command=_WRITTEN[name],
        priority=_PRIORITY[name],
        about=json.dumps(asdict(wanted)),
        rule=rule(wanted.allow),
        service=service(wanted, name),
        retry_after=wanted.retry_after,
        header=HEADER,
        message=wanted.message,
    )


def parse(line: str) -> Maintenance:
    """Read the first line of the file, without its `# `."""
    values: Mapping[str, Any] = json.loads(line)
    return Maintenance(**{**values, "allow": tuple(values["allow"])})


def told(wanted: Maintenance) -> str:
    """What is on, in a line."""
    passing = ", ".join(wanted.allow) or "nobody"
    since = f"{wanted.since[:16].replace('T', ' ')} UTC"
    return f'maintenance is on since {since} by {wanted.by}: "{wanted.message}"; passes: {passing}'


def file(root: str, name: str = BY_HAND) -> str:
    """Where it lies on the host: Traefik reads every file of the directory."""
    return f"{root}/traefik/dynamic/{name}.yaml"


def _router(settings: Settings, name: str = BY_HAND) -> str:
    api = f"http://{traefik_address(settings.edge_network)}:8082/api/http/routers"
    return f"curl -s -m 2 {api}/{name}@file"


def _until(settings: Settings, condition: str, otherwise: str, name: str = BY_HAND) -> str:
    return f"""end=$(( $(date +%s) + {SECONDS} ))
until found=$({_router(settings, name)}); printf %s "$found" | {condition}; do
  [ "$(date +%s)" -lt "$end" ] || {{ echo {shlex.quote(otherwise)} >&2; exit 1; }}
  sleep 0.1
done"""


def on_command(settings: Settings, wanted: Maintenance) -> str:
    """Shell command that puts the file on its standard input in place, and reads back."""
    target = shlex.quote(file(settings.install_root))
    directory = shlex.quote(f"{settings.install_root}/traefik/dynamic")
    served = f'grep -q \'"service":"{service(wanted)}".*"status":"enabled"\''
    return f"""set -eu; umask 022; d={directory}
[ -d "$d" ] || {{ echo "nothing is deployed: there is no $d" >&2; exit 1; }}
cat > "$d/.maintenance"; sync "$d/.maintenance"; mv -T "$d/.maintenance" {target}
{_until(settings, served, "the file is in place, but Traefik does not serve it; does it run?")}"""


def off_command(settings: Settings) -> str:
    """Shell command that takes the file away, and reads back."""
    gone = "grep -q 'router not found'"
    told = "the file is gone, but Traefik does not say that its route is; does it run?"
    return f"""set -eu
rm -f {shlex.quote(file(settings.install_root))}
{_until(settings, gone, told)}"""


def during(settings: Settings, restart: str, by: str, now: datetime, backends: list[str]) -> str:
    """Shell commands that restart Postgres while everybody gets the page, and say for how long.

    No request is lost: new ones get 503 with Retry-After from the moment Traefik has read the
    page, and Postgres stops when those under way have ended. The page goes whatever happens to the
    restart; a machine that loses its power takes it away when it boots.

    Args:
        settings: for the paths and Traefik's address.
        restart: shell commands; they fail if Postgres is not well afterwards.
        by: who deploys.
        now: the present.
        backends: names of the containers whose requests are waited for.

    Returns:
        A subshell; prints `interrupted<TAB>seconds`.
    """
    since = now.isoformat(timespec="seconds")
    wanted = Maintenance(since, by, "Postgres restarts; ask again in a moment", ASK_AGAIN, ())
    page = shlex.quote(file(settings.install_root, RESTART))
    new = shlex.quote(f"{settings.install_root}/traefik/dynamic/.{RESTART}")
    served = f'grep -q \'"service":"{service(wanted, RESTART)}".*"status":"enabled"\''
    failed = "Traefik does not serve the maintenance page, so Postgres was not restarted"
    return f"""(
set -e
# Who started this may be gone: it goes on to its end all the same.
trap '' HUP PIPE; trap 'exit 143' INT TERM; trap 'rm -f {page}' EXIT
# What is written now need not be written while everybody waits.
timeout 60 docker exec koprogo-postgres-1 psql -XqAt -U postgres -c CHECKPOINT >/dev/null 2>&1 || :
printf %s {shlex.quote(render(wanted, RESTART))} > {new}
sync {new}; began=$(date +%s.%N); mv -T {new} {page}
{_until(settings, served, failed, RESTART)}
{drained(backends, f"$c is still at requests after {DRAIN} s")}
{restart}
rm -f {page}
printf 'interrupted\\t%s\\n' "$(awk "BEGIN {{print $(date +%s.%N) - $began}}")"
)"""


def look_command(settings: Settings) -> str:
    """Shell command that prints the file's first line, a tab, and what Traefik has of it."""
    path = shlex.quote(file(settings.install_root))
    return f"""printf '%s\\t' "$(head -n 1 {path} 2>/dev/null | cut -c3-)"
{_router(settings)}
true"""


@dataclass(frozen=True)
class Seen:
    """What was found on a host: the file, and whether Traefik does what it says.

    Attributes:
        wanted: None where there is no file.
        served: None where Traefik does not answer.
    """

    wanted: Maintenance | None
    served: bool | None

    @property
    def agreed(self) -> bool:
        """Traefik does what the file says."""
        return self.served == (self.wanted is not None)


def parse_look(output: str) -> Seen:
    """Read the output of `look_command`."""
    line, _, answer = output.partition("\t")
    wanted = parse(line) if line.strip() else None
    if not answer.strip():
        return Seen(wanted, None)
    if wanted is None:
        return Seen(None, "maintenance-" in answer)
    return Seen(wanted, f'"service":"{service(wanted)}"' in answer)


def ours(headers: Mapping[str, str]) -> bool:
    """Whether an answer is the maintenance page's and not the application's."""
    return HEADER.lower() in {name.lower() for name in headers}
