"""Slow queries: the right columns for each version of pg_stat_statements, and true shares."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

from koprogo_deploy.debug import statements

# The columns as the extension has them, by its version; asked of real servers up to 1.11.
_COMMON = """userid dbid queryid query plans total_plan_time min_plan_time max_plan_time
mean_plan_time stddev_plan_time calls total_exec_time min_exec_time max_exec_time mean_exec_time
stddev_exec_time rows shared_blks_hit shared_blks_read shared_blks_dirtied shared_blks_written
local_blks_hit local_blks_read local_blks_dirtied local_blks_written temp_blks_read
temp_blks_written wal_records wal_fpi wal_bytes"""
_OLD_TIMES = " blk_read_time blk_write_time"
_JIT = """ jit_functions jit_generation_time jit_inlining_count jit_inlining_time
jit_optimization_count jit_optimization_time jit_emission_count jit_emission_time"""
_NEW = """ shared_blk_read_time shared_blk_write_time local_blk_read_time local_blk_write_time
temp_blk_read_time temp_blk_write_time jit_deform_count jit_deform_time stats_since
minmax_stats_since"""
COLUMNS = {
    "1.8": _COMMON + _OLD_TIMES,  # Postgres 13
    "1.9": _COMMON + _OLD_TIMES + " toplevel",  # 14
    "1.10": _COMMON + _OLD_TIMES + " toplevel temp_blk_read_time temp_blk_write_time" + _JIT,
    "1.11": _COMMON + " toplevel" + _JIT + _NEW,  # 17
    "1.12": _COMMON
    + " toplevel"
    + _JIT
    + _NEW
    + " wal_buffers_full parallel_workers_to_launch parallel_workers_launched",  # 18
}
# Before 13, as the original's guide had it.
OLD = """userid dbid queryid query calls total_time min_time max_time mean_time stddev_time rows
shared_blks_hit shared_blks_read blk_read_time blk_write_time"""
ABOUT = {"server": 150020, "extension": "1.10", "max": 1000, "now": "2026-01-01T10:00:00+00:00"}
ROW = {
    "id": "-42",
    "query": "SELECT *\n  FROM units",
    "role": "koprogo",
    "calls": 10,
    "total_ms": 30.0,
    "mean_ms": 3.0,
    "min_ms": 1.0,
    "max_ms": 9.0,
    "stddev_ms": 2.0,
    "rows": 200,
    "blocks_hit": 99,
    "blocks_read": 1,
    "blocks_dirtied": 0,
    "temp_blocks_written": 0,
    "read_ms": 0.5,
    "wal_bytes": 0,
    "since": None,
}
FOUND: dict[str, Any] = {
    "since": "2026-01-01T09:00:00+00:00",
    "dropped": 0,
    "statements": 7,
    "total_ms": 120.0,
    "top": [ROW],
}


@pytest.mark.parametrize("version", COLUMNS)
@pytest.mark.parametrize("by", get_args(statements.By))
def test_only_columns_that_the_version_has_are_asked_for(version: str, by: statements.By) -> None:
    columns = COLUMNS[version].split()
    sql = statements.query(columns, by, 10)
    asked = set(re.findall(r"\bs\.(\w+)", sql)) | set(re.findall(r"ORDER BY (\w+)", sql))
    assert asked <= set(columns)
    assert statements.missing({**ABOUT, "extension": version, "columns": columns}) == ""


def test_the_guides_columns_are_those_of_no_supported_postgres() -> None:
    """The original asked for total_time and mean_time, which 13 renamed: an error on its own 15."""
    for columns in COLUMNS.values():
        assert not {"total_time", "mean_time", "min_time", "max_time"} & set(columns.split())
        sql = statements.query(columns.split(), "total", 1)
        assert not re.search(r"\b(?:total|mean|min|max|stddev)_time\b", sql)


def test_time_spent_reading_has_another_name_from_17_on() -> None:
    assert "s.blk_read_time" in statements.query(COLUMNS["1.10"].split(), "total", 1)
    newer = statements.query(COLUMNS["1.11"].split(), "total", 1)
    assert "s.shared_blk_read_time" in newer
    assert "s.blk_read_time" not in newer


def test_before_1_9_nobody_knows_since_when_and_what_was_dropped() -> None:
    assert "pg_stat_statements_info" not in statements.query(COLUMNS["1.8"].split(), "total", 1)
    assert "pg_stat_statements_info" in statements.query(COLUMNS["1.9"].split(), "total", 1)


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"extension": None, "columns": []}, "is not there"),
        ({"extension": "1.7", "columns": OLD.split()}, "older than 1.8"),
    ],
)
def test_what_cannot_be_read_is_said(about: dict[str, Any], reason: str) -> None:
    assert reason in statements.missing({**ABOUT, **about})


def test_shares_are_of_all_statements_and_not_of_those_shown() -> None:
    found = statements.parse(ABOUT, FOUND)
    assert found.top[0].share == pytest.approx(0.25)
    assert found.top[0].hit == pytest.approx(0.99)
    assert found.top[0].query == "SELECT * FROM units"
    assert (found.statements, found.dropped, found.room) == (7, 0, 1000)


def test_where_nothing_was_counted_there_is_no_share() -> None:
    idle = {**ROW, "total_ms": 0.0, "blocks_hit": 0, "blocks_read": 0, "query": None}
    found = statements.parse(ABOUT, {**FOUND, "total_ms": 0, "top": [idle]})
    assert (found.top[0].share, found.top[0].hit) == (0.0, None)
    assert found.top[0].query == "<text not kept>"


def test_a_password_in_a_statement_is_not_shown() -> None:
    row = {**ROW, "query": "ALTER ROLE koprogo PASSWORD 'SCRAM-SHA-256$4096:x'"}
    found = statements.parse(ABOUT, {**FOUND, "top": [row]})
    assert found.top[0].query == "ALTER ROLE koprogo PASSWORD '…'"
