"""What a plan rests on, and what differs between two looks at it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from koprogo_deploy import machine
from koprogo_deploy.facts.details import Details
from koprogo_deploy.facts.host import HostState
from koprogo_deploy.facts.stack import StackState
from koprogo_deploy.files import RemoteFile
from koprogo_deploy.plan.wanted import Wanted
from koprogo_deploy.seed import Decision
from koprogo_deploy.settings import Settings

# Parts of the state that a run does not change itself before it pushes its release.
LASTING = ("serving release", "counting release", "pushed release", "routes", "migrations")


@dataclass(frozen=True)
class Seen:
    """The host as it was seen, and the release that follows.

    Attributes:
        machine: files, packages, memory.
        stack: releases, containers, routes.
        applied: migrations of the database; None: it does not run, so they are not known.
        wanted: the release that the settings ask for.
        unresolved: services whose tag no registry could be asked about.
        secret_files: of the machine, beside those that the settings alone give.
        seeding: what is done about the realistic data; None where the environment wants none, or
            the database does not answer.
        details: what is read only where something changes.
    """

    machine: HostState
    stack: StackState
    applied: Mapping[str, bool] | None
    wanted: Wanted
    unresolved: tuple[str, ...] = ()
    secret_files: tuple[RemoteFile, ...] = ()
    seeding: Decision | None = None
    details: Details = field(default_factory=Details)


def host_files(
    settings: Settings, wanted: Wanted, secret: Sequence[RemoteFile] = ()
) -> list[RemoteFile]:
    """Every file of the machine that a deploy compares.

    Args:
        settings: what is wanted.
        wanted: its Traefik's image is noted in a file.
        secret: files of root's that hold secrets.
    """
    return [
        *secret,
        *machine.host_files(settings),
        machine.daemon_file(),
        machine.container_units_file(),
        *machine.binary_files(settings),
        machine.image_note(settings, wanted.release.images["traefik"]),
        *machine.backup_units(settings),
    ]


def readable(file: RemoteFile) -> bool:
    """Whether everybody on the host may read it: what others may not is never shown."""
    return int(file.mode, 8) & 0o004 != 0


def facets(seen: Seen) -> dict[str, Any]:
    """The state that a plan rests on, part by part, as JSON has it."""
    return {
        **stack_facets(seen.stack, seen.applied),
        "files of the machine": dict(sorted(seen.machine.files.items())),
        "packages": sorted(seen.machine.packages),
        "memory": seen.machine.memory,
        "seed": seen.seeding.action if seen.seeding else None,
    }


def stack_facets(stack: StackState, applied: Mapping[str, bool] | None) -> dict[str, Any]:
    """Those parts that are of the stack."""
    live = stack.live
    return {
        "serving release": live["id"] if live else None,
        "counting release": stack.current["id"] if stack.current else None,
        "pushed release": stack.candidate["id"] if stack.candidate else None,
        "releases marked as bad": sorted(stack.marked),
        "routes": stack.dynamic,
        "containers": {
            name: f"{found.spec} {'serving' if found.serving else found.status}"
            for name, found in sorted(stack.containers.items())
        },
        "images": dict(sorted(live["images"].items())) if live else {},
        "secrets": sorted(stack.secrets),
        "migrations": None if applied is None else sorted(applied),
    }


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], own: Mapping[str, str] | None = None
) -> list[str]:
    """What changed on the host between two looks, in words; empty if nothing did.

    Args:
        before: `facets` when the plan was made.
        now: `facets` now.
        own: secret directories of this run, by service, in the course of one: what it changes
            itself until it pushes its release is left out.
    """
    old, new = dict(before), dict(now)
    if own is not None:
        old, new = (_lasting(each, own) for each in (old, new))
    found: list[str] = []
    for part in sorted({*old, *new}):
        found += _differs(part, old.get(part), new.get(part))
    return found


def _lasting(parts: Mapping[str, Any], own: Mapping[str, str]) -> dict[str, Any]:
    kept = {name: parts[name] for name in LASTING}
    # An engine that was restarted has its containers' health to find out again.
    kept["containers"] = {
        name: state.partition(" ")[0] for name, state in parts["containers"].items()
    }
    kept["secrets"] = sorted(set(parts["secrets"]) - set(own.values()))
    return kept


def _differs(part: str, old: object, new: object) -> list[str]:
    if old == new or (part in ("migrations", "seed") and None in (old, new)):
        return []  # a database that did not answer, or was not asked, is not another one
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                found.append(f"{part}: {key}: {_short(old.get(key))} -> {_short(new.get(key))}")
        return found
    if isinstance(old, list) and isinstance(new, list):
        found = [f"{part}: {item} is there now" for item in new if item not in old]
        return found + [f"{part}: {item} is gone" for item in old if item not in new]
    return [f"{part}: {_short(old)} -> {_short(new)}"]


def _short(value: object) -> str:
    if value is None or value == "":
        return "none"
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
