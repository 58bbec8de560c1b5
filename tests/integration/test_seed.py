"""The realistic seed: once, removable without harm to others, and by the application's endpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from koprogo_deploy.outside import Outside
from tests.integration.rig import ROOT, Rig

FOREIGN = "00000000-0000-4000-8000-00000000f0f0"
COUNTED = ("organizations", "buildings", "units", "owners", "expenses", "users")
COUNTS = (
    "SELECT json_build_array("
    + ", ".join(f"(SELECT count(*) FROM {table})" for table in COUNTED)
    + ");"
)


def clear(rig: Rig) -> str:
    """Run the command that operators run."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("koprogo")),
            "seed",
            "clear",
            "sandbox",
            "--yes",
            "sandbox",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def removed(rig: Rig) -> dict[str, int]:
    """Rows that the command says it has removed, by table."""
    found: dict[str, int] = json.loads(clear(rig))["removed"]
    return found


@pytest.fixture
def foreign(rig: Rig) -> Iterator[str]:
    """An organisation that somebody made in the application, with a building."""
    rig.sql(
        "INSERT INTO organizations (id, name, slug, contact_email, subscription_plan, "
        "max_buildings, max_users) VALUES "
        f"('{FOREIGN}', 'Foreign', 'foreign', 'a@foreign.example', 'free', 1, 3);"
        "INSERT INTO buildings (id, organization_id, name, address, city, postal_code, country, "
        f"total_units) VALUES ('{FOREIGN}', '{FOREIGN}', 'F', 'F 1', 'Gent', '9000', 'Belgium', 1);"
    )
    yield FOREIGN
    rig.sql(f"DELETE FROM organizations WHERE id = '{FOREIGN}';")


def test_seeding_again_changes_nothing(rig: Rig) -> None:
    before = rig.sql(COUNTS)
    run = rig.deploy(deploy="seed")
    assert (run.code, run.changed) == (0, []), run.output
    assert rig.sql(COUNTS) == before
    # What people and tests added since is not the seed's.
    found = [
        int(rig.sql(f"SELECT count(*) FROM {table} WHERE id::text LIKE '5eed____-____-8%';"))
        for table in COUNTED
    ]
    *exact, expenses, users = found
    assert exact == [3, 23, 190, 126]
    assert 46 <= expenses <= 69
    assert users == 3


def test_clearing_takes_what_was_seeded_and_nothing_else(rig: Rig, foreign: str) -> None:
    try:
        assert removed(rig)["organizations"] == 3
        assert rig.sql(f"SELECT count(*) FROM buildings WHERE id = '{foreign}';") == "1"
        assert rig.sql(COUNTS) == "[1, 1, 0, 0, 0, 1]"  # the one user is the superadmin
        assert removed(rig)["organizations"] == 0
    finally:
        run = rig.deploy(deploy="seed")
    assert run.changed == ["Seed | Seed the realistic data"], run.output
    assert rig.sql(COUNTS).startswith("[4, 24, 190, 126,")


def test_seeding_by_the_application(rig: Rig) -> None:
    clear(rig)
    try:
        run = rig.deploy(deploy="seed", seed_via="api")
        assert run.changed == ["Seed | Seed the realistic data"], run.output
        with Outside(rig.environment.settings) as outside:
            assert outside.login("admin@small.be", "admin123").status_code == 200
        again = rig.deploy(deploy="seed", seed_via="api")
        assert (again.code, again.changed) == (0, []), again.output
        # Data that ours would collide with is not ours to remove.
        refused = rig.deploy(deploy="seed")
        assert refused.code == 1
        assert "in use" in refused.output
    finally:
        rig.sql(
            "DELETE FROM buildings; DELETE FROM owners; "
            "DELETE FROM users WHERE role <> 'superadmin'; DELETE FROM organizations;"
        )
        run = rig.deploy(deploy="seed")
    assert run.changed == ["Seed | Seed the realistic data"], run.output
    assert rig.sql(COUNTS).startswith("[3, 23, 190, 126,")
