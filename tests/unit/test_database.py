"""What is decided about the database: may an image start on it, is it migrated, whose password."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from koprogo_deploy import database, direct, render
from koprogo_deploy.data import host
from koprogo_deploy.database import INDEXES
from koprogo_deploy.database import OBSERVER as OBSERVER_ROLE
from koprogo_deploy.facts.stack import Database
from koprogo_deploy.on_host import rehearse
from koprogo_deploy.operations import settle, shell
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
    assert database.scram_is_told("secret", database.told_verifier(one))
    assert database.scram_is_told("secret", database.told_verifier(other))
    assert not database.scram_is_told("Secret", database.told_verifier(one))
    assert database.scram_is_told("pencil", database.told_verifier(PENCIL))


@pytest.mark.parametrize("verifier", [None, "", "md5abc", "SCRAM-SHA-256$x:y$z:w"])
def test_what_is_no_verifier_matches_nothing(verifier: str | None) -> None:
    assert not database.scram_is_told("secret", verifier)


def test_a_backend_logs_in_as_a_role_of_its_secrets_which_works_as_the_owner() -> None:
    login = database.login_name("backend-0123456789ab")
    sql = database.login_sql(login, "V")
    assert "ALTER ROLE koprogo_0123456789ab LOGIN PASSWORD 'V';\n" in sql
    assert "ALTER ROLE koprogo_0123456789ab SET role = 'koprogo';\n" in sql
    assert "ALTER ROLE koprogo LOGIN PASSWORD" not in sql, "another colour's login stays as it is"
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
        "ALTER ROLE koprogo PASSWORD NULL;\nREASSIGN OWNED BY koprogo_0a TO koprogo;\n"
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
    [grant] = re.findall("GRANT SELECT.*", sql)
    assert grant == "GRANT SELECT ON koprogo_deploy.superadmin TO koprogo;"
    assert sql.index("BEGIN;") < sql.index("COMMIT;")


def test_the_guard_runs_as_who_sets_it_off_and_comes_back_when_it_is_dropped() -> None:
    sql = database.guard_sql("$2b$08$hash")
    # It runs on columns whose types are the application's: as nobody else.
    assert "SECURITY DEFINER" not in sql
    assert "CREATE EVENT TRIGGER koprogo_deploy_guard ON ddl_command_end" in sql
    assert sql.count("SET search_path = pg_catalog, pg_temp") == 2
    # What lies in the schema could be anybody's who was there first.
    assert sql.index("DROP SCHEMA IF EXISTS koprogo_deploy CASCADE") < sql.index("CREATE SCHEMA")
    assert "UPDATE public.users" not in sql, "a superuser's session fires nobody's triggers"
    assert "UPDATE public.users" in database.GUARDED_SQL
    # Until that ran, it is not told that the guard is in force.
    assert "INSERT INTO koprogo_deploy.applied" in database.GUARDED_SQL
    assert "IN (SELECT password_hash FROM koprogo_deploy.applied)" in database.migrations_query()
    # Triggers fire by their names.
    assert max("update_users_updated_at", database.TRIGGER) == database.TRIGGER


@pytest.mark.parametrize(
    "script",
    [
        database.guard_sql("$2b$08$hash"),
        database.login_sql("koprogo_ab", "SCRAM-SHA-256$x"),
        database.unlogged("ALTER ROLE x PASSWORD 'SCRAM-SHA-256$x'"),
    ],
)
def test_no_script_with_a_hash_comes_into_the_servers_log(script: str) -> None:
    first = min(script.find(word) for word in ("$2b$", "SCRAM-SHA") if word in script)
    for setting in ("log_min_error_statement = panic", "log_min_duration_statement = -1"):
        assert 0 <= script.find(setting) < first
    assert "SET log_statement = 'none';" in script[:first]


def test_the_superusers_look_runs_nothing_of_the_applications() -> None:
    for look in (database.migrations_query(), database.applied_query(), database.MIGRATIONS_SQL):
        # As a text for a catalog to look up, or read by COPY, which plans nothing.
        named = re.sub(r"'public\.\w+'", "", look)
        assert re.findall(r"(\S+) public\.(\w+)", named) == [("COPY", "_sqlx_migrations")]
        assert look.index("relkind = 'r'") < look.index("COPY ")
    assert "search_path=pg_catalog,pg_temp" in database.SESSION
    assert rehearse.SESSION == database.SESSION
    assert rehearse.OWNER == database.OWNER


def test_what_a_look_prints_is_migrations_and_one_object() -> None:
    printed = '20240101000000\tt\n3\tf\n{"guard": null}\n'
    assert database.answer(printed) == {
        "migrations": "20240101000000:true 3:false",
        "guard": None,
    }
    assert database.answer('{"rows": 1}') == {"rows": 1}
    assert database.answer("") == {}, "of a database that is not there, or does not answer"
    with pytest.raises(ValueError, match="Expecting value"):
        database.answer("3\tt\nsomething else")
    assert database.answer("unreadable\tf")["migrations"] == "unreadable:false"


def test_something_else_in_the_place_of_the_migrations_table_is_no_empty_database() -> None:
    applied = database.parse_migrations("unreadable:false")
    assert "unreadable" in database.cannot_start(applied, {"1"})


def role(**changes: Any) -> dict[str, Any]:
    may = dict.fromkeys(("superuser", "createrole", "createdb", "replication", "bypassrls"), False)
    return {
        "may": {**may, "inherit": True, "login": True},
        "connections": -1,
        "until": None,
        "password": None,
        "member_of": [],
        "settings": [],
        **changes,
    }


def test_the_roles_of_another_server_are_made_by_statements_of_our_own() -> None:
    member = {"role": "koprogo", "admin_option": False, "inherit_option": True, "set_option": False}
    settings = ["role=koprogo", "idle_in_transaction_session_timeout=60s"]
    found = {
        "koprogo": role(),
        "koprogo_ab": role(password="SCRAM-SHA-256$x", member_of=[member], settings=settings),
    }
    assert database.roles_sql(found) == (
        'CREATE ROLE "koprogo";\n'
        'ALTER ROLE "koprogo" WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN '
        "NOREPLICATION NOBYPASSRLS CONNECTION LIMIT -1;\n"
        'CREATE ROLE "koprogo_ab";\n'
        'ALTER ROLE "koprogo_ab" WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN '
        "NOREPLICATION NOBYPASSRLS CONNECTION LIMIT -1 PASSWORD 'SCRAM-SHA-256$x';\n"
        'GRANT "koprogo" TO "koprogo_ab" WITH INHERIT TRUE, SET FALSE;\n'
        """ALTER ROLE "koprogo_ab" SET "role" = 'koprogo';\n"""
        """ALTER ROLE "koprogo_ab" SET "idle_in_transaction_session_timeout" = '60s';\n"""
    )


def test_a_roles_own_settings_are_values_and_no_statements() -> None:
    evil = ["application_name=x'\n; ALTER ROLE koprogo SUPERUSER; --\n\\! id", 'a"b=c']
    script = database.roles_sql({'k"o': role(settings=[*evil, 'search_path="; DROP ROLE x"'])})
    assert script.endswith(
        """ALTER ROLE "k""o" SET "application_name" = 'x''\n"""
        "; ALTER ROLE koprogo SUPERUSER; --\n\\! id';\n"
        """ALTER ROLE "k""o" SET "a""b" = 'c';\n"""
    )
    assert "search_path" not in script
    assert "WITH ADMIN OPTION" in database.roles_sql(
        {"a": role(member_of=[{"role": "b", "admin_option": True}])}
    )


def test_what_somebody_else_watches_the_server_by_is_no_power() -> None:
    assert "m.rolname !~ '^koprogo'" in database.trust_query()


def test_a_hash_is_told_such_that_only_who_has_the_password_knows_it() -> None:
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
    told = database.told(hashed)
    assert hashed[29:] not in told
    assert direct.is_told("right", told)
    assert not direct.is_told("wrong", told)
    assert not direct.is_told("right", None)
    assert not direct.is_told("right", "no hash")


def test_a_verifier_is_told_such_that_only_who_has_the_password_knows_it() -> None:
    verifier = database.scram_verifier("right")
    told = database.told_verifier(verifier)
    _, stored, server = verifier.replace(":", "$").split("$")[-3:]
    assert stored not in told
    assert server not in told
    assert database.scram_is_told("right", told)
    assert not database.scram_is_told("wrong", told)
    assert not database.scram_is_told("right", None)
    assert not database.scram_is_told("right", verifier)


TRUSTED = {"guard": True, "shadows": [], "powers": []}


def test_who_could_do_what_only_the_superuser_should_is_said() -> None:
    assert database.trust_problems(TRUSTED, guarded=True) == []
    assert database.trust_problems({**TRUSTED, "guard": None}, guarded=False) == []
    for gone in (False, None):
        [told] = database.trust_problems({**TRUSTED, "guard": gone}, guarded=True)
        assert "the guard of the superadmin's password is gone" in told
    found = {**TRUSTED, "powers": ["koprogo is superuser"], "shadows": ["operator public.||(a,b)"]}
    first, second = database.trust_problems(found, guarded=True)
    assert first == "koprogo is superuser, which only postgres should be"
    assert second.startswith("operator public.||(a,b) has the name of one of Postgres' own")


def test_nothing_is_known_to_be_lost_where_the_database_did_not_answer() -> None:
    assert "nobody knows" in database.lost_told({})


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


def test_whose_session_it_is_says_the_command() -> None:
    assert f"PGOPTIONS='{database.SESSION}'" in shell.psql()
    assert " -U postgres " in shell.psql()
    # What else the observer's sessions have is the role's own: read-only, and not for long.
    assert f"PGOPTIONS='{database.CATALOG}' " in shell.observer_psql()
    for session, role in ((shell.owner_psql(), "koprogo"), (shell.observer_psql(), OBSERVER_ROLE)):
        assert f" -U {role} " in session
        assert "postgres -d" not in session
    query = "SELECT count(*) FROM public.users"
    rows = str(Database().command(query=query, owner=True))
    assert " -U koprogo " in rows
    assert " -U postgres " in str(Database().command(query=query))
    assert host.psql("x", database.OWNER)[-4:] == ("-U", "koprogo", "-d", "x")


def test_rows_of_the_application_are_asked_for_by_its_own_role() -> None:
    """A look as superuser runs whatever stands in the tables' place: one home for who asks what."""
    package = Path(database.__file__).parent
    asked = {
        "STATE_SQL": r"owner=True|owner_psql",
        "held_query()": r"owner=True",
        "written_since(": r"owner=True",
        "clear_sql()": r"owner_psql",
        "insert_sql(": r"owner_psql",
        "password_sql(": r"owner_psql|owner_sql",
        "clean_sql(": r"owner_psql",
        "GUARDED_SQL": r"owner_psql|owner_sql",
    }
    for file in sorted(package.rglob("*.py")):
        if file.name in ("database.py", "state.py") or file.parent.name == "seed":
            continue
        lines = file.read_text("utf-8").splitlines()
        for number, line in enumerate(lines):
            for name, wanted in asked.items():
                if name in line and "`" not in line and not re.match(r"\s*(def|#|\"\"\")", line):
                    around = "\n".join(lines[max(0, number - 2) : number + 3])
                    assert re.search(wanted, around), f"{file}:{number + 1}: {line.strip()}"
