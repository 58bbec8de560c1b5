"""Indexes: used, unused, twice the same, missing on foreign keys, and tables read whole. Pure.

Says, and never drops: what to do is a migration of the application.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

SMALL_PAGES = 64  # pages of 8 kB; below, reading a table whole is as quick as any index

SQL = """
SELECT json_build_object(
  'now', now(),
  'started', pg_postmaster_start_time(),
  'since', (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()),
  'indexes', (SELECT coalesce(json_agg(json_build_object(
      'name', c.relname, 'table', t.relname, 'definition', pg_get_indexdef(i.indexrelid),
      'size', pg_relation_size(i.indexrelid), 'scans', coalesce(s.idx_scan, 0),
      'unique', i.indisunique, 'valid', i.indisvalid AND i.indisready,
      'constraint', (SELECT conname FROM pg_constraint
                     WHERE conindid = i.indexrelid AND contype IN ('p', 'u', 'x') LIMIT 1),
      'method', (SELECT amname FROM pg_am WHERE oid = c.relam),
      'columns', (SELECT json_agg(CASE WHEN key = 0 THEN pg_get_indexdef(i.indexrelid, n::int, true)
                                       ELSE (SELECT attname FROM pg_attribute
                                             WHERE attrelid = i.indrelid AND attnum = key) END
                                  ORDER BY n)
                  FROM unnest(i.indkey::int[]) WITH ORDINALITY AS k(key, n)),
      'keys', i.indnkeyatts,
      'classes', array_to_json(i.indclass::oid[]::text[]),
      'collations', array_to_json(i.indcollation::oid[]::text[]),
      'options', array_to_json(i.indoption::int[]),
      'predicate', pg_get_expr(i.indpred, i.indrelid)
    ) ORDER BY t.relname, c.relname), '[]')
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
    LEFT JOIN pg_stat_all_indexes s ON s.indexrelid = i.indexrelid
    WHERE t.relnamespace = 'public'::regnamespace),
  'tables', (SELECT coalesce(json_agg(json_build_object(
      'name', c.relname, 'rows', coalesce(s.n_live_tup, 0),
      'pages', pg_relation_size(c.oid) / current_setting('block_size')::int,
      'size', pg_table_size(c.oid), 'index_size', pg_indexes_size(c.oid),
      'sequential', coalesce(s.seq_scan, 0), 'sequential_rows', coalesce(s.seq_tup_read, 0),
      'by_index', coalesce(s.idx_scan, 0)
    ) ORDER BY c.relname), '[]')
    FROM pg_class c LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')),
  'foreign_keys', (SELECT coalesce(json_agg(json_build_object(
      'name', f.conname, 'table', t.relname, 'references', r.relname, 'on_delete', f.confdeltype,
      'columns', (SELECT json_agg(a.attname ORDER BY n)
                  FROM unnest(f.conkey) WITH ORDINALITY AS k(key, n)
                  JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = key)
    ) ORDER BY t.relname, f.conname), '[]')
    FROM pg_constraint f
    JOIN pg_class t ON t.oid = f.conrelid JOIN pg_class r ON r.oid = f.confrelid
    WHERE f.contype = 'f' AND t.relnamespace = 'public'::regnamespace));
"""

_DESCENDING = 1  # bit of pg_index.indoption
_NULLS_FIRST = 2


@dataclass(frozen=True)
class Index:
    """An index: size in bytes, scans since the statistics began.

    Attributes:
        constraint: the primary key, unique or exclusion constraint it enforces.
        columns: names, or the text of an expression; the first `keys` are sorted by.
        predicate: of a partial index.
    """

    name: str
    table: str
    definition: str
    size: int
    scans: int
    unique: bool
    valid: bool
    constraint: str | None
    method: str
    columns: tuple[str, ...]
    keys: int
    classes: tuple[str, ...]
    collations: tuple[str, ...]
    options: tuple[int, ...]
    predicate: str | None

    @property
    def needed(self) -> bool:
        """Whether it enforces something, used or not."""
        return self.unique or self.constraint is not None

    @property
    def key(self) -> tuple[str, ...]:
        """The columns it is sorted by."""
        return self.columns[: self.keys]


@dataclass(frozen=True)
class Table:
    """A table: sizes in bytes, rows as estimated, scans since the statistics began."""

    name: str
    rows: int
    pages: int
    size: int
    index_size: int
    sequential: int
    sequential_rows: int
    by_index: int

    @property
    def hint(self) -> str:
        """What its sequential scans mean; empty where there is nothing to say."""
        if not self.sequential:
            return ""
        each = self.sequential_rows / self.sequential
        if self.pages < SMALL_PAGES:
            return "small: rightly"
        if each >= self.rows / 2:
            return f"read whole, {each:,.0f} rows each time"
        return f"{each:,.0f} rows each time"


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key and its columns, in order."""

    name: str
    table: str
    references: str
    columns: tuple[str, ...]
    on_delete: str

    @property
    def harm(self) -> str:
        """What is slow without an index."""
        acts = {"c": "deletes", "n": "sets to NULL", "d": "sets to its default"}
        act = acts.get(self.on_delete, "looks for")
        return f"a DELETE in {self.references} {act} its rows by reading all of {self.table}"


Kind = Literal["same", "partial", "constraint", "prefix"]


@dataclass(frozen=True)
class Redundant:
    """An index that another one makes needless.

    Attributes:
        kind: `same` definition; `partial`: the same columns of some of the rows; `constraint`: the
            index of a constraint has the same; `prefix`: a longer one begins with its columns.
    """

    index: Index
    by: Index
    kind: Kind


@dataclass(frozen=True)
class Indexes:
    """Everything found. `since`: when counting began; None: never reset since `started` or before.

    Attributes:
        started: when the server started; counts survive a clean restart, not a crash.
    """

    now: str
    since: str | None
    started: str
    indexes: tuple[Index, ...]
    tables: tuple[Table, ...]
    foreign_keys: tuple[ForeignKey, ...]

    @property
    def unused(self) -> tuple[Index, ...]:
        """Not used once, and nothing but speed is lost without them; biggest first."""
        found = (i for i in self.indexes if not i.scans and not i.needed)
        return tuple(sorted(found, key=lambda i: (-i.size, i.name)))

    @property
    def unused_but_needed(self) -> tuple[Index, ...]:
        """Not used once, and needed all the same: they enforce a constraint or uniqueness."""
        return tuple(i for i in self.indexes if not i.scans and i.needed)

    @property
    def invalid(self) -> tuple[Index, ...]:
        """Left behind by a CREATE INDEX CONCURRENTLY that failed: written to, never read."""
        return tuple(i for i in self.indexes if not i.valid)

    @property
    def redundant(self) -> tuple[Redundant, ...]:
        """Twice the same, or covered by another."""
        return redundant(self.indexes)

    @property
    def missing(self) -> tuple[ForeignKey, ...]:
        """Foreign keys that no index serves."""
        return tuple(key for key in self.foreign_keys if not served(key, self.indexes))


def parse(found: Mapping[str, Any]) -> Indexes:
    """What `SQL` gave."""

    def index(row: Mapping[str, Any]) -> Index:
        lists = ("columns", "classes", "collations", "options")
        values: dict[str, Any] = {k: tuple(v) if k in lists else v for k, v in row.items()}
        return Index(**values)

    def key(row: Mapping[str, Any]) -> ForeignKey:
        return ForeignKey(**{**row, "columns": tuple(row["columns"])})

    return Indexes(
        now=found["now"],
        since=found["since"],
        started=found["started"],
        indexes=tuple(index(row) for row in found["indexes"]),
        tables=tuple(Table(**row) for row in found["tables"]),
        foreign_keys=tuple(key(row) for row in found["foreign_keys"]),
    )


def redundant(indexes: Sequence[Index]) -> tuple[Redundant, ...]:
    """Each needless index once, with the one that says it best; a needed one is never needless."""
    found: list[Redundant] = []
    gone: set[str] = set()
    for index in indexes:
        if index.needed or not index.valid:
            continue
        covers = [
            (kind, other)
            for other in indexes
            if other is not index and other.name not in gone and (kind := _covered(index, other))
        ]
        if covers:
            order = ("same", "partial", "constraint", "prefix")
            kind, by = min(covers, key=lambda c: (order.index(c[0]), c[1].size, c[1].name))
            found.append(Redundant(index, by, kind))
            # Of two that are the same only one is needless.
            gone.add(index.name)
    return tuple(sorted(found, key=lambda r: (r.index.table, r.index.name)))


def _covered(index: Index, other: Index) -> Kind | None:
    """How `other` makes `index` needless."""
    if (index.table, index.method) != (other.table, other.method) or not other.valid:
        return None
    # A full index has all rows of a partial one.
    if other.predicate is not None and other.predicate != index.predicate:
        return None
    if not set(index.columns[index.keys :]) <= set(other.columns):
        return None
    n = index.keys
    alike = (
        index.key == other.columns[:n]
        and n <= other.keys
        and index.classes[:n] == other.classes[:n]
        and index.collations[:n] == other.collations[:n]
    )
    if not alike or not _same_order(index.options[:n], other.options[:n]):
        return None
    if n < other.keys:
        return "prefix" if index.method == "btree" else None
    if other.needed:
        return "constraint"
    return "same" if index.predicate == other.predicate else "partial"


def _same_order(one: Sequence[int], other: Sequence[int]) -> bool:
    # An index is read in both directions: all turned round is the same order.
    turned = [option ^ (_DESCENDING | _NULLS_FIRST) for option in other]
    return list(one) == list(other) or list(one) == turned


def served(key: ForeignKey, indexes: Sequence[Index]) -> bool:
    """Whether a foreign key's rows are found by an index: its columns come first, in any order.

    A partial index serves where it leaves out nothing but NULLs: those refer to nothing.
    """
    n = len(key.columns)
    return any(
        index.table == key.table
        and index.valid
        and index.method in ("btree", "hash")
        and set(index.key[:n]) == set(key.columns)
        and _only_nulls_left_out(index.predicate, key.columns)
        for index in indexes
    )


def _only_nulls_left_out(predicate: str | None, columns: Sequence[str]) -> bool:
    if predicate is None:
        return True
    match = re.fullmatch(r"\((\w+) IS NOT NULL\)", predicate)
    return match is not None and match[1] in columns
