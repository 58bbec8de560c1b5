"""What a tired person reads: figures with units, nothing rounded away, 100 columns."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import timedelta

import pytest
from rich.console import Console, RenderableType

from koprogo_deploy.debug import explain, logs, show, statements
from tests.unit.debug import test_explain, test_indexes, test_locks, test_logs, test_statements

NOW = "2026-01-01T10:00:00+00:00"


def printed(*parts: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=100, highlight=False)
    for part in parts:
        console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max((len(line) for line in text.splitlines()), default=0) <= 100
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.042, "0.04 ms"),
        (43.954, "44 ms"),  # the original showed 43954 ms
        (3400, "3.4 s"),
        (90_000, "1.5 min"),
        (7_200_000, "2.0 h"),
        (None, "-"),
    ],
)
def test_times(value: float | None, text: str) -> None:
    assert show.milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (8192, "8.0 kB"), (512 * 1024, "512 kB"), (3 * 1024**3, "3.0 GB"), (None, "-")],
)
def test_sizes(value: int | None, text: str) -> None:
    assert show.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "100.0 %"), (0.99999, ">99.9 %"), (0.0001, "<0.1 %"), (0.0, "0.0 %"), (None, "-")],
)
def test_a_share_is_never_rounded_to_all_or_to_nothing(value: float | None, text: str) -> None:
    assert show.percent(value) == text


def test_ages() -> None:
    assert show.age(timedelta(seconds=59)) == "59 s"
    assert show.age(timedelta(minutes=1)) == "1 minute"
    assert show.age(timedelta(hours=49)) == "2 days"
    assert show.since(None, NOW) == "an unknown time"
    assert show.since("2026-01-01T09:00:00+00:00", NOW) == "2026-01-01 09:00 UTC (1 hour ago)"


def test_slow_queries_say_since_when_and_what_was_dropped() -> None:
    found = statements.parse(test_statements.ABOUT, test_statements.FOUND)
    text = printed(*show.slow(found, "total", full=False))
    assert "counted since 2026-01-01 09:00 UTC (1 hour ago): 7 statements, 120 ms in all" in text
    assert "25.0 %" in text
    assert "SELECT * FROM units" in text
    assert "thrown away" not in text
    lossy = replace(found, dropped=12)
    assert "thrown away 12 times" in printed(*show.slow(lossy, "total", full=False))


def test_long_statements_are_cut_unless_all_is_asked_for() -> None:
    found = statements.parse(test_statements.ABOUT, test_statements.FOUND)
    long = replace(found, top=(replace(found.top[0], query="SELECT " + "a, " * 300 + "the_end"),))
    assert "the_end" not in printed(*show.slow(long, "total", full=False))
    assert "the_end" in printed(*show.slow(long, "total", full=True))


def test_indexes_say_what_is_needed_whatever_the_counts() -> None:
    key = test_indexes.index("units_pkey", "id", unique=True, constraint="units_pkey")
    twice = [test_indexes.index(name, "owner_id") for name in ("one", "other")]
    found = test_indexes.whole(key, *twice, keys=(test_indexes.KEY,))
    text = printed(*show.index_report(replace(found, since=NOW), everything=True))
    assert "Twice the same: 1" in text
    assert "one other the same definition" in text
    assert "Foreign keys without an index: 0" in text
    assert "1 more were not used and are needed" in text
    missing = printed(*show.index_report(replace(found, since=NOW, indexes=(key,)), False))
    assert "units (owner_id): a DELETE in owners sets to NULL" in missing


def test_an_invalid_index_comes_first() -> None:
    broken = test_indexes.index("broken", "a", valid=False)
    text = printed(*show.index_report(replace(test_indexes.whole(broken), since=NOW), False))
    assert "Invalid: written to, never read; drop and make them anew broken on units" in text


def test_a_plan_is_a_tree_with_its_estimates() -> None:
    page = explain.Page("units")
    query = explain.page_query(page, [])
    top = test_explain.node("Limit", test_explain.scan(**{"Plan Rows": 1, "Actual Rows": 500}))
    plan = test_explain.plan(top, filtered=False)
    text = printed(
        *show.explained(
            page, test_explain.ORGANIZATIONS[0], test_explain.BIG, [("the page", query, plan)]
        )
    )
    assert "GET /units as Grande Résidence NV (large-2)" in text
    assert "by KoproGo's contract; the application was not seen asking so" in text
    assert "Not filtered by organisation" in text
    assert "Seq Scan on units 1.50 ms 500 rows (estimated 1)" in text
    assert "the estimate is wrong 500 times" in text


def test_nothing_waiting_is_said() -> None:
    assert "Nothing waits for a lock." in printed(*show.lock_report(test_locks.parsed()))


def test_the_one_that_holds_stands_above_those_that_wait() -> None:
    found = test_locks.parsed(test_locks.session(1), test_locks.session(22, 1))
    text = printed(*show.lock_report(found))
    assert "1 koprogo from 172.30.80.4 holds" in text
    assert "idle in transaction for 9.0 s, transaction 10.0 s old" in text
    assert "22 koprogo from 172.30.80.4 waits 2.5 s" in text
    assert "Nothing waits" not in text
    assert text.index("holds") < text.index("waits")


def test_a_log_entry_has_its_time_container_level_and_lines() -> None:
    entry = test_logs.entry("postgres", "2026-01-01 10:00:00.123 UTC [7] ERROR:  no such column")
    entry.more.append("STATEMENT: SELECT a")
    text = printed(*show.log_entry(entry))
    assert text == "10:00:00.000 postgres error no such column | STATEMENT: SELECT a"
    repeat = logs.Repeat(3, test_logs.NOW)
    assert printed(*show.repeated(repeat)) == "… and 3 more like it until 10:00:00"
    assert printed(*show.repeated(None)) == ""
