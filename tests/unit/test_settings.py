"""Settings: documented, typed, frozen, and equal ones have an equal hash."""

from __future__ import annotations

import ast
import re

import pytest
from pydantic import ValidationError

from koprogo_deploy.settings import Contradictions, Settings, contradictions, valid_part
from koprogo_deploy.units import MB
from tests import project
from tests.project import ROOT

# Of an environment, not of all: each is in group_data/<environment>.py or its inventory.
OWN = {"environment", "domain", "api_domain", "cors_origins"}


def test_every_setting_stands_in_all_py_or_belongs_to_an_environment() -> None:
    written = {
        target.id
        for node in ast.parse((ROOT / "group_data/all.py").read_text()).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        # pyinfra's own, of the connection, are no settings of ours.
        if isinstance(target, ast.Name) and not target.id.startswith("ssh_")
    }
    assert written | OWN == set(Settings.model_fields)
    assert not written & OWN


def test_all_py_comments_every_group_of_settings() -> None:
    """Each setting has a comment on its line, or stands below a heading that says what it is."""
    lines = (ROOT / "group_data/all.py").read_text().splitlines()
    bare, heading = [], False
    for line in lines:
        if line.startswith("# --- "):
            heading = True
        elif re.match(r"[a-z_]+ = ", line) and not heading and "#" not in line:
            bare.append(line)
    assert bare == []


@pytest.mark.parametrize("environment", ["production", "sandbox"])
def test_group_data_as_it_stands_is_valid_once_it_is_filled_in(environment: str) -> None:
    assert project.settings(environment).environment == environment


def test_a_setting_is_read_once_and_never_changed() -> None:
    with pytest.raises(ValidationError):
        project.settings().domain = "other.be"


def test_equal_settings_have_an_equal_hash_and_others_another_one() -> None:
    assert project.settings().hash == project.settings(backend_memory="131072kB").hash
    assert project.settings().hash != project.settings(backend_memory="129MB").hash


def test_services_are_asked_by_name() -> None:
    settings = project.settings(traefik_memory="81MB", traefik_cpu_weight=77)
    assert settings.memory("traefik") == 81 * MB
    assert settings.cpu_weight("traefik") == 77
    assert settings.image("traefik").startswith("docker.io/library/traefik:v3")


def test_max_connections_holds_both_colours_and_a_reserve() -> None:
    settings = project.settings(pool_max_connections=8, postgres_connections_reserve=9)
    assert settings.max_connections == 25


def test_urls_name_the_port_only_where_it_is_not_the_usual_one() -> None:
    assert project.settings().url == "https://koprogo.be"
    assert project.settings().api_url == "https://api.koprogo.be/api/v1"
    assert project.settings("sandbox").url == "https://koprogo.localhost:8443"


def test_durations_have_a_unit() -> None:
    assert project.settings(backend_start_timeout="2min").backend_start_timeout == 120
    for wrong in ("90", 90, "0s", "00s", "-1s", "1.5min", "soon"):
        with pytest.raises(ValidationError, match='such as "30s" or "2min"'):
            project.settings(backend_start_timeout=wrong)


def test_the_valid_part_of_settings_is_still_checked_together() -> None:
    values = project.values(traefik_memory="80", api_domain="koprogo.be", rate_limit_burst=0)
    part = valid_part(values)
    assert part.domain == "koprogo.be"
    assert not hasattr(part, "traefik_memory")
    assert not hasattr(part, "rate_limit_burst")
    assert [field for field, _ in contradictions(part, partial=True)] == ["api_domain"]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("S3_KEY_PREFIX", "koprogo/", ""),
        ("S3_BUCKET", "documents", ""),
        ("LINKY_CLIENT_ID", "abc", ""),
        ("OAUTH_TOKEN_URL", "https://login.example.be/token", ""),
        ("ACCESS_TOKEN_TTL", "900", ""),
        ("REFRESH_TOKEN_TTL_SECS", "604800", ""),
        ("JWT_TOKEN_EXPIRY_MINUTES", "15", ""),
        ("PASSWORD_RESET_EXPIRY", "2 hours", ""),
        ("MQTT_PASSWORD", "x", "it belongs in .env.production"),
        ("LINKY_CLIENT_SECRET", "x", "it belongs in .env.production"),
        ("BOINC_RPC_PASSWORD", "x", "it belongs in .env.production"),
        ("SENTRY_DSN", "https://k@sentry.example.be/1", "it belongs in .env.production"),
        ("S3_SECRET_KEY", "x", "it belongs in .env.production"),
        ("SMTP_PASS", "x", "did you mean SMTP_PASSWORD, in .env.production?"),
        ("STRIPE_API_TOKEN", "x", "none of those that .env.production has for KoproGo; take it"),
        ("REDIS_URL", "redis://:pw@h/0", "write it without the login"),
        ("HOOK_TOKEN_URL", "https://x.be/?token=abc", "HOOK_TOKEN_URL looks like a secret"),
        ("TOKEN_TTL", "c2VjcmV0LXRva2Vu", "TOKEN_TTL looks like a secret"),
        ("KEY_PREFIX", "c2VjcmV0+dG9rZW4=", "KEY_PREFIX looks like a secret"),
    ],
)
def test_a_variable_of_the_backend_has_one_place_where_it_is_taken(
    name: str, value: str, told: str
) -> None:
    found = contradictions(
        project.settings().model_copy(update={"backend_environment": {name: value}})
    )
    assert len(found) == bool(told)
    assert all(told in message for _, message in found)


def test_contradictions_are_all_in_one_error() -> None:
    with pytest.raises(ValidationError) as error:
        project.settings(api_domain="koprogo.be", pool_min_connections=99)
    cause = error.value.errors()[0]["ctx"]["error"]
    assert isinstance(cause, Contradictions)
    assert [field for field, _ in cause.problems] == ["api_domain", "pool_min_connections"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [(None, None), (123, "123"), ("the\tdisk\r\nwas full \x1b[31m", "the disk was full [31m")],
)
def test_a_reason_is_one_line_of_words(given: object, reason: str | None) -> None:
    assert project.settings(reason=given).reason == reason
