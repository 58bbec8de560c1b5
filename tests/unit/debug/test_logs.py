"""Logs: the formats of five programs, what belongs together, and what absence means."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from koprogo_deploy.debug import logs
from koprogo_deploy.debug.logs import Entry, Reading, Wanted
from tests import project

NOW = datetime(2026, 1, 1, 10, 0, tzinfo=UTC)
ACCESS = {
    "ClientAddr": "10.0.0.9:5123",
    "ClientHost": "10.0.0.9",
    "DownstreamStatus": 200,
    "Duration": 312_400_000,
    "OriginDuration": 311_000_000,
    "RequestMethod": "GET",
    "RequestPath": "/api/v1/units",
    "ServiceName": "api@file",
    "level": "info",
    "msg": "",
    "time": "2026-01-01T10:00:00Z",
}


def entry(container: str, line: str) -> Entry:
    found = logs.parse(container, NOW, line)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("container", "line", "level", "text"),
    [
        (
            "backend-blue",
            "[2025-10-25T12:00:00Z WARN  koprogo_api] Failed login",
            "warn",
            "koprogo_api: Failed login",
        ),
        (
            "backend-blue",
            "[2026-01-01 10:00:00,123 INFO koprogo_standin] listening",
            "info",
            "koprogo_standin: listening",
        ),
        ("backend-blue", "2026-01-01T10:00:00.123456Z  INFO koprogo: up", "info", "koprogo: up"),
        (
            "backend-blue",
            "thread 'main' panicked at src/main.rs:12:5:",
            "error",
            "thread 'main' panicked at src/main.rs:12:5:",
        ),
        (
            "postgres",
            "2026-01-01 10:00:00.123 UTC [229] ERROR:  permission denied for table users",
            "error",
            "permission denied for table users",
        ),
        (
            "postgres",
            "2026-01-01 10:00:00.123 UTC [1] LOG:  database system is ready",
            "info",
            "database system is ready",
        ),
        (
            "postgres",
            "2026-01-01 10:00:00.123 UTC [9] koprogo@koprogo_db WARNING:  there is no transaction",
            "warn",
            "there is no transaction",
        ),
        (
            "postgres",
            "2026-01-01 10:00:00.123 UTC [9] FATAL:  too many connections",
            "error",
            "FATAL: too many connections",
        ),
        (
            "postgres",
            "2026-01-01 10:00:00.123 UTC [1] LOG:  server process (PID 9) was terminated by "
            "signal 9: Killed",
            "error",
            "server process (PID 9) was terminated by signal 9: Killed",
        ),
        ("postgres", "2026-01-01 10:00:00.123 UTC [1] DEBUG2:  x", "debug", "x"),
        (
            "traefik",
            "2026-01-01T10:00:00Z ERR Cannot start the provider error=denied",
            "error",
            "Cannot start the provider error=denied",
        ),
        (
            "traefik",
            "2026-01-01T10:00:00Z \x1b[33mWRN\x1b[0m \x1b[1mslow\x1b[0m",
            "warn",
            "slow",
        ),
        (
            "traefik",
            'time="2026-01-01T10:00:00Z" level=warning msg="a \\"b\\""',
            "warn",
            'a \\"b\\"',
        ),
        ("traefik", '{"level":"error","time":"x","message":"bad","a":1}', "error", "bad a=1"),
        (
            "frontend-green",
            "2026/01/01 10:00:00 [error] 29#29: *1 open() failed",
            "error",
            "29#29: *1 open() failed",
        ),
        (
            "frontend-green",
            "/docker-entrypoint.sh: Launching 10-listen",
            "info",
            "/docker-entrypoint.sh: Launching 10-listen",
        ),
        ("backend-blue", "something else", None, "something else"),
    ],
)
def test_levels_of_the_real_things(container: str, line: str, level: str | None, text: str) -> None:
    found = entry(container, line)
    assert (found.level, found.text) == (level, text)


@pytest.mark.parametrize(
    ("container", "line", "milliseconds", "status"),
    [
        (
            "backend-blue",
            '[2025-10-25T12:00:00Z INFO  actix_web::middleware::logger] 172.30.80.2 "GET '
            '/api/v1/units HTTP/1.1" 200 1234 "-" "curl/8" 0.312400',
            312.4,
            200,
        ),
        (
            "backend-blue",
            '[2026-01-01 10:00:00,123 INFO koprogo_standin.requests] 172.30.80.2 "GET '
            '/api/v1/units" 200 0.312400',
            312.4,
            200,
        ),
        ("traefik", json.dumps(ACCESS), 312.4, 200),
        (
            "frontend-blue",
            '172.30.80.2 - - [01/Jan/2026:10:00:00 +0000] "GET /api/v1/units HTTP/1.1" 200 612 '
            '"-" "curl/8"',
            None,
            200,
        ),
    ],
)
def test_requests_of_the_real_things(
    container: str, line: str, milliseconds: float | None, status: int
) -> None:
    found = entry(container, line)
    assert (found.method, found.path, found.status) == ("GET", "/api/v1/units", status)
    assert found.duration_ms == (milliseconds and pytest.approx(milliseconds))
    assert found.level == "info"


def test_a_slow_statement_of_postgres_has_its_duration_and_no_texts() -> None:
    line = (
        "2026-01-01 10:00:00.123 UTC [229] LOG:  duration: 312.400 ms  execute <unnamed>: "
        "SELECT id FROM users WHERE email = 'anna@example.be'"
    )
    found = entry("postgres", line)
    assert found.duration_ms == 312.4
    assert "anna" not in found.text


def test_an_answer_of_500_is_an_error_at_whatever_level_it_was_logged() -> None:
    assert entry("traefik", json.dumps({**ACCESS, "DownstreamStatus": 502})).level == "error"
    assert entry("traefik", json.dumps({**ACCESS, "DownstreamStatus": 404})).level == "info"


# --- what belongs together -----------------------------------------------------------------------


def grouped(container: str, *lines: str, gap: float = 0.001) -> list[tuple[str, int]]:
    grouper, found = logs.Grouper(container), []
    for number, line in enumerate(lines):
        if done := grouper.feed(NOW + timedelta(seconds=gap * number), line):
            found.append(done)
    if last := grouper.end():
        found.append(last)
    return [(e.text, len(e.more)) for e in found]


def test_a_statement_belongs_to_its_error() -> None:
    stamp = "2026-01-01 10:00:00.123 UTC"
    assert grouped(
        "postgres",
        f"{stamp} [7] ERROR:  no such column",
        f"{stamp} [7] STATEMENT:  SELECT a,",
        "\t  b FROM t",
        f"{stamp} [8] LOG:  checkpoint starting",
        f"{stamp} [7] HINT:  late",
    ) == [("no such column", 2), ("checkpoint starting", 0), ("HINT: late", 0)]


def test_a_traceback_belongs_to_its_record_to_the_last_line() -> None:
    assert grouped(
        "backend-blue",
        "[2026-01-01 10:00:00,123 WARNING asyncpg.pool] Failed to restore",
        "Traceback (most recent call last):",
        '  File "pool.py", line 1, in x',
        "    raise",
        "asyncpg.exceptions.CannotConnectNowError: shutting down",
        "[2026-01-01 10:00:00,124 INFO koprogo_standin] again",
    ) == [("asyncpg.pool: Failed to restore", 4), ("koprogo_standin: again", 0)]


def test_a_panic_is_never_hidden_under_a_harmless_line() -> None:
    panic = "thread 'main' panicked at src/main.rs:1:1:"
    lines = ("[2026-01-01T10:00:00Z INFO  koprogo_api] starting", " more of it", panic, "the why")
    assert grouped("backend-blue", *lines) == [("koprogo_api: starting", 1), (panic, 1)]


def test_a_line_much_later_is_its_own() -> None:
    first = "[2026-01-01T10:00:00Z ERROR koprogo_api] failed"
    assert grouped("backend-blue", first, "free text", gap=5.0) == [
        ("koprogo_api: failed", 0),
        ("free text", 0),
    ]


def test_what_says_the_same_again_is_counted() -> None:
    again = logs.Repeats()
    first = entry("postgres", "2026-01-01 10:00:00.123 UTC [7] FATAL:  no entry")
    other = entry("postgres", "2026-01-01 10:00:09.123 UTC [8] FATAL:  no entry")
    other.time = NOW + timedelta(seconds=9)
    assert [again.add(e) for e in (first, other, other)] == [False, True, True]
    repeat = again.take()
    assert repeat is not None
    assert (repeat.count, repeat.until) == (2, other.time)
    assert again.take() is None


# --- what is wanted ------------------------------------------------------------------------------


def test_a_level_is_this_one_and_worse_and_what_nobody_can_tell() -> None:
    lines = {
        "info": "[2026-01-01T10:00:00Z INFO  a] x",
        "warn": "[2026-01-01T10:00:00Z WARN  a] x",
        "error": "[2026-01-01T10:00:00Z ERROR a] x",
        "unknown": "an odd line",
    }
    wanted = Wanted(level="warn")
    taken = [name for name, line in lines.items() if wanted.takes(entry("backend-blue", line))]
    assert taken == ["warn", "error", "unknown"]


def test_slow_is_what_took_so_long_or_longer() -> None:
    found = entry("traefik", json.dumps(ACCESS))
    assert Wanted(slow_ms=312.4).takes(found)
    assert not Wanted(slow_ms=313).takes(found)
    assert not Wanted(slow_ms=0).takes(entry("traefik", "2026-01-01T10:00:00Z ERR x"))


@pytest.mark.parametrize(
    ("part", "takes"), [("/units", True), ("GET", True), ("/owners", False), ("10.0.0.9", True)]
)
def test_a_request_is_found_by_any_part_of_it(part: str, takes: bool) -> None:
    assert Wanted(request=part).takes(entry("traefik", json.dumps(ACCESS))) is takes


def test_a_request_is_found_in_the_lines_that_belong_to_it() -> None:
    found = entry("backend-blue", "[2026-01-01T10:00:00Z ERROR a] x")
    found.more.append("  for 0c6d-42")
    assert Wanted(request="0C6D").takes(found)


# --- what absence means --------------------------------------------------------------------------

ALL = ("traefik", "postgres", "backend", "frontend")


@pytest.mark.parametrize(
    ("settings", "wanted", "said"),
    [
        ({}, Wanted(request="/units"), "the backend logs no requests"),
        ({}, Wanted(request="/units"), "Traefik logs no requests"),
        ({}, Wanted(level="warn"), "no 5xx either"),
        ({}, Wanted(slow_ms=100), "250 ms: Postgres logs no quicker statement"),
        ({"backend_log_level": "error"}, Wanted(level="warn"), "logs no warnings"),
        (
            {"postgres_settings": {"log_min_duration_statement": "-1"}},
            Wanted(slow_ms=100),
            "logs no slow statement",
        ),
    ],
)
def test_what_is_not_logged_at_all_is_said(
    settings: dict[str, Any], wanted: Wanted, said: str
) -> None:
    found = logs.blind_spots(project.settings(**{"access_log": "off", **settings}), ALL, wanted)
    assert said in " | ".join(found)


def test_where_all_is_logged_nothing_is_said() -> None:
    settings = project.settings(access_log="stdout", backend_log_level="info")
    assert logs.blind_spots(settings, ALL, Wanted(slow_ms=250)) == []
    assert logs.blind_spots(settings, ALL, Wanted(level="error")) == []


def test_only_what_was_asked_for_is_said() -> None:
    found = logs.blind_spots(project.settings(access_log="off"), ("postgres",), Wanted(slow_ms=250))
    assert found == []


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("250ms", 250), ("1.5s", 1500), ("10m", 600_000), ("1h30m", 5_400_000), ("2d", 172_800_000)],
)
def test_durations_are_read(text: str, milliseconds: float) -> None:
    assert logs.parse_duration(text) == milliseconds


@pytest.mark.parametrize("text", ["", "10", "m", "ten minutes", "-5s", "5 s x"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a number and ms"):
        logs.parse_duration(text)


# --- reading -------------------------------------------------------------------------------------


def stream(*events: str | dict[str, Any]) -> list[bytes | None]:
    return [(f"\t{json.dumps(e)}" if isinstance(e, dict) else e).encode() + b"\n" for e in events]


CREATED = {"container": "postgres", "created": "2026-01-01T09:00:00.5Z"}


def test_lines_of_several_containers_are_kept_apart() -> None:
    reading = Reading()
    lines = stream(
        CREATED,
        "postgres\t2026-01-01T10:00:00.1Z 2026-01-01 10:00:00.100 UTC [7] ERROR:  one",
        "traefik\t2026-01-01T10:00:00.15Z 2026-01-01T10:00:00Z ERR two",
        "postgres\t2026-01-01T10:00:00.2Z 2026-01-01 10:00:00.200 UTC [7] STATEMENT:  SELECT 1",
        {"end": "postgres", "code": 0, "said": ""},
        {"end": "traefik", "code": 0, "said": ""},
        {"done": True},
    )
    found = sorted(logs.group(lines, reading), key=lambda e: e.time)
    assert [(e.container, e.text, e.more) for e in found] == [
        ("postgres", "one", ["STATEMENT: SELECT 1"]),
        ("traefik", "two", []),
    ]
    assert (reading.lines, reading.unread, reading.complete) == (3, {}, True)


def test_a_log_that_docker_does_not_give_is_unread_and_no_empty_log() -> None:
    """The original's monitor said "No errors detected" when it could not read the logs."""
    reading = Reading()
    said = "configured logging driver does not support reading"
    assert (
        list(logs.group(stream(CREATED, {"end": "postgres", "code": 1, "said": said}), reading))
        == []
    )
    assert reading.unread == {"postgres": said}


def test_an_engine_that_does_not_answer_is_unread() -> None:
    reading = Reading()
    list(logs.group(stream({"failed": "Cannot connect to the Docker daemon"}), reading))
    assert reading.unread == {"all": "Cannot connect to the Docker daemon"}
    assert logs.summary(reading, 0, "10m") == []


def test_while_following_an_entry_is_shown_when_nothing_more_comes() -> None:
    reading = Reading()
    lines: list[bytes | None] = [
        b"postgres\t2026-01-01T10:00:00.1Z 2026-01-01 10:00:00.100 UTC [7] ERROR:  one\n",
        None,
    ]
    following = logs.group(iter(lines), reading, follow=True)
    assert next(following).text == "one"


def test_a_container_younger_than_asked_for_is_told() -> None:
    created = datetime.now(UTC) - timedelta(minutes=3)
    reading = Reading(created={"backend-blue": created}, lines=7)
    told = logs.summary(reading, 2, "10m")
    assert told[0] == "2 of 7 lines since 10m of backend-blue"
    assert "older lines went with the container before it" in told[1]
    assert len(logs.summary(reading, 2, "1m")) == 1


def test_secrets_are_masked() -> None:
    assert logs.mask("password=abc123", ["abc123"]) == "password=…"


def test_the_command_quotes_what_it_is_given() -> None:
    command = logs.command(["postgres"], "10m", follow=True)
    assert command.startswith("sudo -n python3 -c ")
    assert '["postgres"], "600.000s", true]' in command
    assert '"2026-01-31T10:00:00+00:00"' in logs.command(["postgres"], "2026-01-31T10:00", False)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "DETAIL:  Failing row contains (7, person@example.be, $2b$12$abc).",
            "DETAIL: Failing row contains (…",
        ),
        (
            "DETAIL:  Key (email, id)=(person@example.be, 7) already exists.",
            "DETAIL: Key (email, id)=(…",
        ),
        (
            "CONTEXT:  COPY users, line 1, column email: person@example.be",
            "CONTEXT: COPY users, line 1, column email: …",
        ),
        (
            "DETAIL:  Process 71 waits for ShareLock on transaction 9; blocked by process 72.",
            "DETAIL: Process 71 waits for ShareLock on transaction 9; blocked by process 72.",
        ),
    ],
)
def test_a_row_in_postgres_log_is_nobody_elses_business(said: str, shown: str) -> None:
    line = f"2026-01-01 10:00:00.123 UTC [71] koprogo@koprogo_db {said}"
    assert entry("postgres", line).text == shown
