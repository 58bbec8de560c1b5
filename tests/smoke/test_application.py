"""The application through the front door: logins, lists, the superadmin's closed door."""

from __future__ import annotations

from typing import Any

import pytest

from koprogo_deploy import door
from koprogo_deploy.database import TENANT_LISTS
from koprogo_deploy.direct import PUBLIC_PASSWORD, SUPERADMIN, TENANTS, Tenant, seed_password
from koprogo_deploy.direct import reader as reader_of
from koprogo_deploy.on_host.ask import signed
from koprogo_deploy.outside import Outside


@pytest.mark.parametrize("tenant", TENANTS, ids=lambda tenant: str(tenant.email))
def test_seeded_login_sees_its_data(
    environment: door.Environment, outside: Outside, tenant: Tenant
) -> None:
    settings = environment.settings
    if not settings.seed_enabled:
        pytest.skip("no seed here (seed_enabled = False)")
    login = outside.login(tenant.email, seed_password(settings, environment.secrets))
    assert login.status_code == 200, f"{tenant.email} cannot log in: {login.text}"
    token = {"Authorization": f"Bearer {login.json()['token']}"}
    me = outside.api.get("/auth/me", headers=token)
    assert me.json()["email"] == tenant.email
    least_of = (("/buildings", tenant.buildings), ("/owners", tenant.owners), ("/units", 30))
    for path, least in least_of:
        page = outside.api.get(path, headers=token, params={"per_page": 100}).json()
        assert page["pagination"]["total_items"] >= least, path
        # Others write: KoproGo counts and reads one after the other.
        assert len(page["data"]) >= min(100, least), path
    expenses = outside.api.get("/expenses", headers=token).json()
    assert expenses["pagination"]["total_items"] >= 10


@pytest.mark.parametrize("path", TENANT_LISTS)
def test_a_tenant_reads_what_the_database_holds(
    environment: door.Environment, outside: Outside, database: Any, path: str
) -> None:
    """Of real data, by a token of ours that lasts a minute: no row and no login is made for it."""
    reader = reader_of(database["tenant"])
    if reader is None:
        pytest.skip("no tenant's list was tried: there is no organisation in the database")
    token = signed(environment.secrets["JWT_SECRET"], reader["organization"])
    answer = outside.api.get(
        path, headers={"Authorization": f"Bearer {token}"}, params={"per_page": 100}
    )
    assert answer.status_code == 200, f"{path}: {answer.text}"
    page, least = answer.json(), reader["lists"][path]
    assert page["pagination"]["total_items"] >= least
    # Others write: KoproGo counts and reads one after the other.
    assert len(page["data"]) >= min(100, least)
    if not least:
        pytest.skip(f"no row of {path} was tried: the tenant has none. Its answer was tried")


def test_superadmin_public_password_is_refused(settings: Any, outside: Outside) -> None:
    if not settings.superadmin_guard:
        pytest.skip("no superadmin's login was tried: superadmin_guard = False")
    assert outside.login(SUPERADMIN, PUBLIC_PASSWORD).status_code == 401


def test_superadmin_logs_in_with_our_password(
    environment: door.Environment, outside: Outside
) -> None:
    if not environment.settings.superadmin_guard:
        pytest.skip("no superadmin's login was tried: superadmin_guard = False")
    login = outside.login(SUPERADMIN, environment.secrets["SUPERADMIN_PASSWORD"])
    assert login.status_code == 200
    assert login.json()["user"]["role"] == "superadmin"
