"""What Postgres must hold besides the application's own tables: SQL text and decisions. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

INDEXES = (
    "idx_buildings_org_name",
    "idx_documents_building_id",
    "idx_expenses_building_id",
    "idx_expenses_org_date",
    "idx_meetings_building_id",
    "idx_owners_org_name",
    "idx_units_building_id",
    "idx_units_org_number",
    "idx_units_owner_id",
)

# Reads what the server counts and the tables that `koprogo debug explain` lists; `users` only by
# these columns. A list of what may be read, not of what may not: a newer image brings tables of
# tokens and keys whose names nobody knows here. Nothing else needs more: catalogs, sizes and
# statistics are open to it as a member of pg_monitor.
OBSERVER = "koprogo_observer"
OBSERVER_TABLES = (
    "_sqlx_migrations",
    "buildings",
    "documents",
    "expenses",
    "meetings",
    "organizations",
    "owners",
    "units",
)
OBSERVER_USER_COLUMNS = (
    "created_at",
    "email",
    "first_name",
    "id",
    "is_active",
    "last_name",
    "organization_id",
    "role",
    "updated_at",
)
OBSERVER_CONNECTIONS = 4
OBSERVER_SETTINGS = {
    "default_transaction_read_only": "on",
    "idle_in_transaction_session_timeout": "30s",
    "lock_timeout": "2s",
    # The watcher does not show in what it watches.
    "pg_stat_statements.track": "none",
    "statement_timeout": "15s",
}
# Any role may make large objects, a transaction that says it may write even as a reader.
_LARGE_OBJECTS = ("lo_creat(integer)", "lo_create(oid)", "lo_from_bytea(oid, bytea)")

# Of every session but the application's: names and operators are the catalog's, whatever it put
# into its own schema.
CATALOG = "-c search_path=pg_catalog,pg_temp"
# Of every session of the superuser, whatever the application set for its database, which it owns.
SESSION = (
    f"{CATALOG} -c role=none -c standard_conforming_strings=on "
    "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c lock_timeout=0 "
    "-c default_transaction_read_only=off -c client_encoding=UTF8"
)

# What would lie in the server's log, where more than the superuser read: the statement of an error
# or of a slow run, as it stands. For scripts that hold a hash.
_UNLOGGED = """SET log_min_error_statement = panic;
SET log_min_duration_statement = -1;
SET log_min_duration_sample = -1;
SET log_statement = 'none';
"""

# Whose rows are somebody's data; one that is not there is left out. The superadmin is everywhere.
_HELD = {
    **{name: name for name in OBSERVER_TABLES if name != "_sqlx_migrations"},
    "users": "users WHERE role <> ''superadmin''",
}


def held_query() -> str:
    """One JSON object: `rows` of the application by table; works on an empty database."""
    tables = ", ".join(
        f"('{name}', 'SELECT count(*) AS n FROM public.{source}')"  # noqa: S608 - names of ours
        for name, source in sorted(_HELD.items())
    )
    return f"""
SELECT json_build_object('rows', coalesce(json_object_agg(name, n), '{{}}')) FROM (
  SELECT name, (xpath('/table/row/n/text()', query_to_xml(q, false, false, '')))[1]::text::bigint
    AS n FROM (VALUES {tables}) AS held (name, q)
   WHERE to_regclass('public.' || name) IS NOT NULL) AS counted"""  # noqa: S608 - names of ours


# Lists that a tenant asks, and where their rows are.
TENANT_LISTS = {
    f"/{table}": table for table in ("buildings", "units", "owners", "expenses", "meetings")
}


def tenant_query() -> str:
    """One JSON object: `organization`, the one with most kinds of rows, and `rows` of it by list.

    `organization` is null where there is none, as on an empty database. One that has the table of
    organisations, and lacks what a list needs, gives an error. It reads no row's content.
    """
    of = "WHERE organization_id = o.id"
    there = " + ".join(
        f"(EXISTS (SELECT FROM public.{table} {of}))::int" for table in TENANT_LISTS.values()
    )
    counts = ", ".join(
        f"'{path}', (SELECT count(*) FROM public.{table} {of})"  # noqa: S608 - names of ours
        for path, table in TENANT_LISTS.items()
    )
    # As hexadecimal through XML, which would escape what is in it.
    inner = f"""SELECT encode(convert_to(json_build_object(
  'organization', o.id, 'rows', json_build_object({counts}))::text, 'UTF8'), 'hex') AS j
  FROM (SELECT id FROM public.organizations AS o
         ORDER BY {there} DESC, (SELECT count(*) FROM public.units {of}) DESC, id LIMIT 1) AS o"""  # noqa: S608
    return f"""
SELECT coalesce(CASE WHEN to_regclass('public.organizations') IS NOT NULL THEN
    convert_from(decode(substring(query_to_xml($q${inner}$q$, false, true, '')::text
    FROM '<j>([0-9a-f]*)</j>'), 'hex'), 'UTF8')::json END, '{{"organization": null}}'::json)"""  # noqa: S608


# Owns the database and all that is in it. A backend logs in as a member of it that is made for its
# release's set of secrets: where the password changes, either colour can log in with its own.
OWNER = "koprogo"
USER = "DATABASE_USER"  # in the backend's environment

# The owner itself logs in without a password: only from inside the container, as the superuser
# does, for our own work on what is the application's.
_LOGINS = rf"""rolcanlogin AND rolname ~ '^{OWNER}(_[0-9a-f]+)?$'
   AND (rolname <> '{OWNER}' OR rolpassword IS NOT NULL)"""
LOGINS_QUERY = f"""
SELECT coalesce(json_object_agg(rolname, rolpassword), '{{}}') FROM pg_authid
 WHERE {_LOGINS}"""  # noqa: S608 - a name of ours

# What is told of a verifier: how to make it from the password, and a hash of the whole of it.
_TOLD_VERIFIER = """substring(rolpassword FROM '^SCRAM-SHA-256[$][0-9]+:[^$]+') || ' '
    || encode(sha256(convert_to(rolpassword, 'UTF8')), 'hex')"""
ROLE_QUERY = f"""
SELECT json_build_object(
  'logins', (SELECT coalesce(json_object_agg(rolname, {_TOLD_VERIFIER}), '{{}}')
             FROM pg_authid WHERE {_LOGINS}),
  'owner', EXISTS (SELECT 1 FROM pg_authid WHERE rolname = '{OWNER}' AND rolcanlogin),
  'database', EXISTS (SELECT 1 FROM pg_database WHERE datname = 'koprogo_db'))
"""  # noqa: S608 - names of ours


_OBSERVER_QUERY = f"""(SELECT json_build_object(
    'attributes', array_to_json(array_remove(ARRAY[
      CASE WHEN rolcanlogin THEN 'login' END, CASE WHEN rolinherit THEN 'inherit' END,
      CASE WHEN rolsuper THEN 'superuser' END, CASE WHEN rolcreaterole THEN 'createrole' END,
      CASE WHEN rolcreatedb THEN 'createdb' END, CASE WHEN rolreplication THEN 'replication' END,
      CASE WHEN rolbypassrls THEN 'bypassrls' END,
      CASE WHEN rolpassword IS NOT NULL THEN 'password' END], NULL)),
    'connections', rolconnlimit,
    'settings', (SELECT coalesce(json_agg(s ORDER BY s), '[]') FROM pg_db_role_setting,
                 unnest(setconfig) AS s WHERE setrole = r.oid),
    'member_of', (SELECT coalesce(json_agg(roleid::regrole::text), '[]')
                  FROM pg_auth_members WHERE member = r.oid),
    'connect', has_database_privilege(r.oid, current_database(), 'CONNECT'),
    'creates', has_schema_privilege(r.oid, 'public', 'CREATE')
               OR has_database_privilege(r.oid, current_database(), 'CREATE, TEMPORARY'),
    'large_objects', {
    " OR ".join(
        f"has_function_privilege(r.oid, 'pg_catalog.{f}', 'EXECUTE')" for f in _LARGE_OBJECTS
    )
},
    'privileges', (SELECT coalesce(json_agg(p ORDER BY p), '[]') FROM (
      SELECT relname || ' ' || privilege_type AS p FROM pg_class, aclexplode(relacl)
       WHERE grantee = r.oid
      UNION ALL
      SELECT relname || '.' || attname || ' ' || privilege_type
        FROM pg_attribute JOIN pg_class c ON c.oid = attrelid, aclexplode(attacl)
       WHERE grantee = r.oid) AS granted))
   FROM pg_authid AS r WHERE rolname = '{OBSERVER}')"""  # noqa: S608 - names of ours


# The application owns its table of migrations, and may put anything in its place or upon it. No
# statement that is planned reads it, since planning runs what an index, a constraint or statistics
# of the application's are made of; COPY of a plain table of plain types takes its rows as they lie.
_PLAIN = """(SELECT count(*) = 2 FROM pg_class c JOIN pg_attribute ON attrelid = c.oid
    WHERE c.oid = to_regclass('public._sqlx_migrations') AND relkind = 'r'
      AND (attname, atttypid) IN (('version', 'int8'::regtype), ('success', 'bool'::regtype)))"""
MIGRATIONS_SQL = f"""SELECT to_regclass('public._sqlx_migrations') IS NOT NULL AS there,
  {_PLAIN} AS plain \\gset
\\if :there
\\if :plain
COPY public._sqlx_migrations (version, success) TO STDOUT;
\\else
SELECT E'unreadable\\tf';
\\endif
\\endif
"""
"""For psql's standard input: prints a line for each migration, and `answer` reads them."""
_MIGRATION = re.compile(r"(\d+|unreadable)\t([tf])")


def answer(printed: str) -> dict[str, Any]:
    """What a script of a look printed: `migrations` as `version:success`, and its JSON object.

    Args:
        printed: lines of `MIGRATIONS_SQL`, if there are any, and then one of JSON, if there is one.

    Raises:
        ValueError: something else is there.
    """
    rows, lines = [], [line for line in printed.splitlines() if line.strip()]
    while lines and (row := _MIGRATION.fullmatch(lines[0])):
        rows.append(f"{row[1]}:{'true' if row[2] == 't' else 'false'}")
        del lines[0]
    found: dict[str, Any] = json.loads("\n".join(lines)) if lines else {}
    return {"migrations": " ".join(sorted(rows)), **found} if rows else found


def migrations_query() -> str:
    """Script of a look at schema, extension, guard, observer; works on an empty database.

    For the superuser; it looks at catalogs, and runs nothing of the application's. `query_to_xml`
    runs the inner query only when the table exists; a plain subselect would not even parse
    without it. `answer` reads what it prints.
    """
    return f"""{MIGRATIONS_SQL}SELECT json_build_object(
  'indexes', (SELECT coalesce(json_agg(indexname ORDER BY indexname), '[]')
              FROM pg_indexes WHERE schemaname = 'public'),
  'statements', EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'pg_stat_statements'),
  'guard', CASE WHEN to_regclass('{SCHEMA}.applied') IS NULL THEN NULL ELSE
    (xpath('/table/row/h/text()', query_to_xml(
      'SELECT {digest("password_hash", doubled=True)} AS h FROM {SCHEMA}.superadmin
       WHERE password_hash IN (SELECT password_hash FROM {SCHEMA}.applied)',
      false, false, '')))[1]::text END,
  'trust', {trust_query()},
  'observer', {_OBSERVER_QUERY},
  'tables', (SELECT coalesce(json_agg(relname ORDER BY relname), '[]') FROM pg_class
             WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')),
  'user_columns', (SELECT coalesce(json_agg(attname ORDER BY attname), '[]') FROM pg_attribute
                   WHERE attrelid = to_regclass('public.users')
                     AND attnum > 0 AND NOT attisdropped));
"""  # noqa: S608 - names of ours


def applied_query() -> str:
    """Script of a look from afar: `migrations`, as `version:success`, and `trust`."""
    return f"{MIGRATIONS_SQL}SELECT json_build_object('trust', {trust_query()});\n"


def digest(column: str, doubled: bool = False) -> str:
    """SQL of what is told of a bcrypt hash: its salt, and a hash of the whole of it.

    Who has the password can tell that it is the one; the hash itself stays where it is.

    Args:
        column: where it stands.
        doubled: the SQL stands in a literal itself.
    """
    text = f"left({column}, 29) || encode(sha256(convert_to({column}, 'UTF8')), 'hex')"
    return text.replace("'", "''") if doubled else text


def told(password_hash: str) -> str:
    """What `digest` makes of a bcrypt hash."""
    return password_hash[:29] + hashlib.sha256(password_hash.encode()).hexdigest()


def parse_migrations(text: str | None) -> dict[str, bool]:
    """Read `version:success` pairs."""
    pairs = (pair.partition(":") for pair in (text or "").split())
    return {version: success == "true" for version, _, success in pairs}


def versions(files: Sequence[str]) -> set[str]:
    """Migration versions of file names such as `20240101000000_create_extensions.sql`."""
    found = (re.match(r"(\d+)_\w+\.sql$", name) for name in files)
    return {match[1] for match in found if match}


def cannot_start(applied: Mapping[str, bool], image: set[str]) -> str:
    """Why an image cannot start on this database; empty if it can.

    sqlx refuses a database with a version that the image does not know: going back to an older
    image across a migration needs the dump. Versions are compared as a set, since KoproGo adds
    back-dated ones.
    """
    unknown = sorted(set(applied) - image)
    if unknown:
        return (
            f"the database has {len(unknown)} migration(s) that the image lacks "
            f"({', '.join(unknown[:3])}{' …' if len(unknown) > 3 else ''}), and would not start; "
            "take an image that has them, or restore the dump made before them"
        )
    failed = sorted(version for version, success in applied.items() if not success)
    if failed:
        return f"migration {failed[0]} failed half-way earlier; restore the dump made before it"
    return ""


def not_migrated(state: Mapping[str, Any], image: set[str]) -> list[str]:
    """What is missing in the database after the image came up; empty when all is there."""
    applied = parse_migrations(state.get("migrations"))
    problems = []
    if reason := cannot_start(applied, image):
        problems.append(reason)
    if pending := sorted(image - set(applied)):
        problems.append(f"{len(pending)} migration(s) of the image not applied: {pending[0]} …")
    if lost := sorted(set(INDEXES) - set(state.get("indexes") or [])):
        problems.append(f"indexes missing: {', '.join(lost)}")
    if not state.get("statements"):
        problems.append("extension pg_stat_statements missing")
    return problems


def written_since(moment: str) -> str:
    """One JSON object: `created:changed` by table since a moment, as the rows themselves say.

    A table without `updated_at` says nothing of changes, one without `created_at` nothing at all.

    Args:
        moment: ISO time.
    """
    return f"""
SELECT coalesce(json_object_agg(t.name, CASE WHEN t.created THEN
    (xpath('/table/row/w/text()', query_to_xml(format(
      'SELECT count(*) FILTER (WHERE created_at > %1$L) || '':'' || %3$s AS w FROM public.%2$I',
      {literal(moment)}, t.name, CASE WHEN t.updated THEN format(
        'count(*) FILTER (WHERE updated_at > %1$L AND created_at <= %1$L)', {literal(moment)})
        ELSE '''''' END), false, false, '')))[1]::text END), '{{}}')
FROM (SELECT relname AS name, bool_or(attname = 'created_at') AS created,
             bool_or(attname = 'updated_at') AS updated
      FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
      WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND attnum > 0
        AND NOT attisdropped AND relname <> '_sqlx_migrations'
      GROUP BY relname) AS t
"""  # noqa: S608 - a time of ours


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL takes it, whatever is in it."""
    return "'" + text.replace("'", "''") + "'"


def lost_told(counted: Mapping[str, str | None]) -> str:
    """What a restore would lose, from the answer to `written_since`, and how it was counted."""
    if not counted:  # every table has its answer
        return "What would be lost since then nobody knows: the database did not answer"
    found, silent = [], []
    for table, counts in sorted(counted.items()):
        if counts is None:
            silent.append(table)
            continue
        created, _, changed = counts.partition(":")
        words = [f"{created} new"] if created != "0" else []
        words += [f"{changed} changed"] if changed not in ("", "0") else []
        if words:
            found.append(f"{table} {', '.join(words)}")
    lost = f"Lost would be, since then: {'; '.join(found)}" if found else "Nothing new since then"
    unsaid = f" nor the tables without created_at: {', '.join(silent)}" if silent else ""
    return (
        f"{lost} (counted now, by created_at and updated_at; rows deleted since are not counted"
        f"{',' + unsaid if unsaid else ''})"
    )


def scram_verifier(password: str, salt: bytes | None = None, iterations: int = 4096) -> str:
    """Postgres' SCRAM-SHA-256 verifier of a password (RFC 5803): no clear text in any log.

    Args:
        password: ASCII, as our generated secrets are.
        salt: 16 random bytes unless given.
        iterations: Postgres' own default.
    """
    salt = salt or os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored = hashlib.sha256(client).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{parts[0]}${parts[1]}:{parts[2]}"


def told_verifier(verifier: str) -> str:
    """What `ROLE_QUERY` tells of a verifier."""
    whole = hashlib.sha256(verifier.encode()).hexdigest()
    return f"{verifier.rpartition('$')[0]} {whole}"


def scram_is_told(password: str, found: str | None) -> bool:
    """Whether a verifier of which this is told was made from the password."""
    match = re.fullmatch(r"SCRAM-SHA-256\$(\d+):([^$ ]+) [0-9a-f]{64}", found or "")
    if not match:
        return False
    again = scram_verifier(password, base64.b64decode(match[2]), int(match[1]))
    return hmac.compare_digest(told_verifier(again), found or "")


def login_name(directory: str) -> str:
    """Role that a backend logs in as, by the directory of its secrets. Pure."""
    return f"{OWNER}_{directory.rpartition('-')[2]}"


def login_of(manifest: Mapping[str, Any]) -> str:
    """Role that a release's backend logs in as. Pure."""
    # Releases of before there were others log in as the owner.
    return str(manifest["definitions"]["backend"]["environment"].get(USER, OWNER))


def login_sql(login: str, verifier: str) -> str:
    """Make a role that the backend logs in as, or give it a password; in a session it is the owner.

    Args:
        login: its name.
        verifier: of its password.
    """
    made = "".join(
        f"DO $$ BEGIN CREATE ROLE {name}; EXCEPTION WHEN duplicate_object THEN NULL; END $$;\n"
        for name in dict.fromkeys((OWNER, login))
    )
    owner = (
        ""
        if login == OWNER
        else f"GRANT {OWNER} TO {login};\nALTER ROLE {login} SET role = '{OWNER}';\n"
    )
    # pg_stat_statements keeps such a statement as it is, and more than the superuser reads it.
    return f"""SET pg_stat_statements.track_utility = off;
{_UNLOGGED}BEGIN;
{made}ALTER ROLE {OWNER} LOGIN;
ALTER ROLE {login} LOGIN PASSWORD '{verifier}';
ALTER ROLE {login} SET idle_in_transaction_session_timeout = '60s';
{owner}COMMIT;
"""


# From inside the container alone, where it needs no password (pg_ident.conf).
OWNER_LOGIN_SQL = f"ALTER ROLE {OWNER} LOGIN;\n"


def unlogged(script: str) -> str:
    """A superuser's script that holds hashes, such that none of it comes into a log."""
    return f"SET pg_stat_statements.track_utility = off;\n{_UNLOGGED}{script}"


def no_login_sql(logins: Sequence[str]) -> str:
    """Nobody logs in with these passwords any more; what such a role made is the owner's."""
    return "".join(
        f"ALTER ROLE {login} PASSWORD NULL;\n"
        if login == OWNER
        else f"REASSIGN OWNED BY {login} TO {OWNER};\nDROP OWNED BY {login};\nDROP ROLE {login};\n"
        for login in logins
    )


_MAY = ("superuser", "inherit", "createrole", "createdb", "login", "replication", "bypassrls")
_QUOTED_LISTS = ("search_path", "temp_tablespaces", "local_preload_libraries",
                 "session_preload_libraries", "shared_preload_libraries")  # fmt: skip


def roles_query(passwords: bool) -> str:
    """One JSON object: every role but the superuser, with all that another server needs of it.

    Args:
        passwords: verifiers, too; else null.
    """
    columns = [{"superuser": "rolsuper", "login": "rolcanlogin"}.get(m, f"rol{m}") for m in _MAY]
    may = ", ".join(f"'{name}', {column}" for name, column in zip(_MAY, columns, strict=True))
    return f"""
SELECT coalesce(json_object_agg(rolname, json_build_object(
  'may', json_build_object({may}), 'connections', rolconnlimit, 'until', rolvaliduntil,
  'password', {"rolpassword" if passwords else "NULL::text"},
  'member_of', (SELECT coalesce(json_agg(to_jsonb(m)
                || jsonb_build_object('role', g.rolname)), '[]')
                FROM pg_auth_members m JOIN pg_roles g ON g.oid = roleid WHERE member = r.oid),
  'settings', (SELECT coalesce(json_agg(s), '[]') FROM pg_db_role_setting, unnest(setconfig) AS s
               WHERE setrole = r.oid AND setdatabase = 0))), '{{}}')
FROM pg_authid AS r WHERE rolname <> 'postgres' AND rolname !~ '^pg_'
"""  # noqa: S608 - names of ours


def roles_sql(found: Mapping[str, Any]) -> str:
    """Make the roles of another server. Pure.

    Statements of our own on values that are quoted: a role may have given itself any setting, with
    line breaks in it, and pg_dumpall's text with some lines left out would be another text. Lists
    of names are left out: they say where things are looked for.

    Args:
        found: what `roles_query` gave there.
    """
    made, granted, kept = [], [], []
    for name, role in sorted(found.items()):
        this = quoted(name)
        may = " ".join(f"{'' if role['may'][m] else 'NO'}{m.upper()}" for m in _MAY)
        password = f" PASSWORD {literal(role['password'])}" if role["password"] else ""
        until = f" VALID UNTIL {literal(role['until'])}" if role["until"] else ""
        made.append(
            f"CREATE ROLE {this};\nALTER ROLE {this} WITH {may} "
            f"CONNECTION LIMIT {int(role['connections'])}{password}{until};\n"
        )
        for member in role["member_of"]:
            options = [
                f"{word} {'TRUE' if member[option] else 'FALSE'}"
                for word, option in (("INHERIT", "inherit_option"), ("SET", "set_option"))
                if option in member  # since 16
            ]
            if member["admin_option"]:
                options.insert(0, "ADMIN TRUE" if options else "ADMIN OPTION")
            with_ = f" WITH {', '.join(options)}" if options else ""
            granted.append(f"GRANT {quoted(member['role'])} TO {this}{with_};\n")
        for setting in role["settings"]:
            key, _, value = setting.partition("=")
            if key.lower() not in _QUOTED_LISTS:
                kept.append(f"ALTER ROLE {this} SET {quoted(key)} = {literal(value)};\n")
    return "".join((*made, *granted, *kept))


DATABASE_SQL = """
CREATE DATABASE koprogo_db OWNER koprogo;
REVOKE CONNECT, TEMPORARY ON DATABASE koprogo_db FROM PUBLIC;
"""

EXTENSION_SQL = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements WITH SCHEMA public;\n"

SUPERADMIN = "admin@koprogo.com"  # KoproGo makes it at each start
SCHEMA = "koprogo_deploy"  # of our own in the application's database
TRIGGER = "zzzz_koprogo_deploy_superadmin"  # they fire in the order of their names: the last word
FORMER_TRIGGER = "koprogo_deploy_superadmin"  # in dumps of before it had the last word
WATCH = "koprogo_deploy_guard"  # the event trigger

_GUARDED = f"""EXISTS (SELECT FROM pg_catalog.pg_trigger
    WHERE tgrelid = pg_catalog.to_regclass('public.users') AND tgname = '{TRIGGER}'
      AND tgfoid = pg_catalog.to_regproc('{SCHEMA}.keep_superadmin_password')
      AND tgenabled IN ('O', 'A') AND tgtype = 23 AND tgqual IS NULL AND tgnargs = 0
      AND tgattr = ''::int2vector)"""
# What the guard cannot see to: who comes after it, and rows that go another way.
_UNDERMINED = f"""(EXISTS (SELECT FROM pg_trigger
      WHERE tgrelid = to_regclass('public.users') AND tgname > '{TRIGGER}' COLLATE "C"
        AND tgtype & 3 = 3 AND NOT tgisinternal)
    OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = to_regclass('public.users'))
    OR EXISTS (SELECT FROM pg_inherits WHERE inhparent = to_regclass('public.users'))
    OR (SELECT count(*) <> 2 FROM pg_attribute WHERE attrelid = to_regclass('public.users')
        AND attname IN ('email', 'password_hash')
        AND atttypid IN ('text'::regtype, 'varchar'::regtype)))"""  # noqa: S608 - a name of ours
_GUARD_TRIGGER = f"""CREATE OR REPLACE TRIGGER {TRIGGER} BEFORE INSERT OR UPDATE ON public.users
  FOR EACH ROW EXECUTE FUNCTION {SCHEMA}.keep_superadmin_password()"""


def guard_sql(password_hash: str) -> str:
    """Keep the superadmin's password ours: KoproGo resets it to a public one at every start.

    A trigger on `users` puts our hash in place of whatever is written for that row. The hash lies
    in a schema of our own, which the application's role cannot change. It owns `users`, and so
    could drop or switch off that trigger: an event trigger, which only the superuser may touch,
    has it there again before that command ends. Both run with the rights of whoever sets them off,
    which is the application, on columns whose types are the application's own. For the superuser;
    `GUARDED_SQL` follows.
    """
    return f"""{_UNLOGGED}SET client_min_messages = warning;
BEGIN;
-- Whoever made what lies there: the application could have been first.
{UNGUARD_SQL}CREATE SCHEMA {SCHEMA};
CREATE TABLE {SCHEMA}.superadmin (password_hash text NOT NULL);
INSERT INTO {SCHEMA}.superadmin VALUES ('{password_hash}');
-- Filled by the application's role once the row has that hash.
CREATE TABLE {SCHEMA}.applied (password_hash text NOT NULL);
CREATE FUNCTION {SCHEMA}.keep_superadmin_password() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF lower(NEW.email COLLATE "C") = '{SUPERADMIN}' THEN
    SELECT password_hash INTO STRICT NEW.password_hash FROM {SCHEMA}.superadmin;
  END IF;
  RETURN NEW;
END $$;
CREATE FUNCTION {SCHEMA}.keep_guard() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('public.users') AND relkind IN ('r', 'p'))
     AND NOT {_GUARDED} THEN
    {_GUARD_TRIGGER};
  END IF;
EXCEPTION WHEN OTHERS THEN
  -- A migration of the application's does not fail for it; koprogo status says that it is gone.
  RAISE WARNING 'the guard of the superadmin is gone: %', SQLERRM;
END $$;
GRANT USAGE ON SCHEMA {SCHEMA} TO {OWNER};
GRANT SELECT ON {SCHEMA}.superadmin TO {OWNER};
GRANT INSERT ON {SCHEMA}.applied TO {OWNER};
{_GUARD_TRIGGER};
CREATE EVENT TRIGGER {WATCH} ON ddl_command_end EXECUTE FUNCTION {SCHEMA}.keep_guard();
COMMIT;
"""  # noqa: S608 - a bcrypt hash, made by us


UNGUARD_SQL = f"""DROP EVENT TRIGGER IF EXISTS {WATCH};
DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;
"""

# In a session of the owner: the row is touched, and the guard gives it its password.
GUARDED_SQL = f"""UPDATE public.users SET updated_at = updated_at
 WHERE lower(email) = '{SUPERADMIN}';
INSERT INTO {SCHEMA}.applied SELECT password_hash FROM {SCHEMA}.superadmin;
"""  # noqa: S608 - names of ours


def trust_query() -> str:
    """SQL of one JSON object: who could do in Postgres what only the superuser should. Catalogs.

    `guard`: null without one; whether all of it is there. `shadows`: what is called as something
    of Postgres' own. `powers`: what a role may do beyond its database. `hidden`: tables of an
    extension, for pg_dump. `elsewhere`: where the application is made to look for its tables.
    """
    return f"""(SELECT json_build_object(
    'guard', CASE WHEN to_regclass('{SCHEMA}.superadmin') IS NOT NULL THEN
      {_GUARDED} AND NOT {_UNDERMINED}
      AND EXISTS (SELECT FROM pg_event_trigger WHERE evtname = '{WATCH}'
        AND evtenabled IN ('O', 'A') AND evtevent = 'ddl_command_end' AND evttags IS NULL
        AND evtfoid = to_regproc('{SCHEMA}.keep_guard')) AND EXISTS (SELECT FROM pg_proc
        WHERE oid = to_regproc('{SCHEMA}.keep_superadmin_password')
          AND proowner = {_BOOTSTRAP}) END,
    'shadows', (SELECT coalesce(json_agg(s ORDER BY s), '[]') FROM (
      SELECT 'function ' || p.oid::regprocedure AS s FROM pg_proc p
       WHERE pronamespace NOT IN ({_OURS}) AND NOT EXISTS (SELECT FROM pg_depend
             WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e'
               AND proowner = {_BOOTSTRAP})
         AND EXISTS (SELECT FROM pg_proc o WHERE o.proname = p.proname
                     AND o.pronamespace = 'pg_catalog'::regnamespace)
      UNION ALL
      SELECT 'function ' || p.oid::regprocedure || ' in pg_catalog' FROM pg_proc p
       WHERE pronamespace = 'pg_catalog'::regnamespace AND oid >= {_FIRST_OF_USERS}
         AND NOT EXISTS (SELECT FROM pg_depend
             WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e')
      UNION ALL
      SELECT 'operator ' || p.oid::regoperator FROM pg_operator p
       WHERE oprnamespace NOT IN ({_OURS}) AND NOT EXISTS (SELECT FROM pg_depend
             WHERE classid = 'pg_operator'::regclass AND objid = p.oid AND deptype = 'e'
               AND oprowner = {_BOOTSTRAP})
         AND EXISTS (SELECT FROM pg_operator o WHERE o.oprname = p.oprname
                     AND o.oprnamespace = 'pg_catalog'::regnamespace)) AS called),
    'powers', (SELECT coalesce(json_agg(p ORDER BY p), '[]') FROM (
      SELECT rolname || ' is ' || attribute AS p FROM pg_roles, LATERAL (VALUES
        (rolsuper, 'superuser'), (rolcreaterole, 'createrole'), (rolcreatedb, 'createdb'),
        (rolreplication, 'replication'), (rolbypassrls, 'bypassrls')) AS may (it, attribute)
       WHERE it AND rolname <> 'postgres' AND rolname !~ '^pg_'
      UNION ALL
      SELECT m.rolname || ' is a member of ' || g.rolname FROM pg_auth_members
        JOIN pg_roles g ON g.oid = roleid JOIN pg_roles m ON m.oid = member
       WHERE (g.rolname ~ '^pg_' OR g.rolname = 'postgres') AND m.rolname !~ '^pg_'
         AND m.rolname <> 'postgres' AND (m.rolname, g.rolname) <> ('{OBSERVER}', 'pg_monitor')
         AND NOT (m.rolname !~ '^{OWNER}' AND g.rolname IN ('pg_monitor', 'pg_read_all_settings',
           'pg_read_all_stats', 'pg_stat_scan_tables', 'pg_use_reserved_connections'))
      ) AS all_of_them),
    'hidden', ({HIDDEN_QUERY}),
    'elsewhere', (SELECT coalesce(json_agg(DISTINCT w), '[]') FROM (
      SELECT coalesce(rolname, datname) || ' has ' || s AS w FROM pg_db_role_setting
        LEFT JOIN pg_roles r ON r.oid = setrole LEFT JOIN pg_database d ON d.oid = setdatabase,
        unnest(setconfig) AS s
       WHERE s ~ '^search_path=' AND (rolname ~ '^{OWNER}' OR setrole = 0)
         AND coalesce(datname, current_database()) = current_database()) AS set)))"""  # noqa: S608


_BOOTSTRAP = 10  # oid of the superuser that initdb makes, whose is what an extension brings
_FIRST_OF_USERS = 16384  # what Postgres itself brings has a lower oid
# A table that the application gave to an extension: pg_dump leaves it to CREATE EXTENSION.
HIDDEN_QUERY = f"""SELECT coalesce(json_agg(c.oid::regclass || ' (' || extname || ')'), '[]')
      FROM pg_depend JOIN pg_class c ON c.oid = objid JOIN pg_extension x ON x.oid = refobjid
     WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_extension'::regclass
       AND deptype = 'e' AND relkind IN ('r', 'p', 'm', 'S') AND relowner <> {_BOOTSTRAP}"""  # noqa: S608
_OURS = f"""SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_'
         OR nspname IN ('information_schema', '{SCHEMA}')"""  # noqa: S608 - a name of ours


def trust_problems(found: Mapping[str, Any], guarded: bool) -> list[str]:
    """Who could do what only the superuser should, a line each; empty when nobody can.

    Args:
        found: what `trust_query` gave.
        guarded: the superadmin's password should be kept.
    """
    problems = [f"{each}, which only postgres should be" for each in found.get("powers") or ()]
    problems += [
        f"{each} has the name of one of Postgres' own: whoever made it may want it to be taken "
        "for that"
        for each in found.get("shadows") or ()
    ]
    problems += [hidden_told(each) for each in found.get("hidden") or ()]
    problems += [
        f"{each}: the application may find other tables than its own there"
        for each in found.get("elsewhere") or ()
    ]
    if guarded and not found.get("guard"):
        problems.append(
            "the guard of the superadmin's password is gone, or something comes after it: the "
            "public password may work"
        )
    return problems


def hidden_told(table: str) -> str:
    """What is said of a table that was given to an extension.

    Args:
        table: its name, and in brackets the extension's.
    """
    name, _, extension = table.rstrip(")").partition(" (")
    return (
        f"the table {name} was given to the extension {extension}, so that no dump holds it: "
        f"ALTER EXTENSION {extension} DROP TABLE {name}"
    )


def observer_privileges(state: Mapping[str, Any]) -> set[str]:
    """What the observer may do to tables: `table SELECT` and `users.column SELECT`, as they are."""
    tables = set(state.get("tables") or ()) & set(OBSERVER_TABLES)
    columns = set(state.get("user_columns") or ()) & set(OBSERVER_USER_COLUMNS)
    return {f"{name} SELECT" for name in tables} | {f"users.{name} SELECT" for name in columns}


def observer_problems(state: Mapping[str, Any]) -> list[str]:
    """How the observer differs from what it should be; empty when it is right.

    Args:
        state: what `migrations_query` gave.
    """
    found = state.get("observer")
    if not found:
        return [f"there is no role {OBSERVER}"]
    wanted: dict[str, Any] = {
        "attributes": ["inherit", "login"],
        "connections": OBSERVER_CONNECTIONS,
        "settings": sorted(f"{name}={value}" for name, value in OBSERVER_SETTINGS.items()),
        "member_of": ["pg_monitor"],
        "connect": True,
        "creates": False,
        "large_objects": False,
        "privileges": sorted(observer_privileges(state)),
    }
    there = {k: sorted(v) if isinstance(v, list) else v for k, v in found.items()}
    return [
        f"{OBSERVER}: {name} is {there.get(name)}, not {value}"
        for name, value in wanted.items()
        if there.get(name) != value
    ]


def observer_sql(state: Mapping[str, Any]) -> str:
    """Make the observer what it should be, whatever it was: it reads, and cannot write.

    Its own session may switch read-only off again; what holds is that nothing lets it write.

    Args:
        state: what `migrations_query` gave: the tables there are.
    """
    settings = "".join(
        f"ALTER ROLE {OBSERVER} SET {name} = '{value}';\n"
        for name, value in OBSERVER_SETTINGS.items()
    )
    functions = ", ".join(f"pg_catalog.{name}" for name in _LARGE_OBJECTS)
    tables = sorted(set(state.get("tables") or ()) & set(OBSERVER_TABLES))
    columns = sorted(set(state.get("user_columns") or ()) & set(OBSERVER_USER_COLUMNS))
    grants = "".join(f"GRANT SELECT ON public.{name} TO {OBSERVER};\n" for name in tables)
    if columns:
        grants += f"GRANT SELECT ({', '.join(columns)}) ON public.users TO {OBSERVER};\n"
    create = "" if state.get("observer") else f"CREATE ROLE {OBSERVER};\n"
    return f"""
BEGIN;
{create}ALTER ROLE {OBSERVER} LOGIN INHERIT NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION
  NOBYPASSRLS PASSWORD NULL CONNECTION LIMIT {OBSERVER_CONNECTIONS};
DO $$ DECLARE granted regrole; BEGIN
  FOR granted IN SELECT roleid FROM pg_auth_members WHERE member = '{OBSERVER}'::regrole LOOP
    EXECUTE format('REVOKE %s FROM {OBSERVER}', granted);
  END LOOP;
END $$;
GRANT pg_monitor TO {OBSERVER};
ALTER ROLE {OBSERVER} RESET ALL;
ALTER ROLE {OBSERVER} IN DATABASE koprogo_db RESET ALL;
{settings}GRANT CONNECT ON DATABASE koprogo_db TO {OBSERVER};
REVOKE CREATE, TEMPORARY ON DATABASE koprogo_db FROM PUBLIC;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO {OBSERVER};
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {OBSERVER};
REVOKE EXECUTE ON FUNCTION {functions} FROM PUBLIC;
GRANT EXECUTE ON FUNCTION {functions} TO koprogo;
{grants}COMMIT;
"""  # noqa: S608 - names of ours
