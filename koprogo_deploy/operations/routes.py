"""Traefik's routes: put in place by an atomic rename, read back; and a release taken back."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from koprogo_deploy.operations.shell import compose_up, container, stop, wait_until_healthy
from koprogo_deploy.render import container_names, traefik_address
from koprogo_deploy.settings import Settings

POSTGRES_TIMEOUT = 180  # seconds, the first start of an empty data directory included
START_TIMEOUT = 60  # seconds, frontend and Traefik


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
  end=$(( $(date +%s) + 10 ))
  while :; do
    found=$(curl -s -m 2 {api}/$1@file | grep -o '"url":"[^"]*"' | sort -u)
    [ "$found" = "\\"url\\":\\"$2\\"" ] && return 0
    [ "$(date +%s)" -lt "$end" ] || break
    sleep 0.1
  done
  echo "Traefik does not serve $1 from $2 but from: ${{found:-nothing}}" >&2
  docker logs --tail 10 {container("traefik")} >&2
  return 1
}}
{checks}"""


def back_command(settings: Settings, serving: Mapping[str, Any]) -> str:
    """Requests go to this release again, whose colours were kept warm; Traefik says so."""
    directory = f"{settings.install_root}/releases/{serving['id']}"
    place = place_dynamic(settings.install_root, directory)
    return f"set -e\n{place}\n{read_back(settings, serving['colours'])}"


def put_away_command(
    settings: Settings,
    serving: Mapping[str, Any],
    failed: Mapping[str, Any],
    reason: str,
    unmark: bool = False,
) -> str:
    """A failed release without traffic goes: what cannot run twice is as before, it is marked bad.

    Args:
        settings: for the paths.
        serving: manifest of the release that serves.
        failed: manifest of the one to put away; its colours stop, and stay for their logs.
        reason: one line, for whoever reads the mark.
        unmark: a rollback to `failed` had marked `serving`; that is over.
    """
    root = settings.install_root
    directory = f"{root}/releases/{serving['id']}"
    lines = ["set -e"]
    for service, timeout in (("traefik", START_TIMEOUT), ("postgres", POSTGRES_TIMEOUT)):
        if serving["specs"][service] != failed["specs"][service]:
            lines += [compose_up(directory, service), wait_until_healthy(service, timeout)]
    kept = set(container_names(serving["colours"]).values())
    new = sorted(set(container_names(failed["colours"]).values()) - kept)
    lines += [
        f"printf '%s\\n' {shlex.quote(reason)} > {root}/releases/{failed['id']}/bad",
        f"rm -f {root}/candidate",
        f"rm -f {directory}/bad" if unmark else ":",
        stop(*new) if new else ":",
    ]
    return "\n".join(lines)
