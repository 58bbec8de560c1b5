"""The stand-in's migrations, written from a description: which files, and always the same bytes."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

from koprogo_deploy import database
from sandbox import standin

NAMES = (
    "20240101000000_create_extensions",
    "20240101000001_create_buildings",
    "20240101000002_create_owners",
    "20240101000003_create_units",
    "20240101000004_create_expenses",
    "20240101000005_create_meetings",
    "20240101000006_create_documents",
    "20250102000000_create_auth_and_multi_tenancy",
    "20250102000001_create_refresh_tokens",
    "20250103000000_add_organization_id_to_all_tables",
    "20250103000001_create_audit_logs",
    "20250103000002_disable_rls_policies",
    "20250103000003_add_performance_indexes",
)
# Of all files, one after the other. The application keeps a checksum of each: with another one a
# backend does not start on a database that this one migrated, so that a box has to be made anew.
DIGEST = "6037ccf9a95ce45352e7835ee816a580b8c559db99ef9b5a93988b29093b023b"


def written(folder: Path) -> dict[str, bytes]:
    """What the build of the image makes of the description, by a process of its own."""
    subprocess.run([sys.executable, "-B", standin.SCHEMA, folder], check=True)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_files_are_koprogos_and_always_the_same_bytes(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a"), written(tmp_path / "b")
    assert sorted(first) == [f"{name}.sql" for name in NAMES]
    assert first == second
    assert list(standin.migrations()) == sorted(first), "oldest first"
    assert {name: sql.encode() for name, sql in standin.migrations().items()} == first
    whole = b"".join(first[name] for name in sorted(first))
    assert hashlib.sha256(whole).hexdigest() == DIGEST


def test_they_make_what_the_deploy_looks_for() -> None:
    sql = "".join(standin.migrations().values())
    tables = re.findall(r"CREATE TABLE public\.(\w+)", sql)
    others = {"users", "user_building_access", "refresh_tokens", "audit_logs"}
    assert sorted(tables) == sorted({*database.OBSERVER_TABLES, *others} - {"_sqlx_migrations"})
    assert set(database.INDEXES) <= set(re.findall(r"CREATE INDEX (?:IF NOT EXISTS )?(\w+)", sql))
    of_users = re.search(r"TABLE public\.users \((.*?)\n\)", sql, re.DOTALL)
    assert of_users is not None
    columns = {part.split()[0] for part in re.split(r",\s+", of_users[1].strip())}
    assert set(database.OBSERVER_USER_COLUMNS) <= columns


def test_each_statement_ends_before_the_next_begins() -> None:
    for name, sql in standin.migrations().items():
        assert sql.endswith(";\n"), name
        for statement in sql.removesuffix(";\n").split(";\n"):
            words = ("CREATE ", "ALTER ", "DROP ", "INSERT ")
            assert statement.startswith(words), (name, statement)
