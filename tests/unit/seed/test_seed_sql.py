"""The psql scripts: COPY's escaping, and the statements that keep others' rows safe."""

from __future__ import annotations

import datetime
import re
import uuid
from dataclasses import dataclass

import pytest

from koprogo_deploy.seed import (
    STATE_SQL,
    Dataset,
    SeedError,
    UnitType,
    clear_sql,
    insert_sql,
    password_sql,
)
from koprogo_deploy.seed.sql import copy_block, copy_value


@dataclass(frozen=True)
class Row:
    id: int
    text: str | None


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, r"\N"),
        (r"\N", r"\\N"),
        (r"\.", r"\\."),
        ("a\tb", r"a\tb"),
        ("a\nb\r\nc", r"a\nb\r\nc"),
        ("back\\slash", r"back\\slash"),
        ('l\'Yser "été" ștefan 🏠', 'l\'Yser "été" ștefan 🏠'),
        ("", ""),
        (True, "t"),
        (False, "f"),
        (12, "12"),
        (12.5, "12.5"),
        (UnitType.CELLAR, "cellar"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (
            datetime.datetime(2025, 11, 24, 8, 5, tzinfo=datetime.UTC),
            "2025-11-24 08:05:00+00:00",
        ),
    ],
)
def test_copy_value(value: object, written: str) -> None:
    assert copy_value(value) == written


@pytest.mark.parametrize(
    "value", ["nul\0", datetime.datetime(2025, 11, 24), b"bytes", datetime.date(2025, 11, 24)]
)
def test_copy_value_refuses_what_it_cannot_write(value: object) -> None:
    with pytest.raises(SeedError):
        copy_value(value)


def test_copy_block() -> None:
    block = copy_block("things", Row, [Row(1, "a\tb"), Row(2, None)])
    assert block == "COPY things (id, text) FROM stdin;\n1\ta\\tb\n2\t\\N\n\\.\n"


def test_insert_is_one_guarded_transaction(dataset: Dataset) -> None:
    script = insert_sql(dataset)
    lines = script.splitlines()
    assert lines[0] == r"\set ON_ERROR_STOP on"
    order = [
        "BEGIN ISOLATION LEVEL READ COMMITTED;",
        "SET LOCAL lock_timeout",
        "pg_advisory_xact_lock",
        "RAISE EXCEPTION 'seeded organisations are there already",
        "COPY organizations ",
        "COPY users ",
        "COPY buildings ",
        "COPY owners ",
        "COPY units ",
        "COPY expenses ",
        "COMMIT;",
        "ANALYZE ",
    ]
    positions = [script.index(text) for text in order]
    assert positions == sorted(positions)
    assert lines.count("COMMIT;") == 1
    assert lines.count("\\.") == 6
    assert "SET LOCAL statement_timeout" in script


def test_insert_writes_every_row_once(dataset: Dataset) -> None:
    script = insert_sql(dataset)
    for rows in (dataset.organizations, dataset.units, dataset.expenses):
        for row in rows:
            assert script.count(f"\n{row.id}\t") == 1


def test_every_row_has_as_many_values_as_columns(dataset: Dataset) -> None:
    copied = re.findall(
        r"COPY \w+ \((.*?)\) FROM stdin;\n(.*?)\n\\\.", insert_sql(dataset), re.DOTALL
    )
    assert len(copied) == 6
    for columns, data in copied:
        for line in data.split("\n"):
            assert line.count("\t") == columns.count(",")


def test_clear_takes_seeded_organisations_only() -> None:
    script = clear_sql()
    deletes = re.findall(r"DELETE FROM (\w+)\s+WHERE (.*?);", script, re.DOTALL)
    assert [table for table, _ in deletes] == ["audit_logs", "organizations"]
    assert all("SELECT id FROM seed_orgs" in condition for _, condition in deletes)
    assert "TRUNCATE" not in script
    assert script.index("BEGIN ISOLATION") < script.index("DELETE") < script.index("COMMIT;")
    assert script.index("RAISE EXCEPTION") < script.index("DELETE")


def test_clear_does_nothing_without_tables() -> None:
    script = clear_sql()
    assert script.index(r"\if :schema_present") < script.index("BEGIN ISOLATION")
    assert script.rstrip().endswith("\\else\n\\echo '{\"removed\": null}'\n\\endif")


def test_password_is_set_for_seeded_logins_only() -> None:
    new_hash = "$2b$12$" + "Z" * 53
    script = password_sql(new_hash)
    (condition,) = re.findall(r"WHERE (.*?)RETURNING", script, re.DOTALL)
    assert "id::text ~ '^5eed" in condition
    assert "organization_id::text ~ '^5eed" in condition
    assert script.count("UPDATE") == 1
    assert script.count(new_hash) == 1
    assert f"FROM stdin;\n{new_hash}\n" in script, (
        "a row, and no part of a statement: those are logged"
    )


@pytest.mark.parametrize("bad", ["secret", "$2b$12$" + "a" * 52, "$2b$12$" + "a" * 52 + "'"])
def test_password_must_be_a_hash(bad: str) -> None:
    with pytest.raises(SeedError) as refused:
        password_sql(bad)
    assert bad not in str(refused.value)


def test_state_is_one_select() -> None:
    assert STATE_SQL.startswith("SELECT ")
    assert ";" not in STATE_SQL
    assert "to_regclass" in STATE_SQL
