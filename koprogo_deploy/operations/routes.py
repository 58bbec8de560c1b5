"""Traefik's routes: put in place by an atomic rename, read back; and a release taken back."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from koprogo_deploy import maintenance
from koprogo_deploy.data.host import DEPLOY_LOCK
from koprogo_deploy.facts.stack import StackState
from koprogo_deploy.operations import context
from koprogo_deploy.operations.shell import (
    compose_up,
    container,
    little_room,
    stop,
    wait_until_healthy,
)
from koprogo_deploy.render import container_names, traefik_address
from koprogo_deploy.settings import SWITCHED, Settings

POSTGRES_TIMEOUT = 600  # seconds: on a slow host a new cluster, or what a crash left, takes minutes
START_TIMEOUT = 180  # seconds, frontend and Traefik: on a slow host
WARM_TIMEOUT = 45  # seconds, a colour that was kept warm and has ended meanwhile


def place_dynamic(root: str, directory: str) -> str:
    """Put the release's dynamic file in Traefik's directory by an atomic rename."""
    # Traefik reads *.yaml only: the name before the rename is invisible to it.
    return (
        f"install -m 644 {directory}/traefik/dynamic.yaml {root}/traefik/dynamic/.new && "
        f"sync {root}/traefik/dynamic/.new && "
        f"mv -T {root}/traefik/dynamic/.new {root}/traefik/dynamic/dynamic.yaml"
    )


def read_back(settings: Settings, colours: Mapping[str, str]) -> str:
    """Ask Traefik until it serves these colours; after 10 s fail and say what it serves."""
    names = container_names(dict(colours))
    api = f"http://{traefik_address(settings.edge_network)}:8082/api/http/services"
    checks = "\n".join(
        f"serves {service} http://{names[service]}:{port}"
        for service, port in (("backend", 8080), ("frontend", 80))
    )
    return f"""
serves() {{
  end=$(( $(date +%s) + 60 ))
  while :; do
    found=$(curl -s -m 2 {api}/$1@file | grep -o '"url":"[^"]*"' | sort -u)
    [ "$found" = "\\"url\\":\\"$2\\"" ] && return 0
    [ "$(date +%s)" -lt "$end" ] || break
    sleep 0.1
  done
  echo "Traefik does not serve $1 from $2 but from: ${{found:-nothing}}" >&2
  docker logs --tail 10 {container("traefik")} 2>&1 | sed 's/^/    | /' >&2
  return 1
}}
{checks}"""


def warm_command(serving: Mapping[str, Any], failed: Mapping[str, Any]) -> str:
    """The colours to go back to run; one that does not is started again and waited for.

    Fails, and says why, where one does not come up: then nothing is to be routed there. So it is
    where a migration was made that it does not know, and it was started again since.

    Args:
        serving: manifest of the release to go back to.
        failed: manifest of the one to leave; what both have is not touched.
    """
    names, others = container_names(serving["colours"]), container_names(failed["colours"])
    form = "{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}"
    lines = ["set -e"]
    for service in SWITCHED:
        if names[service] == others[service]:
            continue
        name = container(names[service])
        lines.append(f"""state=$(docker inspect -f '{form}' {name} 2>/dev/null) || state=gone
case $state in
  "running healthy"|"running ") ;;
  *)
    [ "$state" = "running starting" ] || docker restart -t 5 {name} >/dev/null
    {wait_until_healthy(names[service], WARM_TIMEOUT, settle=2, stop_failed=True)} ;;
esac""")
    return "\n".join(lines)


def back_command(
    settings: Settings,
    serving: Mapping[str, Any],
    failed: Mapping[str, Any],
    reason: str,
    unmark: bool = False,
) -> str:
    """Requests go to this release again, whose colours were kept warm; Traefik says so.

    A failed one is marked as soon as the routes are back: whatever ends this afterwards, nothing
    deploys it again by itself. A Traefik that is not this release's own may be what fails, and
    then answers nobody: this release's own comes first.

    Args:
        settings: for the paths.
        serving: manifest of the release to go back to.
        failed: manifest of the one to leave.
        reason: one line, for whoever reads the mark; empty: it is not to blame, and not marked.
        unmark: a rollback to `failed` had marked `serving`; that is over.
    """
    directory = f"{settings.install_root}/releases/{serving['id']}"
    lines = [
        "set -e",
        place_dynamic(settings.install_root, directory),
        given_up(settings.install_root, serving, failed, reason, unmark),
    ]
    if serving["specs"]["traefik"] != failed["specs"]["traefik"]:
        lines.append(traefik_up(settings, directory))
    return "\n".join([*lines, read_back(settings, serving["colours"])])


def put_away_command(
    settings: Settings,
    serving: Mapping[str, Any],
    failed: Mapping[str, Any],
    reason: str,
    unmark: bool = False,
) -> str:
    """A failed release without traffic goes: it is marked, what cannot run twice is as before.

    Args:
        settings: for the paths.
        serving: manifest of the release that serves.
        failed: manifest of the one to put away; its colours stop, and stay for their logs.
        reason: one line, for whoever reads the mark; empty: it is not to blame, and not marked.
        unmark: a rollback to `failed` had marked `serving`; that is over.
    """
    root = settings.install_root
    directory = f"{root}/releases/{serving['id']}"
    # First the mark: what follows may fail, or be cut.
    lines = ["set -e", given_up(root, serving, failed, reason, unmark)]
    if serving["specs"]["traefik"] != failed["specs"]["traefik"]:
        lines.append(traefik_up(settings, directory))
    if serving["specs"]["postgres"] != failed["specs"]["postgres"]:
        healthy = wait_until_healthy("postgres", POSTGRES_TIMEOUT)
        up = f"{compose_up(directory, 'postgres')}\n{healthy}"
        both = {container(container_names(m["colours"])["backend"]) for m in (serving, failed)}
        now = datetime.now(UTC)
        lines.append(maintenance.during(settings, up, context.who(), now, sorted(both)))
    kept = set(container_names(serving["colours"]).values())
    new = sorted(set(container_names(failed["colours"]).values()) - kept)
    lines.append(stop(*new) if new else ":")
    return "\n".join(lines)


def given_up(
    root: str, serving: Mapping[str, Any], failed: Mapping[str, Any], reason: str, unmark: bool
) -> str:
    """Mark a release as bad; it is no candidate any more. The mark is on the disk before that.

    Without a reason it is not marked: the next run may try it again.
    """
    lines = [mark_bad(root, failed["id"], reason)] if reason else []
    lines.append(f"rm -f {root}/candidate")
    if unmark:
        lines.append(f"rm -f {root}/releases/{serving['id']}/bad")
    return "\n".join(lines)


def mark_bad(root: str, identity: str, reason: str) -> str:
    """Have nothing deploy a release by itself, for a reason of one line."""
    file = f"{root}/releases/{identity}/bad"
    line = " ".join(reason.split())  # a mark is read by lines and tabs
    return f"printf '%s\\n' {shlex.quote(line)} > {file} && sync {file}"


def traefik_answers(settings: Settings) -> str:
    """Shell command that succeeds when Traefik has taken its static configuration and runs."""
    return f"curl -fso /dev/null -m 2 http://{traefik_address(settings.edge_network)}:8082/ping"


def traefik_up(settings: Settings, directory: str) -> str:
    """Run Traefik as a release says, until it answers."""
    answers = traefik_answers(settings)
    wait = wait_until_healthy("traefik", START_TIMEOUT, answers=answers)
    return f"{compose_up(directory, 'traefik')}\n{wait}"


def to_blame() -> str:
    """Shell condition: what failed is the release's own doing, and no other run is at work.

    A shell whose deployer was killed goes on: by then the next run may be at the same release. A
    disk without room is the host's, and so is a Postgres that does not answer.
    """
    holder = f"cat {DEPLOY_LOCK}.holder 2>/dev/null"
    return (
        f'case "$({holder})" in ""|{shlex.quote(context.holder())}) : ;; *) false ;; esac && '
        f'[ -z "$({{ {little_room()}; }} 2>&1)" ]'
    )


def postgres_ready() -> str:
    """Shell condition: Postgres answers; without it no backend does."""
    ready = f"docker exec {container('postgres')} pg_isready -q -h 127.0.0.1 -U koprogo"
    return f"{ready} >/dev/null 2>&1"


def same_postgres(started: str) -> str:
    """Shell condition: Postgres was not started again since.

    Args:
        started: when its container was, as the engine writes it.
    """
    now = f"docker inspect -f '{{{{.State.StartedAt}}}}' {container('postgres')} 2>/dev/null"
    return f'[ "$({now})" = {shlex.quote(started)} ]'


def not_marked(identity: str) -> str:
    """What is said of a release that fails, and is not to blame."""
    return (
        f"release {identity} is not marked as bad: the host has no room, its Postgres does not "
        "answer, or another run is at work. Run it again once this is mended"
    )


def or_put_away(
    settings: Settings, found: StackState, failed: Mapping[str, Any], service: str, up: str
) -> str:
    """Bring up a service of a release without traffic; if that fails, put the release away.

    Then the command fails: what served goes on serving, and nothing tries this release again by
    itself. One that fails for a reason of the host's is neither marked nor put away; only Traefik
    is started again as it was, since without it nothing answers.

    Args:
        settings: for the paths.
        found: what is deployed.
        failed: manifest of the release.
        service: which one of it.
        up: shell commands that start it and wait for it.
    """
    live = found.live
    if live is None or live["specs"][service] == failed["specs"][service]:
        return up  # nothing to go back to, or it is what serves that does not come up
    name = "Traefik" if service == "traefik" else f"its new {service}"
    reason = f"not routed {context.minute()}: {name} did not come up"
    back = context.going_back() is not None
    put_away = put_away_command(settings, live, failed, reason, unmark=back)
    again = ":"
    if service == "traefik":
        again = traefik_up(settings, f"{settings.install_root}/releases/{live['id']}")
    told = (
        f"release {failed['id']} gets no traffic and is marked as bad; {live['id']} serves as "
        "before. It is not deployed again as it is: change something, or give --data "
        "retry_bad_release=true"
    )
    return f"""set +e; ( set -e
{up}
); failed=$?; set -e
if [ "$failed" != 0 ]; then
  if {{ {to_blame()}; }} && {postgres_ready()}; then
{put_away}
    echo {shlex.quote(told)} >&2
  else
{again}
    echo {shlex.quote(not_marked(failed["id"]))} >&2
  fi
  exit 1
fi"""
