"""Rendering: what is the same gives the same names, what changed changes only its own service."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from koprogo_deploy import render
from koprogo_deploy.render import Release
from koprogo_deploy.secrets import Secrets
from koprogo_deploy.settings import SERVICES, Settings
from tests import project

BASE = project.settings()


def changed(settings: Settings, before: Release | None = None) -> set[str]:
    """Services whose definition is another one with these settings."""
    old, new = before or project.release(BASE), project.release(settings)
    return {service for service in SERVICES if old.specs[service] != new.specs[service]}


def test_equal_settings_render_the_same_release() -> None:
    assert project.release(BASE) == project.release(project.settings())


def test_the_releases_id_is_no_part_of_its_hash() -> None:
    sets, images = project.sets(BASE), project.digests(BASE)
    named = render.render(BASE, sets, images, project.COLOURS, "20260101T000000Z-0")
    assert "release 20260101T000000Z-0." in named.files["compose.yaml"]
    assert named.hash == project.release(BASE).hash


@pytest.mark.parametrize(
    ("change", "services"),
    [
        ({"backend_memory": "129MB"}, {"backend"}),
        ({"frontend_cpu_weight": 513}, {"frontend"}),
        ({"access_log": "stdout"}, {"traefik"}),
        ({"postgres_settings": {"work_mem": "5MB"}}, {"postgres"}),
        ({"pool_max_connections": 9}, {"backend", "postgres"}),
        ({"api_domain": "api2.koprogo.be"}, {"frontend"}),
        # Routes are replaced while Traefik runs: nothing is restarted for them.
        ({"rate_limit_average": 300}, set()),
        ({"superadmin_addresses": []}, set()),
        # Of no concern to what runs.
        ({"releases_kept": 9, "seed_enabled": True, "timezone": "UTC"}, set()),
    ],
)
def test_a_change_touches_only_the_services_it_concerns(
    change: dict[str, Any], services: set[str]
) -> None:
    assert changed(project.settings(**change)) == services


def test_a_changed_route_is_another_release_all_the_same() -> None:
    other = project.release(project.settings(rate_limit_average=300))
    assert other.hash != project.release(BASE).hash


def test_another_colour_is_another_release_with_the_same_definitions() -> None:
    blue, green = project.release(BASE), project.release(BASE, backend="green")
    assert blue.specs == green.specs
    assert blue.hash != green.hash
    assert "http://backend-green:8080" in green.files["traefik/dynamic.yaml"]
    assert set(yaml.safe_load(green.files["compose.yaml"])["services"]) == {
        "traefik",
        "postgres",
        "backend-green",
        "frontend-blue",
    }


def test_containers_are_named_by_their_colour() -> None:
    assert render.container_names({"backend": "green", "frontend": "blue"}) == {
        "traefik": "traefik",
        "postgres": "postgres",
        "backend": "backend-green",
        "frontend": "frontend-blue",
    }


def test_no_secret_is_in_any_rendered_file() -> None:
    for environment in ("production", "sandbox"):
        release = project.release(project.settings(environment))
        text = "\n".join([*release.files.values(), str(release.definitions)])
        assert [value for value in project.SECRETS.values.values() if value in text] == []
        assert project.TLS["tls_key"] not in text


def test_a_changed_secret_is_another_directory_for_its_readers_only() -> None:
    other = Secrets({**project.SECRETS.values, "JWT_SECRET": "f" * 64})
    before = render.secret_directories(project.sets(BASE))
    # Of one password, which somebody may have chosen: a name that is quickly made is an oracle.
    earlier = render.earlier_directories(project.sets(BASE))
    assert before["postgres"] != earlier["postgres"]
    assert before["backend"] == earlier["backend"], "nobody's login changes for it"
    after = render.secret_directories(project.sets(BASE, other))
    assert before["postgres"] == after["postgres"]
    assert before["backend"] != after["backend"]
    assert "f" * 64 not in str(after)


def test_optional_secrets_reach_the_backend_when_they_are_there() -> None:
    more = Secrets({**project.SECRETS.values, "SMTP_PASSWORD": "s" * 40})
    assert "smtp_password" not in project.sets(BASE)["backend"]
    sets = project.sets(BASE, more)
    assert "smtp_password" in sets["backend"]
    rendered = render.render(BASE, sets, project.digests(BASE), project.COLOURS)
    assert 'export SMTP_PASSWORD="$(secret smtp_password)"' in rendered.files["backend/start.sh"]


def test_the_key_is_a_secret_only_where_the_certificate_comes_from_files() -> None:
    assert "traefik" not in project.sets(BASE)
    assert set(project.sets(project.settings("sandbox"))["traefik"]) == {
        "tls_certificate",
        "tls_key",
    }


def test_no_container_sees_the_docker_socket_or_runs_privileged() -> None:
    compose = project.release(BASE).files["compose.yaml"]
    assert "docker.sock" not in compose
    for service in yaml.safe_load(compose)["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service


def test_only_traefik_publishes_ports() -> None:
    services = yaml.safe_load(project.release(BASE).files["compose.yaml"])["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["traefik"]


def test_a_dollar_stays_one_for_compose() -> None:
    settings = project.settings(backend_environment={"GREETING": "5 $ ${HOME}"})
    compose = yaml.safe_load(project.release(settings).files["compose.yaml"])
    assert compose["services"]["backend-blue"]["environment"]["GREETING"] == "5 $$ $${HOME}"


def test_the_closed_paths_are_closed_first() -> None:
    dynamic = yaml.safe_load(project.release(BASE).files["traefik/dynamic.yaml"])["http"]
    routers = sorted(dynamic["routers"].values(), key=lambda router: -router.get("priority", 0))
    for path in ("/api/v1/auth/register", "/api/v1/seed", "/metrics"):
        assert f"PathPrefix(`{path}`)" in routers[0]["rule"]
    assert dynamic["middlewares"]["closed"]["ipAllowList"]["rejectStatusCode"] == 404


def test_every_router_names_middlewares_and_services_that_exist() -> None:
    for environment in ("production", "sandbox"):
        text = project.release(project.settings(environment)).files["traefik/dynamic.yaml"]
        dynamic = yaml.safe_load(text)["http"]
        for router in dynamic["routers"].values():
            assert set(router.get("middlewares", [])) <= set(dynamic["middlewares"])
            ours = {*dynamic["services"], "api@internal", "prometheus@internal"}
            assert router["service"] in ours


def test_what_is_internal_answers_the_host_alone() -> None:
    files = project.release(project.settings()).files
    routers = yaml.safe_load(files["traefik/dynamic.yaml"])["http"]["routers"].values()
    internal = [router for router in routers if router["service"].endswith("@internal")]
    assert {router["service"] for router in internal} == {"api@internal", "prometheus@internal"}
    for router in internal:
        assert (router["entryPoints"], router["middlewares"]) == (["internal"], ["host-only"])
    static = yaml.safe_load(files["traefik/traefik.yaml"])
    published = yaml.safe_load(files["compose.yaml"])["services"]["traefik"]["ports"]
    port = static["entryPoints"]["internal"]["address"]
    assert not any(mapping.endswith(port) for mapping in published)
    # Else Traefik makes a router of its own for the counters, open to every container.
    assert static["metrics"]["prometheus"]["manualRouting"] is True


def test_without_listed_addresses_the_superadmins_pages_are_closed_to_all() -> None:
    text = project.release(project.settings(superadmin_addresses=[])).files["traefik/dynamic.yaml"]
    ranges = yaml.safe_load(text)["http"]["middlewares"]["superadmin-addresses"]["ipAllowList"]
    assert ranges["sourceRange"] == ["255.255.255.255/32"]


def test_addresses_on_the_edge_network_do_not_meet() -> None:
    assert render.gateway("172.30.80.0/24") == "172.30.80.1"
    assert render.traefik_address("172.30.80.0/24") == "172.30.80.2"
    assert render.edge_range("172.30.80.0/24") == "172.30.80.128/25"


def test_the_backends_own_limiter_stays_off_and_group_data_may_add() -> None:
    settings = project.settings(backend_environment={"SMTP_ENABLED": "true", "SMTP_HOST": "x"})
    written = render.backend_environment(settings)
    assert written["ENABLE_RATE_LIMITING"] == "false"
    assert (written["SMTP_ENABLED"], written["SMTP_HOST"]) == ("true", "x")
    assert written["DB_POOL_MAX_CONNECTIONS"] == "8"


SPECS = {"backend": "1", "frontend": "1"}


@pytest.mark.parametrize(
    ("live_specs", "live_colours", "chosen"),
    [
        ({}, {}, {"backend": "blue", "frontend": "blue"}),
        (SPECS, {"backend": "green", "frontend": "blue"}, {"backend": "green", "frontend": "blue"}),
        (
            {"backend": "0", "frontend": "1"},
            {"backend": "blue", "frontend": "blue"},
            {"backend": "green", "frontend": "blue"},
        ),
        (
            {"backend": "0", "frontend": "0"},
            {"backend": "green", "frontend": "blue"},
            {"backend": "blue", "frontend": "green"},
        ),
    ],
)
def test_a_changed_service_takes_the_other_colour_and_another_one_stays(
    live_specs: dict[str, str], live_colours: dict[str, str], chosen: dict[str, str]
) -> None:
    assert render.choose_colours(SPECS, live_specs, live_colours) == chosen
