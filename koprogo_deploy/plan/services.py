"""Each service of the wanted release against what runs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from koprogo_deploy.facts.stack import Container
from koprogo_deploy.plan.model import Action, Service
from koprogo_deploy.render import Release, container_names
from koprogo_deploy.settings import SERVICES, SWITCHED


def changes(
    live: Mapping[str, Any] | None,
    release: Release,
    requested: Mapping[str, str],
    containers: Mapping[str, Container],
) -> list[Service]:
    """What happens to each service: the wanted release against the live one.

    Args:
        live: manifest of the serving release; None on an empty host.
        release: the rendered release, colours chosen.
        requested: the image each service asks for, by tag as people know it.
        containers: running containers by Compose service.
    """
    names = container_names(release.colours)
    found: list[Service] = []

    def happens(name: str, action: Action, *reasons: str) -> None:
        colour = release.colours.get(name, "")
        container = names[name]
        found.append(
            Service(name=name, action=action, container=container, colour=colour, reasons=reasons)
        )

    for service in SERVICES:
        container = containers.get(names[service])
        old = (live or {}).get("definitions", {}).get(service)
        if live is None or old is None:
            happens(service, "start")
        elif service not in SWITCHED and _runs(container, release.specs[service]):
            happens(service, "keep")
        elif release.specs[service] != live["specs"][service]:
            action: Action = "switch" if service in SWITCHED else "recreate"
            before, after = old, release.definitions[service]
            if live["requested"][service] != requested[service]:  # by tag, as people know it
                before = {**before, "image": live["requested"][service]}
                after = {**after, "image": requested[service]}
            happens(service, action, *differences(before, after))
        elif container is None:
            happens(service, "start", "its container is gone")
        elif not container.serving:
            state = f"{container.status} {container.health}".strip()
            happens(service, "restart", f"its container is {state}")
        elif container.spec != release.specs[service]:
            # A run was cut after it was recreated, and its release does not count.
            happens(service, "recreate", "it runs, and not as the serving release says")
        else:
            happens(service, "keep")
    return found


def old_containers(containers: Iterable[str], colours: Mapping[str, str]) -> list[str]:
    """Compose services of the project that a release of these colours does not have."""
    return sorted(set(containers) - set(container_names(colours).values()))


def _runs(container: Container | None, spec: str) -> bool:
    return bool(container and container.serving and container.spec == spec)


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
            # They lie together in a directory that is named by all of them.
            which = "one or more of " if len(names) > 1 else ""
            yield f"secrets: {which}{', '.join(names)} changed"
        else:
            for before, after in zip(gone, come, strict=False):
                # Its directory is named by its content; the files' own diffs say more.
                ours = path == "volumes" and "/config/" in before and "/config/" in after
                yield "its configuration files" if ours else f"{path}: {before} -> {after}"
            for item in gone[len(come) :]:
                yield f"{path}: without {item}"
            for item in come[len(gone) :]:
                yield f"{path}: with {item}"
    elif old != new:
        yield f"{path}: {'(none)' if old is None else old} -> {'(none)' if new is None else new}"
