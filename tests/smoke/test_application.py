"""The application through the front door: logins, lists, the superadmin's closed door."""

from __future__ import annotations

from typing import Any

import pytest

from koprogo_deploy import door
from koprogo_deploy.outside import Outside

PUBLIC_PASSWORD = "admin123"  # KoproGo's own
# login, buildings, owners of one seeded organisation
TENANTS = (
    ("admin@small.be", 5, 20),
    ("admin@medium.be", 8, 40),
    ("admin@large.be", 10, 66),
)


@pytest.mark.parametrize(("email", "buildings", "owners"), TENANTS)
def test_seeded_login_sees_its_data(
    environment: door.Environment, outside: Outside, email: str, buildings: int, owners: int
) -> None:
    settings = environment.settings
    if not settings.seed_enabled:
        pytest.skip("no seed here (seed_enabled = False)")
    by_api = settings.seed_via == "api"
    password = PUBLIC_PASSWORD if by_api else environment.secrets["SEED_PASSWORD"]
    login = outside.login(email, password)
    assert login.status_code == 200, f"{email} cannot log in: {login.text}"
    token = {"Authorization": f"Bearer {login.json()['token']}"}
    me = outside.api.get("/auth/me", headers=token)
    assert me.json()["email"] == email
    for path, least in (("/buildings", buildings), ("/owners", owners), ("/units", 30)):
        page = outside.api.get(path, headers=token, params={"per_page": 100}).json()
        assert page["pagination"]["total_items"] >= least, path
        # Others write: KoproGo counts and reads one after the other.
        assert len(page["data"]) >= min(100, least), path
    expenses = outside.api.get("/expenses", headers=token).json()
    assert expenses["pagination"]["total_items"] >= 10


def test_superadmin_public_password_is_refused(settings: Any, outside: Outside) -> None:
    if not settings.superadmin_guard:
        pytest.skip("superadmin_guard = False")
    assert outside.login("admin@koprogo.com", PUBLIC_PASSWORD).status_code == 401


def test_superadmin_logs_in_with_our_password(
    environment: door.Environment, outside: Outside
) -> None:
    if not environment.settings.superadmin_guard:
        pytest.skip("superadmin_guard = False")
    login = outside.login("admin@koprogo.com", environment.secrets["SUPERADMIN_PASSWORD"])
    assert login.status_code == 200
    assert login.json()["user"]["role"] == "superadmin"
