"""What a deploy would do: each service of the wanted release against what runs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from koprogo_deploy.facts.stack import Container
from koprogo_deploy.render import Release, container_names
from koprogo_deploy.settings import SERVICES, SWITCHED

INTERRUPTION = {
    "traefik": "about 1 s without an answer while the proxy restarts",
    "postgres": "requests wait or fail for a few seconds while Postgres restarts",
}


@dataclass(frozen=True)
class Change:
    """What happens to one service.

    Attributes:
        service: its name.
        action: `keep`, `start`, `switch` (a new colour beside the old one) or `recreate`.
        detail: the new colour, or empty.
        interruption: what users may notice; empty when nothing.
        reasons: `key: old -> new` for each part of the definition that differs.
    """

    service: str
    action: str
    detail: str
    interruption: str
    reasons: tuple[str, ...]


def changes(
    live: Mapping[str, Any] | None,
    release: Release,
    requested: Mapping[str, str],
    containers: Mapping[str, Container],
) -> list[Change]:
    """Compare the wanted release with the live one.

    Args:
        live: manifest of the serving release; None on an empty host.
        release: the rendered release, colours chosen.
        requested: the image each service asks for, by tag as people know it.
        containers: running containers by Compose service.
    """
    names = container_names(release.colours)
    found = []
    for service in SERVICES:
        container = containers.get(names[service])
        old = (live or {}).get("definitions", {}).get(service)
        detail = release.colours.get(service, "")
        if live is None or old is None:
            found.append(Change(service, "start", detail, "", ()))
        elif release.specs[service] != live["specs"][service]:
            action = "switch" if service in SWITCHED else "recreate"
            before = {**old, "image": live["requested"][service]}
            after = {**release.definitions[service], "image": requested[service]}
            reasons = tuple(differences(before, after))
            found.append(Change(service, action, detail, INTERRUPTION.get(service, ""), reasons))
        elif container is None or not container.serving:
            state = container.status if container else "gone"
            found.append(Change(service, "start", detail, "", (f"its container is {state}",)))
        else:
            found.append(Change(service, "keep", detail, "", ()))
    return found


def differences(old: object, new: object, path: str = "") -> Iterator[str]:
    """Readable differences between two service definitions: `mem_limit: 32MB -> 40MB`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            inner = f"{path}.{key}" if path else key
            yield from differences(old.get(key), new.get(key), inner)
    elif isinstance(old, list) and isinstance(new, list):
        gone = [item for item in old if item not in new]
        come = [item for item in new if item not in old]
        if path == "secrets" and (gone or come):
            names = sorted({str(item).rpartition("/")[2] for item in [*gone, *come]})
            yield f"secrets: {', '.join(names)} changed"
        else:
            for before, after in zip(gone, come, strict=False):
                yield f"{path}: {before} -> {after}"
            for item in gone[len(come) :]:
                yield f"{path}: without {item}"
            for item in come[len(gone) :]:
                yield f"{path}: with {item}"
    elif old != new:
        yield f"{path}: {'(none)' if old is None else old} -> {'(none)' if new is None else new}"
