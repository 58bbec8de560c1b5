"""Hosts as a plan may find them, made up: empty, and one that serves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from koprogo_deploy import machine, render, seed
from koprogo_deploy.door import Environment
from koprogo_deploy.facts.details import Details, DetailsFact, Resolved
from koprogo_deploy.facts.host import Host, HostState
from koprogo_deploy.facts.stack import Container, Database, Stack, StackState
from koprogo_deploy.operations import context
from koprogo_deploy.plan import gather, make
from koprogo_deploy.plan.model import Plan
from koprogo_deploy.plan.seen import Seen, host_files
from koprogo_deploy.plan.wanted import Wanted, dynamic_hash
from koprogo_deploy.problems import Problem
from koprogo_deploy.secrets import Secrets
from koprogo_deploy.settings import Settings
from koprogo_deploy.units import GB
from tests import project

MIGRATIONS = ["20240101000000_create_extensions.sql", "20240102000000_create_users.sql"]
APPLIED = {"20240101000000": True, "20240102000000": True}
BASE = project.settings(swap=None)
SEEDED = {
    "schema": True,
    "counts": {
        "organizations": 3,
        "users": 4,
        "buildings": 23,
        "units": 193,
        "owners": 128,
        "expenses": 68,
    },
    "organization_ids": [str(seed.seed_uuid("organization", 1, 1, n)) for n in range(3)],
    "password_told": None,
    "total_organizations": 3,
    "taken_slugs": [],
    "taken_logins": [],
}
PLANNER = make.Planner(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "anna@laptop", "0123456789ab")


@dataclass
class Hosts:
    """Answers a plan's looks, and remembers what was asked."""

    machine: HostState
    stack: StackState = field(default_factory=StackState)
    migrations: dict[str, bool] = field(default_factory=dict)
    registry: dict[str, str] = field(default_factory=dict)
    details: Details = field(default_factory=Details)
    seeded: dict[str, Any] = field(default_factory=lambda: dict(SEEDED))
    asked: list[str] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)

    def look(self, fact: type, **arguments: Any) -> Any:
        self.asked.append(fact.__name__)
        self.arguments[fact.__name__] = arguments
        answers: dict[type, Any] = {
            Host: self.machine,
            Stack: self.stack,
            Database: self.database(arguments.get("query", "")),
            Resolved: {
                r: self.registry[r] for r in arguments.get("references", ()) if r in self.registry
            },
            DetailsFact: self.details,
        }
        return answers[fact]

    def database(self, query: str) -> dict[str, Any]:
        if query == seed.STATE_SQL:
            return self.seeded
        return {"migrations": " ".join(f"{v}:true" for v in self.migrations)}


def new() -> Hosts:
    """Debian as it comes from the provider."""
    return Hosts(HostState(os="debian", os_version="13", memory=2 * GB, timezone="Etc/UTC"))


def live_manifest(settings: Settings = BASE, secrets: Secrets = project.SECRETS) -> dict[str, Any]:
    """Of the release that serves."""
    sets = project.sets(settings, secrets)
    release = render.render(settings, sets, project.digests(settings), project.COLOURS)
    return {
        "id": "r1",
        "made": "2026-01-01T00:00:00+00:00",
        "hash": release.hash,
        "content": release.hash,
        "specs": release.specs,
        "colours": release.colours,
        "definitions": release.definitions,
        "images": release.images,
        "dynamic": dynamic_hash(release),
        "requested": {service: settings.image(service) for service in release.images},
    }


def serving(settings: Settings = BASE, **changes: Any) -> Hosts:
    """A host that is all that these settings ask for."""
    manifest = live_manifest(settings)
    sets = project.sets(settings)
    release = render.render(settings, sets, project.digests(settings), project.COLOURS, "r1")
    containers = {
        name: Container("0", name, release.specs[service], "running", "healthy", "")
        for service, name in render.container_names(release.colours).items()
    }
    secret = context.backup_files(Environment(settings, project.SECRETS, "203.0.113.7", {}))
    files = host_files(settings, Wanted(release, "current", release.hash), secret)
    engine = machine.ENGINE_PACKAGES["debian", "13"]
    found = HostState(
        os="debian",
        os_version="13",
        memory=2 * GB,
        timezone=settings.timezone,
        postgres_version="17",
        packages={*machine.packages(settings), *engine},
        sysctl=dict(settings.sysctl),
        units=dict.fromkeys(("docker.service", *machine.TIMERS), "active enabled"),
        files={file.path: file.state for file in files},
    )
    stack = StackState(
        docker=True,
        current=manifest,
        releases=["r1"],
        secrets=set(render.secret_directories(sets).values()),
        dynamic=manifest["dynamic"],
        containers=containers,
        migrations={"r1": MIGRATIONS},
        binary_unit="active",
    )
    details = Details(
        files={file.path: file.content for file in files},
        release=release.files,
        images=frozenset(release.images.values()),
    )
    return replace(
        Hosts(found, stack, dict(APPLIED), details=details),
        **changes,
    )


def plan(
    hosts: Hosts,
    settings: Settings = BASE,
    secrets: Secrets = project.SECRETS,
    images: Mapping[str, str] | None = None,
    refusals: Sequence[Problem] = (),
    tags: Mapping[str, str] | None = None,
) -> Plan:
    """What would be planned for a host."""
    return make.make(
        Environment(settings, secrets, "203.0.113.7", {}),
        project.sets(settings, secrets),
        seen(hosts, settings, secrets, images, tags),
        PLANNER,
        refusals=refusals,
    )


def seen(
    hosts: Hosts,
    settings: Settings = BASE,
    secrets: Secrets = project.SECRETS,
    images: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Seen:
    """What is seen of it."""
    environment = Environment(settings, secrets, "203.0.113.7", {})
    sets = project.sets(settings, secrets)
    secret = context.backup_files(environment)
    return gather.gather(hosts.look, environment, sets, images, secret, tags=tags)


def ran(*kind: str, seconds: float = 10.0, **more: Any) -> dict[str, Any]:
    """A line of the journal."""
    steps = [{"name": "Release | Push the release", "at": 0, "seconds": seconds}]
    steps.append({"name": "Verify | Run the smoke tests", "at": seconds, "seconds": 2.0})
    line = {"kind": "run", "outcome": "deployed", "plan": {"kind": list(kind)}, "steps": steps}
    return json.loads(json.dumps({**line, **more}))  # type: ignore[no-any-return]
