"""Indexes: which are needless, which are missing, which only look so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from koprogo_deploy.debug import indexes
from koprogo_deploy.debug.indexes import ForeignKey, Index, Table


def index(name: str, *columns: str, table: str = "units", **more: object) -> Index:
    n = len(columns)
    plain = Index(
        name=name,
        table=table,
        definition=f"CREATE INDEX {name} ON public.{table} USING btree ({', '.join(columns)})",
        size=8192,
        scans=0,
        unique=False,
        valid=True,
        constraint=None,
        method="btree",
        columns=columns,
        keys=n,
        classes=("1",) * n,
        collations=("0",) * n,
        options=(0,) * n,
        predicate=None,
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def found(*those: Index) -> list[tuple[str, str, str]]:
    return [(r.index.name, r.by.name, r.kind) for r in indexes.redundant(those)]


def test_of_two_that_are_the_same_one_is_needless() -> None:
    assert found(index("a", "owner_id"), index("b", "owner_id")) == [("a", "b", "same")]


def test_of_three_that_are_the_same_two_are() -> None:
    three = [index(name, "owner_id") for name in "abc"]
    assert [name for name, _, _ in found(*three)] == ["a", "b"]


def test_a_partial_one_is_needless_beside_a_full_one_and_not_the_other_way_round() -> None:
    full = index("full", "owner_id")
    partial = index("partial", "owner_id", predicate="(owner_id IS NOT NULL)")
    assert found(full, partial) == [("partial", "full", "partial")]


def test_what_a_constraint_has_need_not_be_had_twice() -> None:
    key = index("owners_email_key", "email", unique=True, constraint="owners_email_key")
    assert found(index("i", "email"), key) == [("i", "owners_email_key", "constraint")]


def test_a_unique_one_is_never_needless() -> None:
    assert found(index("u", "email", unique=True), index("i", "email", "id")) == []


def test_what_a_longer_one_begins_with_is_covered_by_it() -> None:
    assert found(index("short", "a"), index("long", "a", "b")) == [("short", "long", "prefix")]
    assert found(index("short", "b"), index("long", "a", "b")) == []


def test_an_index_is_read_in_both_directions() -> None:
    down = index("down", "a", options=(3,))  # DESC puts NULLs first
    assert found(index("up", "a"), down) == [("up", "down", "same")]
    odd = index("odd", "a", options=(1,))  # DESC NULLS LAST is another order
    assert found(index("up", "a"), odd) == []
    mixed = index("mixed", "a", "b", options=(0, 3))
    assert found(index("two", "a", "b"), mixed) == []


@pytest.mark.parametrize(
    "other",
    [
        index("b", "a", table="owners"),
        index("b", "a", method="gin"),
        index("b", "a", classes=("2",)),
        index("b", "a", collations=("100",)),
        index("b", "lower(a)"),
        index("b", "a", predicate="(b > 1)"),
        index("b", "a", valid=False),
    ],
)
def test_what_differs_is_not_the_same(other: Index) -> None:
    assert not [r for r in found(index("a", "a"), other) if r[0] == "a"]


def test_columns_that_are_only_included_must_be_in_the_other_too() -> None:
    carries = index("carries", "a", "b", keys=1, classes=("1",), collations=("0",), options=(0,))
    assert found(carries, index("plain", "a")) == [("plain", "carries", "same")]
    assert found(carries, index("both", "a", "b"))[0] == ("carries", "both", "prefix")


# --- foreign keys --------------------------------------------------------------------------------

KEY = ForeignKey("fk", "units", "owners", ("owner_id",), "n")


@pytest.mark.parametrize(
    ("serves", "one"),
    [
        (True, index("i", "owner_id")),
        (True, index("i", "owner_id", "floor")),
        (True, index("i", "owner_id", predicate="(owner_id IS NOT NULL)")),
        (False, index("i", "floor", "owner_id")),
        (False, index("i", "owner_id", predicate="(floor > 1)")),
        (False, index("i", "owner_id", valid=False)),
        (False, index("i", "owner_id", method="brin")),
        (False, index("i", "owner_id", table="documents")),
    ],
)
def test_a_foreign_key_is_served_by_an_index_that_begins_with_it(serves: bool, one: Index) -> None:
    assert indexes.served(KEY, [one]) is serves


def test_the_order_of_a_compound_keys_columns_does_not_matter() -> None:
    key = replace(KEY, columns=("a", "b"))
    assert indexes.served(key, [index("i", "b", "a")])
    assert not indexes.served(key, [index("i", "a")])


def test_what_a_missing_index_does_is_said() -> None:
    assert KEY.harm == "a DELETE in owners sets to NULL its rows by reading all of units"


# --- the whole -----------------------------------------------------------------------------------


def whole(*those: Index, keys: tuple[ForeignKey, ...] = ()) -> indexes.Indexes:
    return indexes.Indexes("2026-01-01T10:00:00+00:00", None, "", those, (), keys)


def test_unused_is_what_only_speed_would_miss_biggest_first() -> None:
    small, big = index("small", "a"), index("big", "b", size=99999)
    key = index("key", "id", unique=True, constraint="units_pkey")
    used = index("used", "c", scans=1)
    report = whole(small, big, key, used)
    assert report.unused == (big, small)
    assert report.unused_but_needed == (key,)


def test_a_foreign_key_without_an_index_is_missing_one() -> None:
    assert whole(index("i", "floor"), keys=(KEY,)).missing == (KEY,)


@pytest.mark.parametrize(
    ("table", "hint"),
    [
        (Table("t", 100, 5, 0, 0, sequential=9, sequential_rows=900, by_index=0), "small"),
        (
            Table("t", 9000, 500, 0, 0, sequential=9, sequential_rows=81000, by_index=0),
            "read whole",
        ),
        (
            Table("t", 9000, 500, 0, 0, sequential=9, sequential_rows=180, by_index=0),
            "20 rows each",
        ),
        (Table("t", 9000, 500, 0, 0, sequential=0, sequential_rows=0, by_index=7), ""),
    ],
)
def test_sequential_scans_are_judged_by_the_tables_size(table: Table, hint: str) -> None:
    assert hint in table.hint
    assert bool(table.hint) is bool(hint)
