"""What is decided about the database: may an image start on it, is it migrated, whose password."""

from __future__ import annotations

import pytest

from koprogo_deploy import database, render
from koprogo_deploy.database import INDEXES
from koprogo_deploy.operations import settle
from koprogo_deploy.secrets import Secrets
from tests import project

# RFC 7677's example: password, salt, and the keys that follow from them.
PENCIL = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)
MIGRATED = {"migrations": "1:true 2:true", "indexes": list(INDEXES), "statements": True}


def test_the_verifier_is_the_one_of_the_rfc() -> None:
    salt = bytes.fromhex("5b6d99689d12358eec a04b141236fa81".replace(" ", ""))
    assert database.scram_verifier("pencil", salt) == PENCIL


def test_a_verifier_is_salted_and_knows_its_password() -> None:
    one, other = database.scram_verifier("secret"), database.scram_verifier("secret")
    assert one != other
    assert database.scram_matches("secret", one)
    assert database.scram_matches("secret", other)
    assert not database.scram_matches("Secret", one)
    assert database.scram_matches("pencil", PENCIL)


@pytest.mark.parametrize("verifier", [None, "", "md5abc", "SCRAM-SHA-256$x:y$z:w"])
def test_what_is_no_verifier_matches_nothing(verifier: str | None) -> None:
    assert not database.scram_matches("secret", verifier)


def test_a_backend_logs_in_as_a_role_of_its_secrets_which_works_as_the_owner() -> None:
    login = database.login_name("backend-0123456789ab")
    sql = database.login_sql(login, "V")
    assert "ALTER ROLE koprogo_0123456789ab LOGIN PASSWORD 'V';\n" in sql
    assert "ALTER ROLE koprogo_0123456789ab SET role = 'koprogo';\n" in sql
    assert "ALTER ROLE koprogo " not in sql, "another colour's login stays as it is"
    assert "SET role" not in database.login_sql("koprogo", "V"), "a release of before logs in as it"


def test_a_release_says_its_login_and_one_of_before_is_the_owner() -> None:
    release = project.release(project.settings())
    login = database.login_of({"definitions": release.definitions})
    other = {**project.SECRETS.values, "DATABASE_PASSWORD": "0" * 64}
    settings = project.settings()
    sets = project.sets(settings, Secrets(other))
    rotated = render.secret_directories(sets)["backend"]
    assert login == database.login_name(
        render.secret_directories(project.sets(settings))["backend"]
    )
    assert login != database.login_name(rotated)
    assert database.login_of({"definitions": {"backend": {"environment": {}}}}) == "koprogo"
    manifest = {"definitions": release.definitions}
    assert settle.unused_logins([login, "koprogo", "koprogo_0a"], manifest) == [
        *("koprogo", "koprogo_0a")
    ]
    assert database.no_login_sql(["koprogo", "koprogo_0a"]) == (
        "ALTER ROLE koprogo NOLOGIN PASSWORD NULL;\nREASSIGN OWNED BY koprogo_0a TO koprogo;\n"
        "DROP OWNED BY koprogo_0a;\nDROP ROLE koprogo_0a;\n"
    )


def test_a_verifier_is_not_kept_in_the_statistics_of_statements() -> None:
    assert database.login_sql("koprogo_0a", "V").startswith(
        "SET pg_stat_statements.track_utility = off;"
    )


def test_migrations_are_read_from_the_database_and_from_file_names() -> None:
    assert database.parse_migrations("1:true 2:false") == {"1": True, "2": False}
    assert database.parse_migrations("") == database.parse_migrations(None) == {}
    names = ["20240101000000_create_extensions.sql", "README.md", "2_x.sql", "no_version.sql"]
    assert database.versions(names) == {"20240101000000", "2"}


@pytest.mark.parametrize(
    ("applied", "image"),
    [
        ({}, {"1", "2"}),
        ({"1": True}, {"1", "2"}),
        ({"1": True, "3": True}, {"1", "2", "3"}),  # KoproGo adds back-dated ones
        ({"1": True, "2": True}, {"1", "2"}),
    ],
)
def test_an_image_starts_where_it_knows_all_that_was_applied(
    applied: dict[str, bool], image: set[str]
) -> None:
    assert database.cannot_start(applied, image) == ""


def test_an_older_image_does_not_start_and_is_told_why() -> None:
    applied = dict.fromkeys("12345", True)
    assert database.cannot_start(applied, {"1"}) == (
        "the database has 4 migration(s) that the image lacks (2, 3, 4 …), and would not start; "
        "take an image that has them, or restore the dump made before them"
    )


def test_a_migration_that_failed_half_way_stops_everything() -> None:
    assert database.cannot_start({"1": True, "2": False}, {"1", "2"}) == (
        "migration 2 failed half-way earlier; restore the dump made before it"
    )


def test_a_migrated_database_lacks_nothing() -> None:
    assert database.not_migrated(MIGRATED, {"1", "2"}) == []


def test_whatever_is_missing_after_the_start_is_told() -> None:
    state = {"migrations": "1:true", "indexes": list(INDEXES[1:]), "statements": False}
    assert database.not_migrated(state, {"1", "2"}) == [
        "1 migration(s) of the image not applied: 2 …",
        f"indexes missing: {INDEXES[0]}",
        "extension pg_stat_statements missing",
    ]
    assert len(database.not_migrated({}, {"1"})) == 3


def test_the_guard_keeps_the_superadmins_hash_out_of_the_applications_reach() -> None:
    sql = database.guard_sql("$2b$08$hash")
    assert "VALUES ('$2b$08$hash')" in sql
    assert "GRANT USAGE ON SCHEMA koprogo_deploy TO koprogo" in sql
    assert "GRANT SELECT" not in sql
    assert sql.index("BEGIN;") < sql.index("COMMIT;")


# --- the observer --------------------------------------------------------------------------------

SCHEMA = {
    "tables": ["buildings", "refresh_tokens", "two_factor_secrets", "units", "users"],
    "user_columns": ["email", "id", "password_hash", "totp_secret"],
}
READS = {"buildings SELECT", "units SELECT", "users.email SELECT", "users.id SELECT"}
OBSERVER = {
    "attributes": ["login", "inherit"],
    "connections": database.OBSERVER_CONNECTIONS,
    "settings": [f"{name}={value}" for name, value in database.OBSERVER_SETTINGS.items()],
    "member_of": ["pg_monitor"],
    "connect": True,
    "creates": False,
    "large_objects": False,
    "privileges": sorted(READS),
}


def test_the_observer_reads_listed_tables_and_no_secret() -> None:
    assert database.observer_privileges(SCHEMA) == READS
    sql = database.observer_sql(SCHEMA)
    assert "GRANT SELECT ON public.buildings TO koprogo_observer;" in sql
    assert "GRANT SELECT (email, id) ON public.users TO koprogo_observer;" in sql
    for secret in ("password_hash", "totp_secret", "refresh_tokens", "two_factor_secrets"):
        assert secret not in sql


def test_the_observer_is_made_once() -> None:
    assert "CREATE ROLE koprogo_observer;" in database.observer_sql(SCHEMA)
    assert "CREATE ROLE" not in database.observer_sql({**SCHEMA, "observer": OBSERVER})
    assert database.observer_problems(SCHEMA) == ["there is no role koprogo_observer"]
    assert database.observer_problems({**SCHEMA, "observer": OBSERVER}) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attributes", ["login", "inherit", "superuser"]),
        ("attributes", ["login", "inherit", "password"]),
        ("connections", -1),
        ("settings", ["statement_timeout=0"]),
        ("member_of", ["pg_monitor", "pg_write_all_data"]),
        ("connect", False),
        ("creates", True),
        ("large_objects", True),
        ("privileges", [*sorted(READS), "refresh_tokens SELECT"]),
        ("privileges", []),  # a migration made the tables anew
    ],
)
def test_an_observer_that_differs_is_put_right(name: str, value: object) -> None:
    problems = database.observer_problems({**SCHEMA, "observer": {**OBSERVER, name: value}})
    assert len(problems) == 1
    assert name in problems[0]
