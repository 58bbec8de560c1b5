"""Looking at the host for a plan: the same looks as the stages', and more only where it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from pyinfra.api import FactBase

from koprogo_deploy import database, machine, seed
from koprogo_deploy.door import Environment
from koprogo_deploy.facts.details import Details, DetailsFact, Resolved
from koprogo_deploy.facts.host import Host, HostState
from koprogo_deploy.facts.stack import Database, Stack, StackState
from koprogo_deploy.files import RemoteFile, differing
from koprogo_deploy.plan import seeding
from koprogo_deploy.plan.make import kind_of, machine_changes, services_of, stops_of
from koprogo_deploy.plan.seen import Seen, host_files, readable
from koprogo_deploy.plan.wanted import known_digests, wanted_release
from koprogo_deploy.seed import Decision
from koprogo_deploy.settings import SERVICES, Settings


class Look(Protocol):
    """Asks a host for a fact."""

    def __call__(self, fact: type[FactBase], **arguments: Any) -> Any:  # noqa: ANN401
        """What the fact gives."""


def gather(
    look: Look,
    environment: Environment,
    sets: Mapping[str, Mapping[str, str]],
    images: Mapping[str, str] | None = None,
    secret_files: Sequence[RemoteFile] = (),
    seeds: bool = True,
    tags: Mapping[str, str] | None = None,
) -> Seen:
    """Look at the host; where nothing changes, at no more than a deploy looks at anyway.

    Args:
        look: asks the host.
        environment: what is wanted.
        sets: secret files by service.
        images: of the plan that this run has shown: they are taken as they are.
        secret_files: of the machine, that hold secrets.
        seeds: the run has a seed stage.
        tags: images that stay unresolved, unless group data or a manifest on the host has the
            digest.
    """
    settings = environment.settings
    host: HostState = look(Host, **machine.compared(settings))
    stack: StackState = look(Stack, root=settings.install_root)
    applied = migrations_of(look, host, stack)
    found = {**(tags or {}), **known_digests(settings, stack), **(images or {})}
    missing = [s for s in SERVICES if s not in found]
    if missing and stack.docker:
        asked = tuple(settings.image(s) for s in missing)
        digests: dict[str, str] = look(Resolved, references=asked)
        found |= {s: digests[settings.image(s)] for s in missing if settings.image(s) in digests}
    unresolved = tuple(s for s in SERVICES if "@" not in found.get(s, ""))
    complete = {**{s: settings.image(s) for s in unresolved}, **found}
    wanted = wanted_release(environment, sets, complete, stack)
    seeded = seeding_of(look, environment, stack) if seeds else None
    seen = Seen(host, stack, applied, wanted, unresolved, tuple(secret_files), seeded)
    if not changes_something(settings, seen):
        return seen
    files = host_files(settings, wanted, secret_files)
    changed = [file.path for file in differing(files, host.files) if readable(file)]
    live = stack.live
    other = live["id"] if live and live["hash"] != wanted.release.hash else ""
    details: Details = look(
        DetailsFact,
        root=settings.install_root,
        files=tuple(path for path in changed if path in host.files),
        release=other,
        images=tuple(complete[s] for s in SERVICES if s not in unresolved) if stack.docker else (),
        backend=complete["backend"] if stack.docker and "backend" not in unresolved else "",
    )
    return replace(seen, details=details)


def migrations_of(look: Look, host: HostState, stack: StackState) -> dict[str, bool] | None:
    """Migrations of the database; None where it does not run and there is data."""
    if _answers(stack):
        answer = look(Database, query=database.migrations_query())
        # A server that starts at this moment does not answer.
        return database.parse_migrations(answer.get("migrations")) if answer else None
    return None if host.postgres_version else {}


def seeding_of(look: Look, environment: Environment, stack: StackState) -> Decision | None:
    """What is done about the realistic data; None where none is wanted, or nobody can be asked."""
    if not environment.settings.seed_enabled:
        return None
    if stack.live is None:
        return seeding.LATER
    raw = look(Database, query=seed.STATE_SQL, owner=True) if _answers(stack) else None
    return seeding.decide(environment, raw) if raw else None


def _answers(stack: StackState) -> bool:
    running = stack.containers.get("postgres")
    return bool(running and running.status == "running")


def changes_something(settings: Settings, seen: Seen) -> bool:
    """Whether a deploy would do anything that is worth a look at the details."""
    services = services_of(settings, seen)
    changes = machine_changes(settings, seen)
    return bool(kind_of(seen, services, changes, stops_of(seen)))
