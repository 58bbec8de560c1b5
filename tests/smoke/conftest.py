"""Smoke tests: the environment as it is, from outside and on its host. They change nothing.

koprogo smoke production          (or: make smoke ENV=production)
"""

from __future__ import annotations

import json
import os
import shlex
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import testinfra

from koprogo_deploy import connection, door, smoke
from koprogo_deploy.outside import Outside

ENVIRONMENT = os.environ.get("KOPROGO_ENVIRONMENT", "sandbox")
VERIFYING = "KOPROGO_VERIFYING" in os.environ  # a deploy that does not count yet looks at itself
OVERRIDES = json.loads(os.environ.get("KOPROGO_OVERRIDES", "{}"))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Say by the exit code where nothing fails but what is of the host."""
    if exitstatus != pytest.ExitCode.TESTS_FAILED:
        return  # it did not come to its end
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    stats = reporter.stats if reporter else {}
    failed = [*stats.get("failed", ()), *stats.get("error", ())]
    if failed and all("of_the_host" in getattr(each, "keywords", ()) for each in failed):
        session.exitstatus = smoke.OF_THE_HOST


@pytest.fixture(scope="session")
def environment() -> door.Environment:
    return door.open_environment(ENVIRONMENT, OVERRIDES)


@pytest.fixture(scope="session")
def settings(environment: door.Environment) -> Any:
    return environment.settings


@pytest.fixture(scope="session")
def outside(environment: door.Environment) -> Iterator[Outside]:
    """The site as it looks from outside, through TLS and the front door."""
    with Outside(environment.settings) as site:
        yield site


@pytest.fixture(scope="session")
def api(outside: Outside) -> httpx2.Client:
    return outside.api


@pytest.fixture(scope="session")
def host(environment: door.Environment) -> Any:
    """The host over one SSH connection, or this machine where the deploy runs on its target."""
    target, options = connection.testinfra_target(environment)
    return testinfra.get_host(target, **options)


@pytest.fixture(scope="session")
def seen(environment: door.Environment, host: Any) -> Any:
    """Everything the tests look at on the host, gathered in one command."""
    asked = environment.settings
    listed = next(iter(asked.superadmin_addresses), "127.0.0.1").partition("/")[0]
    script = (
        f"ROOT, VERIFYING = {asked.install_root!r}, {VERIFYING}\n"
        f"API, LISTED = {asked.api_domain!r}, {listed!r}\n"
        + (Path(__file__).parent / "gather.py").read_text()
    )
    return json.loads(host.check_output(f"sudo -n python3 -c {shlex.quote(script)}"))


@pytest.fixture(scope="session")
def database(environment: door.Environment, host: Any) -> Any:
    """What Postgres has in force, its schema, and what a tenant has: one query each."""
    from koprogo_deploy.database import answer, migrations_query, tenant_query
    from koprogo_deploy.operations.shell import owner_psql, psql

    names = "SELECT json_object_agg(lower(name), current_setting(name)) FROM pg_settings"
    script = f"{names};\n{migrations_query()}"
    asked = f"printf '%s' {shlex.quote(script)} | sudo -n {psql()} && "
    asked += f"sudo -n {owner_psql()} -c {shlex.quote(tenant_query())} </dev/null"
    in_force, *schema, tenant = host.check_output(asked).splitlines()
    return {
        "settings": json.loads(in_force),
        "schema": answer("\n".join(schema)),
        "tenant": json.loads(tenant),
    }


@pytest.fixture(scope="session")
def tls_context(settings: Any) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=settings.ca_certificate)
