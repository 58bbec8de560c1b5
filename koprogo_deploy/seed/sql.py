r"""The seed as psql scripts: insert it, take it away, set its password.

The scripts are meant for ``psql -X -q -f -`` with the script on standard input, so that the
password hash shows in no argument list. Each is one transaction, stops at the first error (psql
then exits with 3) and prints one line of JSON, after the COMMIT, when it has done its work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from koprogo_deploy.seed.generate import check_bcrypt
from koprogo_deploy.seed.identity import SEED_ID_PATTERN, SeedError
from koprogo_deploy.seed.model import (
    Building,
    Dataset,
    Expense,
    Organization,
    Owner,
    Unit,
    User,
)

# First eight bytes of SHA-256 of "koprogo-deploy/seed", as Postgres' signed bigint.
ADVISORY_LOCK: Final = -5756706489154756463

# Parents first, as foreign keys want it.
_TABLES: Final[tuple[tuple[str, type[Any]], ...]] = (
    ("organizations", Organization),
    ("users", User),
    ("buildings", Building),
    ("owners", Owner),
    ("units", Unit),
    ("expenses", Expense),
)

# Every table that clearing looks at; their names are those of the migrations to 20250103000001.
SCHEMA_TABLES: Final = (
    "organizations", "users", "buildings", "owners", "units", "expenses", "meetings", "documents",
    "user_building_access", "refresh_tokens", "audit_logs",
)  # fmt: skip

_PREAMBLE: Final = r"""\set ON_ERROR_STOP on
\set QUIET on
\encoding UTF8
\pset tuples_only on
\pset format unaligned
"""

# READ COMMITTED, so that what is looked up after the advisory lock has been waited for is what the
# holder before us committed.
_BEGIN: Final = rf"""BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL lock_timeout = '10s';
SET LOCAL statement_timeout = '5min';
SET LOCAL idle_in_transaction_session_timeout = '5min';
DO $$ BEGIN PERFORM pg_advisory_xact_lock({ADVISORY_LOCK}); END $$;
"""


def schema_present_sql() -> str:
    """A boolean SQL expression: whether every table that the seed works with is there."""
    names = ", ".join(f"'{table}'" for table in SCHEMA_TABLES)
    return f"(SELECT bool_and(to_regclass(t) IS NOT NULL) FROM unnest(ARRAY[{names}]) AS t)"  # noqa: S608


def seeded_sql(column: str) -> str:
    """A boolean SQL expression: whether the uuid in `column` is that of a seeded row."""
    return f"({column}::text ~ '{SEED_ID_PATTERN}')"


def insert_sql(dataset: Dataset) -> str:
    """The script that inserts a data set, or nothing at all.

    It waits for any other run, then looks again, inside the transaction, whether a seeded
    organisation or one of the slugs and logins is there already, and raises if so.

    Args:
        dataset: the rows.

    Returns:
        A psql script; its last line of output is ``{"inserted": {"organizations": 3, ...}}``. It
        holds no secret but the bcrypt hash.

    Raises:
        SeedError: a value holds a NUL character, which Postgres cannot store.
    """
    parts = [_PREAMBLE, _BEGIN, _guard(dataset)]
    counts = []
    for table, row_type in _TABLES:
        rows: Sequence[Any] = getattr(dataset, table)
        parts.append(copy_block(table, row_type, rows))
        counts.append(f"'{table}', {len(rows)}")
    parts.append("COMMIT;\n")
    parts.append("ANALYZE " + ", ".join(table for table, _ in _TABLES) + ";\n")
    parts.append(f"SELECT json_build_object('inserted', json_build_object({', '.join(counts)}));\n")
    return "".join(parts)


def _guard(dataset: Dataset) -> str:
    """Raise when a seed is there, or when someone else has one of its unique values."""
    slugs = _literals(row.slug for row in dataset.organizations)
    logins = _literals(row.email for row in dataset.users)
    return rf"""DO $$
DECLARE found text;
BEGIN
  SELECT string_agg(slug, ', ' ORDER BY slug) INTO found
    FROM organizations WHERE {seeded_sql("id")};
  IF found IS NOT NULL THEN
    RAISE EXCEPTION 'seeded organisations are there already: %', left(found, 200)
      USING HINT = 'Clear the seed first; nothing was changed.';
  END IF;
  SELECT string_agg(slug, ', ' ORDER BY slug) INTO found
    FROM organizations WHERE slug IN ({slugs});
  IF found IS NOT NULL THEN
    RAISE EXCEPTION 'organisations that are not seeded have these slugs: %', left(found, 200)
      USING HINT = 'Rename or remove them; nothing was changed.';
  END IF;
  SELECT string_agg(email, ', ' ORDER BY email) INTO found
    FROM users WHERE email IN ({logins});
  IF found IS NOT NULL THEN
    RAISE EXCEPTION 'users that are not seeded have these logins: %', left(found, 200)
      USING HINT = 'Rename or remove them; nothing was changed.';
  END IF;
END $$;
"""  # noqa: S608


def _literals(texts: Iterable[str]) -> str:
    """SQL string literals, separated by commas."""
    return ", ".join("'" + text.replace("'", "''") + "'" for text in texts)


def copy_block(table: str, row_type: type[Any], rows: Iterable[object]) -> str:
    """A ``COPY ... FROM stdin`` with its rows and the line that ends it.

    Args:
        table: where the rows go.
        row_type: their dataclass; its fields are the columns.
        rows: instances of it.

    Returns:
        The statement in COPY's text format
        (https://www.postgresql.org/docs/15/sql-copy.html#id-1.9.3.55.9.2).

    Raises:
        SeedError: a value holds a NUL character.
    """
    columns = [column.name for column in fields(row_type)]
    lines = (
        "\t".join(copy_value(getattr(row, column)) for column in columns) + "\n" for row in rows
    )
    return f"COPY {table} ({', '.join(columns)}) FROM stdin;\n{''.join(lines)}\\.\n"


# psql reads the data line by line: a bare carriage return or newline would end the row.
_ESCAPES: Final = str.maketrans(
    {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r", "\b": r"\b", "\f": r"\f", "\v": r"\v"}
)


def copy_value(value: object) -> str:
    r"""One value in COPY's text format: ``\N`` for None, ``t`` or ``f``, ISO 8601 with offset.

    Args:
        value: None, a bool, number, text (enums included), UUID or aware datetime.

    Returns:
        Text without a bare tab, newline or backslash.

    Raises:
        SeedError: text with a NUL character, a datetime without a zone, or another type.
    """
    if value is None:
        return r"\N"
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, str):
        if "\0" in value:
            raise SeedError("Postgres cannot store a NUL character")
        return str(value).translate(_ESCAPES)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise SeedError(f"{value} has no time zone")
        return value.isoformat(sep=" ")
    if isinstance(value, (int, float, UUID)):
        return str(value)
    raise SeedError(f"no way to write a {type(value).__name__} for COPY")


def clear_sql() -> str:
    """The script that removes every seeded organisation, and nothing else.

    What belongs to such an organisation goes with it, whoever made it: also the rows that people
    added through the application afterwards, the tokens of its users and its audit entries (which
    the schema would otherwise keep, without saying whose they were). Audit entries of other
    organisations that name such a user stay, without that name, as the schema has it.

    Before it removes anything it refuses when a row of another organisation hangs on a seeded
    building or owner (the application does not prevent that): a cascade would take or change it.

    Returns:
        A psql script; its only output is ``{"removed": {"organizations": 3, ...}}``, or
        ``{"removed": null}`` where the application's tables do not exist. Zero organisations is
        not an error.
    """
    return (
        _PREAMBLE
        + f"SELECT {schema_present_sql()} AS schema_present \\gset\n"
        + "\\if :schema_present\n"
        + _BEGIN
        + _CLEAR_BODY
        + "COMMIT;\n"
        + "\\echo :removed\n"
        + "\\else\n"
        + "\\echo '{\"removed\": null}'\n"
        + "\\endif\n"
    )


# FOR UPDATE holds off any insert that would reference one of the organisations, so that the counts
# are those of what the cascades remove.
_CLEAR_BODY: Final = rf"""DO $$
BEGIN PERFORM 1 FROM organizations WHERE {seeded_sql("id")} FOR UPDATE; END $$;
CREATE TEMP TABLE seed_orgs ON COMMIT DROP AS
  SELECT id FROM organizations WHERE {seeded_sql("id")};
CREATE TEMP TABLE seed_buildings ON COMMIT DROP AS
  SELECT id FROM buildings WHERE organization_id IN (SELECT id FROM seed_orgs);
CREATE TEMP TABLE seed_users ON COMMIT DROP AS
  SELECT id FROM users WHERE organization_id IN (SELECT id FROM seed_orgs);
CREATE TEMP TABLE seed_owners ON COMMIT DROP AS
  SELECT id FROM owners WHERE organization_id IN (SELECT id FROM seed_orgs);
DO $$
DECLARE strangers text;
BEGIN
  SELECT string_agg(what, ', ') INTO strangers FROM (
    SELECT count(*) || ' ' || kind AS what FROM (
      SELECT 'units' AS kind, organization_id FROM units
        WHERE building_id IN (SELECT id FROM seed_buildings)
           OR owner_id IN (SELECT id FROM seed_owners)
      UNION ALL SELECT 'expenses', organization_id FROM expenses
        WHERE building_id IN (SELECT id FROM seed_buildings)
      UNION ALL SELECT 'meetings', organization_id FROM meetings
        WHERE building_id IN (SELECT id FROM seed_buildings)
      UNION ALL SELECT 'documents', organization_id FROM documents
        WHERE building_id IN (SELECT id FROM seed_buildings)
    ) AS rows
    WHERE organization_id NOT IN (SELECT id FROM seed_orgs)
    GROUP BY kind ORDER BY kind
  ) AS counted;
  IF strangers IS NOT NULL THEN
    RAISE EXCEPTION 'other organisations have % on seeded buildings or owners', strangers
      USING HINT = 'Move or delete those rows first; nothing was changed.';
  END IF;
END $$;
SELECT json_build_object('removed', json_build_object(
  'organizations', (SELECT count(*) FROM seed_orgs),
  'users', (SELECT count(*) FROM seed_users),
  'buildings', (SELECT count(*) FROM seed_buildings),
  'owners', (SELECT count(*) FROM seed_owners),
  'units', (SELECT count(*) FROM units
    WHERE organization_id IN (SELECT id FROM seed_orgs)
       OR building_id IN (SELECT id FROM seed_buildings)),
  'expenses', (SELECT count(*) FROM expenses
    WHERE organization_id IN (SELECT id FROM seed_orgs)
       OR building_id IN (SELECT id FROM seed_buildings)),
  'meetings', (SELECT count(*) FROM meetings
    WHERE organization_id IN (SELECT id FROM seed_orgs)
       OR building_id IN (SELECT id FROM seed_buildings)),
  'documents', (SELECT count(*) FROM documents
    WHERE organization_id IN (SELECT id FROM seed_orgs)
       OR building_id IN (SELECT id FROM seed_buildings)),
  'refresh_tokens', (SELECT count(*) FROM refresh_tokens
    WHERE user_id IN (SELECT id FROM seed_users)),
  'audit_logs', (SELECT count(*) FROM audit_logs
    WHERE organization_id IN (SELECT id FROM seed_orgs)
       OR (organization_id IS NULL AND user_id IN (SELECT id FROM seed_users)))
)) AS removed \gset
DELETE FROM audit_logs
  WHERE organization_id IN (SELECT id FROM seed_orgs)
     OR (organization_id IS NULL AND user_id IN (SELECT id FROM seed_users));
DELETE FROM organizations WHERE id IN (SELECT id FROM seed_orgs);
"""  # noqa: S608


def password_sql(new_hash: str) -> str:
    """The script that gives every seeded login another password.

    Only users with a seeded id in a seeded organisation change; people that were added since keep
    theirs. Refresh tokens stay valid until they expire.

    Args:
        new_hash: bcrypt hash.

    Returns:
        A psql script that prints ``{"passwords_set": 3}``; rows that have the hash already are
        left alone and not counted.

    Raises:
        SeedError: not a bcrypt hash.
    """
    check_bcrypt(new_hash)
    # No constant of a statement: the server logs those that fail or are slow, with all they hold.
    update = f"""CREATE TEMP TABLE given (password_hash text NOT NULL) ON COMMIT DROP;
COPY given FROM stdin;
{copy_value(new_hash)}
\\.
WITH changed AS (
  UPDATE users SET password_hash = given.password_hash, updated_at = now() FROM given
  WHERE {seeded_sql("id")} AND {seeded_sql("organization_id")}
    AND users.password_hash <> given.password_hash
  RETURNING 1
) SELECT json_build_object('passwords_set', (SELECT count(*) FROM changed)) AS done \\gset
"""  # noqa: S608
    return _PREAMBLE + _BEGIN + update + "COMMIT;\n\\echo :done\n"
