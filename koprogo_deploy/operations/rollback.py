"""Taking a release back: what served before serves again, and the release is marked as bad."""

from __future__ import annotations

import shlex
from typing import Any

from koprogo_deploy.operations.cutover import START_TIMEOUT, place_dynamic, read_back
from koprogo_deploy.operations.migrate import POSTGRES_TIMEOUT
from koprogo_deploy.operations.shell import compose_up, container, wait_until_healthy
from koprogo_deploy.render import container_names
from koprogo_deploy.settings import Settings


def take_back_command(
    settings: Settings, serving: dict[str, Any], failed: dict[str, Any], reason: str
) -> str:
    """Routes first, then what cannot run twice; the new colours stop; the release is marked bad.

    Args:
        settings: for the paths and Traefik's address.
        serving: manifest of the release that counts; its colours were kept warm.
        failed: manifest of the release to take back.
        reason: one line, for whoever reads the mark.
    """
    root = settings.install_root
    directory = f"{root}/releases/{serving['id']}"
    mark = f"{root}/releases/{failed['id']}/bad"
    lines = [
        "set -e",
        place_dynamic(root, directory),
        read_back(settings, serving["colours"]),
    ]
    for service, timeout in (("traefik", START_TIMEOUT), ("postgres", POSTGRES_TIMEOUT)):
        if serving["specs"][service] != failed["specs"][service]:
            lines += [compose_up(directory, service), wait_until_healthy(service, timeout)]
    kept = set(container_names(serving["colours"]).values())
    new = sorted(set(container_names(failed["colours"]).values()) - kept)
    lines += [
        f"printf '%s\\n' {shlex.quote(reason)} > {mark}",
        f"rm -f {root}/candidate",
        # Stopped, not removed: their logs say what was wrong. The next deploy removes them.
        f"docker stop -t 35 {' '.join(map(container, new))} >/dev/null" if new else ":",
    ]
    return "\n".join(lines)
