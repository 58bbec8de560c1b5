"""What `koprogo plan` says a deploy would do, service by service."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from koprogo_deploy import render
from koprogo_deploy.facts.stack import Container
from koprogo_deploy.plan import services
from koprogo_deploy.plan.model import Service
from koprogo_deploy.render import Release, container_names
from koprogo_deploy.settings import SERVICES, Settings
from tests import project

BASE = project.settings()
SETS = {
    "postgres": {"postgres_password": "p" * 64},
    "backend": {"database_password": "d" * 64, "jwt_secret": "j" * 64},
}
IMAGES = {service: f"registry.example/{service}@sha256:{'1' * 64}" for service in SERVICES}
BLUE = {"backend": "blue", "frontend": "blue"}


def live(settings: Settings = BASE) -> tuple[dict[str, Any], dict[str, Container]]:
    """A manifest that serves, and its containers."""
    release = render.render(settings, SETS, IMAGES, BLUE)
    manifest = {
        "specs": release.specs,
        "colours": release.colours,
        "definitions": release.definitions,
        "requested": requested(settings),
    }
    containers = {
        name: Container("0", name, release.specs[service], "running", "healthy", "")
        for service, name in container_names(release.colours).items()
    }
    return manifest, containers


def requested(settings: Settings) -> dict[str, str]:
    return {service: settings.image(service) for service in SERVICES}


def wanted(settings: Settings, sets: dict[str, dict[str, str]] = SETS) -> Release:
    """The next release, its colours chosen against the live one."""
    manifest, _ = live()
    first = render.render(settings, sets, IMAGES, BLUE)
    colours = render.choose_colours(first.specs, manifest["specs"], manifest["colours"])
    return render.render(settings, sets, IMAGES, colours)


def actions(release: Release, settings: Settings) -> dict[str, Service]:
    manifest, containers = live()
    found = services.changes(manifest, release, requested(settings), containers)
    return {change.name: change for change in found}


def test_an_empty_host_starts_everything() -> None:
    found = services.changes(None, wanted(BASE), requested(BASE), {})
    assert [change.action for change in found] == ["start"] * 4


def test_nothing_changed_keeps_everything() -> None:
    assert {c.action for c in actions(wanted(BASE), BASE).values()} == {"keep"}


def test_a_changed_limit_touches_its_service_alone_and_says_what_changed() -> None:
    settings = project.settings(frontend_memory="40MB")
    found = actions(wanted(settings), settings)
    assert found["frontend"].action == "switch"
    assert found["frontend"].colour == "green"
    assert "mem_limit: 32MB -> 40MB" in found["frontend"].reasons
    assert {found[s].action for s in SERVICES if s != "frontend"} == {"keep"}


def test_what_cannot_be_switched_is_recreated_in_place() -> None:
    settings = project.settings(traefik_memory="96MB")
    change = actions(wanted(settings), settings)["traefik"]
    assert (change.action, change.colour) == ("recreate", "")
    assert change.reasons == (
        "environment.GOMEMLIMIT: 60MiB -> 72MiB",
        "mem_limit: 80MB -> 96MB",
        "memswap_limit: 80MB -> 96MB",
    )


def test_a_new_image_is_named_by_its_tag() -> None:
    settings = project.settings(backend_image="ghcr.io/gilmry/koprogo/backend:main-1234567")
    images = {**IMAGES, "backend": f"registry.example/backend@sha256:{'2' * 64}"}
    release = render.render(settings, SETS, images, {"backend": "green", "frontend": "blue"})
    [reason] = actions(release, settings)["backend"].reasons
    assert reason == f"image: {BASE.backend_image} -> {settings.backend_image}"


def test_a_changed_secret_is_named_and_not_shown() -> None:
    other = {**SETS, "backend": {**SETS["backend"], "jwt_secret": "k" * 64}}
    change = actions(wanted(BASE, other), BASE)["backend"]
    assert change.action == "switch"
    login, secrets = change.reasons
    assert login.startswith("environment.DATABASE_USER: koprogo_"), "either colour has its own"
    assert secrets == "secrets: one or more of database_password, jwt_secret changed"


def test_a_stopped_container_is_started_again() -> None:
    manifest, containers = live()
    del containers["postgres"]
    found = services.changes(manifest, wanted(BASE), requested(BASE), containers)
    assert [c.action for c in found] == ["keep", "start", "keep", "keep"]
    assert found[1].reasons == ("its container is gone",)


def test_one_that_does_not_serve_is_restarted_and_one_that_was_recreated_stays() -> None:
    manifest, containers = live()
    containers["backend-blue"] = replace(containers["backend-blue"], health="unhealthy")
    settings = project.settings(traefik_memory="96MB")
    release = wanted(settings)
    containers["traefik"] = replace(containers["traefik"], spec=release.specs["traefik"])
    found = services.changes(manifest, release, requested(settings), containers)
    assert [c.action for c in found] == ["keep", "keep", "restart", "keep"]
    assert found[2].reasons == ("its container is running unhealthy",)
    back = services.changes(manifest, wanted(BASE), requested(BASE), containers)
    assert back[0].action == "recreate", "the serving release says otherwise"
