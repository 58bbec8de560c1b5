"""Slow queries: pg_stat_statements, with the columns that its version has. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from koprogo_deploy.debug.ask import one_line

By = Literal["total", "mean", "calls"]

# What is wanted, and the column's names from new to old. The extension's version decides, not the
# server's: after pg_upgrade the old view stays until ALTER EXTENSION … UPDATE.
_COLUMNS = {
    "calls": ("calls",),
    "total_ms": ("total_exec_time",),  # total_time before 1.8, that is, before Postgres 13
    "mean_ms": ("mean_exec_time",),
    "min_ms": ("min_exec_time",),
    "max_ms": ("max_exec_time",),
    "stddev_ms": ("stddev_exec_time",),
    "rows": ("rows",),
    "blocks_hit": ("shared_blks_hit",),
    "blocks_read": ("shared_blks_read",),
    "blocks_dirtied": ("shared_blks_dirtied",),
    "temp_blocks_written": ("temp_blks_written",),
    "read_ms": ("shared_blk_read_time", "blk_read_time"),  # renamed in 1.11, Postgres 17
    "wal_bytes": ("wal_bytes",),
    "since": ("stats_since",),  # from 1.11 on
}
_NEEDED = ("calls", "total_ms", "mean_ms", "max_ms", "stddev_ms", "rows")
_ORDER = {"total": "total_exec_time", "mean": "mean_exec_time", "calls": "calls"}

ABOUT_SQL = """
SELECT json_build_object(
  'server', current_setting('server_version_num')::int,
  'extension', (SELECT extversion FROM pg_extension WHERE extname = 'pg_stat_statements'),
  'max', current_setting('pg_stat_statements.max', true)::int,
  'now', now(),
  'columns', (SELECT coalesce(json_agg(attname), '[]') FROM pg_attribute
              WHERE attrelid = to_regclass('public.pg_stat_statements')
                AND attnum > 0 AND NOT attisdropped));
"""


@dataclass(frozen=True)
class Statement:
    """One statement as counted: times in milliseconds, sizes in bytes, blocks of 8 kB.

    Attributes:
        share: of the time of all statements in the database, 0 to 1.
        hit: share of blocks found in Postgres' own cache, 0 to 1; None where none was asked for.
        read_ms: waiting for blocks to be read; None where the version does not tell.
        since: when counting began; None where only the whole view's reset is known.
        query: normalised, on one line, without literals.
    """

    id: str
    role: str
    calls: int
    total_ms: float
    mean_ms: float
    min_ms: float | None
    max_ms: float
    stddev_ms: float
    share: float
    rows: int
    hit: float | None
    blocks_read: int | None
    temp_blocks_written: int | None
    read_ms: float | None
    wal_bytes: int | None
    since: str | None
    query: str


@dataclass(frozen=True)
class Slow:
    """The statements asked for, and what to know about the counting.

    Attributes:
        since: when all counting began; None where the version does not tell (before 1.9).
        dropped: how often counts of the rarest statements were thrown away for room.
        statements: how many are counted in this database.
        total_ms: time of all of them.
    """

    server: int
    extension: str
    now: str
    since: str | None
    dropped: int | None
    room: int | None
    statements: int
    total_ms: float
    top: tuple[Statement, ...]


def missing(about: Mapping[str, Any]) -> str:
    """Why the statements cannot be read; empty when they can."""
    if not about.get("extension") or not about.get("columns"):
        return "the extension pg_stat_statements is not there"
    columns = set(about["columns"])
    lacking = [name for name in _NEEDED if not columns & set(_COLUMNS[name])]
    if lacking:
        return (
            f"pg_stat_statements {about['extension']} has no {_COLUMNS[lacking[0]][0]}: it is "
            "older than 1.8 (Postgres 13); ALTER EXTENSION pg_stat_statements UPDATE"
        )
    return ""


def query(columns: Collection[str], by: By, limit: int) -> str:
    """One JSON object: totals, and the first `limit` statements of the current database.

    Args:
        columns: what the view pg_stat_statements has here.
        by: what to sort by, most first.
        limit: how many statements.
    """
    there = set(columns)
    chosen = {
        name: next((c for c in candidates if c in there), None)
        for name, candidates in _COLUMNS.items()
    }
    pairs = ", ".join(f"'{name}', s.{column or 'NULL'}" for name, column in chosen.items())
    pairs = pairs.replace("s.NULL", "NULL")
    # The view of totals came with 1.9, as `toplevel` did.
    info = "toplevel" in there
    about = "(SELECT {} FROM public.pg_stat_statements_info)" if info else "NULL"
    return f"""
SELECT json_build_object(
  'since', {about.format("stats_reset")}, 'dropped', {about.format("dealloc")},
  'statements', count(*), 'total_ms', coalesce(sum(total_exec_time), 0),
  'top', (SELECT coalesce(json_agg(json_build_object(
            'id', s.queryid::text, 'query', s.query, 'role', pg_get_userbyid(s.userid), {pairs})),
            '[]')
          FROM (SELECT * FROM public.pg_stat_statements
                WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                ORDER BY {_ORDER[by]} DESC, queryid LIMIT {int(limit)}) AS s))
FROM public.pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database());
"""  # noqa: S608 - columns and order are of ours


def parse(about: Mapping[str, Any], found: Mapping[str, Any]) -> Slow:
    """What `ABOUT_SQL` and `query` gave."""
    total = float(found["total_ms"])
    return Slow(
        server=int(about["server"]),
        extension=str(about["extension"]),
        now=str(about["now"]),
        since=found["since"],
        dropped=found["dropped"],
        room=about.get("max"),
        statements=int(found["statements"]),
        total_ms=total,
        top=tuple(_statement(row, total) for row in found["top"]),
    )


def _statement(row: Mapping[str, Any], total: float) -> Statement:
    hit, read = row["blocks_hit"], row["blocks_read"]
    asked = (hit or 0) + (read or 0)
    return Statement(
        id=str(row["id"]),
        role=str(row["role"]),
        calls=int(row["calls"]),
        total_ms=float(row["total_ms"]),
        mean_ms=float(row["mean_ms"]),
        min_ms=row["min_ms"],
        max_ms=float(row["max_ms"]),
        stddev_ms=float(row["stddev_ms"]),
        share=float(row["total_ms"]) / total if total else 0.0,
        rows=int(row["rows"]),
        hit=hit / asked if hit is not None and asked else None,
        blocks_read=read,
        temp_blocks_written=row["temp_blocks_written"],
        read_ms=row["read_ms"],
        wal_bytes=row["wal_bytes"],
        since=row["since"],
        # NULL or "<insufficient privilege>" where the observer may not see it.
        query=one_line(row["query"] or "<text not kept>"),
    )
