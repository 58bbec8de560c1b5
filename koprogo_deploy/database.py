"""What Postgres must hold besides the application's own tables: SQL text and decisions. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
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

ROLE_QUERY = """
SELECT json_build_object(
  'verifier', (SELECT rolpassword FROM pg_authid WHERE rolname = 'koprogo'),
  'database', EXISTS (SELECT 1 FROM pg_database WHERE datname = 'koprogo_db'))
"""


def migrations_query() -> str:
    """One JSON object about schema, indexes, extension and guard; works on an empty database.

    `query_to_xml` runs the inner query only when the table exists; a plain subselect would not
    even parse without it.
    """
    return """
SELECT json_build_object(
  'migrations', CASE WHEN to_regclass('public._sqlx_migrations') IS NULL THEN '' ELSE
    (xpath('/table/row/m/text()', query_to_xml(
      'SELECT string_agg(version || '':'' || success, '' '' ORDER BY version) AS m
       FROM public._sqlx_migrations', false, false, '')))[1]::text END,
  'indexes', (SELECT coalesce(json_agg(indexname ORDER BY indexname), '[]')
              FROM pg_indexes WHERE schemaname = 'public'),
  'statements', EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'pg_stat_statements'),
  'guard', CASE WHEN to_regclass('koprogo_deploy.superadmin') IS NULL THEN NULL ELSE
    (xpath('/table/row/h/text()', query_to_xml(
      'SELECT password_hash AS h FROM koprogo_deploy.superadmin', false, false, '')))[1]::text END,
  'guard_trigger', EXISTS (SELECT 1 FROM pg_trigger WHERE tgname = 'koprogo_deploy_superadmin'))
"""


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


def scram_matches(password: str, verifier: str | None) -> bool:
    """Whether a verifier, as in pg_authid, was made from this password."""
    match = re.fullmatch(r"SCRAM-SHA-256\$(\d+):([^$]+)\$([^:]+):(.+)", verifier or "")
    if not match:
        return False
    salt = base64.b64decode(match[2])
    return hmac.compare_digest(scram_verifier(password, salt, int(match[1])), verifier or "")


def role_sql(verifier: str, exists: bool) -> str:
    """Make the application's role, or give it another password. No superuser, owns its database."""
    verb = "ALTER" if exists else "CREATE"
    return f"{verb} ROLE koprogo LOGIN PASSWORD '{verifier}';\n"


DATABASE_SQL = """
CREATE DATABASE koprogo_db OWNER koprogo;
REVOKE CONNECT, TEMPORARY ON DATABASE koprogo_db FROM PUBLIC;
"""

# Kept off dumps and migrations: only the application's own sessions time out.
ROLE_SETTINGS_SQL = """
ALTER ROLE koprogo IN DATABASE koprogo_db SET idle_in_transaction_session_timeout = '60s';
"""

EXTENSION_SQL = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements;\n"


def guard_sql(password_hash: str) -> str:
    """Keep the superadmin's password ours: KoproGo resets it to a public one at every start.

    A trigger on `users` puts our hash in place of whatever is written for that row. The hash lies
    in a schema of our own, which the application's role cannot read or change.
    """
    return f"""
BEGIN;
CREATE SCHEMA IF NOT EXISTS koprogo_deploy;
CREATE TABLE IF NOT EXISTS koprogo_deploy.superadmin (password_hash text NOT NULL);
DELETE FROM koprogo_deploy.superadmin;
INSERT INTO koprogo_deploy.superadmin VALUES ('{password_hash}');
CREATE OR REPLACE FUNCTION koprogo_deploy.keep_superadmin_password() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = koprogo_deploy, pg_temp AS $$
BEGIN
  SELECT password_hash INTO STRICT NEW.password_hash FROM koprogo_deploy.superadmin;
  RETURN NEW;
END $$;
GRANT USAGE ON SCHEMA koprogo_deploy TO koprogo;
CREATE OR REPLACE TRIGGER koprogo_deploy_superadmin BEFORE INSERT OR UPDATE ON public.users
  FOR EACH ROW WHEN (lower(NEW.email) = 'admin@koprogo.com')
  EXECUTE FUNCTION koprogo_deploy.keep_superadmin_password();
UPDATE public.users SET updated_at = updated_at WHERE lower(email) = 'admin@koprogo.com';
COMMIT;
"""  # noqa: S608 - a bcrypt hash, made by us


UNGUARD_SQL = """
DROP TRIGGER IF EXISTS koprogo_deploy_superadmin ON public.users;
DROP SCHEMA IF EXISTS koprogo_deploy CASCADE;
"""
