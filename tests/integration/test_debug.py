"""`koprogo debug` on the real thing, and the role it asks as: what it sees and cannot do."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from koprogo_deploy.debug import statements
from koprogo_deploy.operations.shell import observer_psql
from tests.integration.rig import PSQL, ROOT, Rig
from tests.integration.test_rendered_files import container, docker

KOPROGO = str(Path(sys.executable).with_name("koprogo"))


def debug(*arguments: str, within: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KOPROGO, "debug", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )


def found(*arguments: str) -> Any:
    done = debug(*arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def token(api: httpx2.Client, seed_password: str) -> str:
    login = {"email": "admin@large.be", "password": seed_password}
    answer = api.post("/auth/login", json=login)
    assert answer.status_code == 200
    return str(answer.json()["token"])


def as_observer(rig: Rig, script: str) -> str:
    """Both streams of psql as the observer, going on after errors."""
    command = observer_psql().replace("ON_ERROR_STOP=1", "ON_ERROR_STOP=0")
    script = f"SET search_path = pg_catalog, public;\n{script}"
    return rig.on_host(f"{command} 2>&1", stdin=script, check=False)


# --- the role ------------------------------------------------------------------------------------

WRITES = (
    "INSERT INTO buildings (id) VALUES (gen_random_uuid())",
    "UPDATE units SET floor = 1",
    "UPDATE users SET password_hash = 'x'",
    "DELETE FROM refresh_tokens",
    "TRUNCATE organizations CASCADE",
    "CREATE TABLE public.t ()",
    "CREATE TEMPORARY TABLE t ()",
    "CREATE SCHEMA s",
    "DROP INDEX idx_units_owner",
    "ALTER TABLE units ADD COLUMN x int",
    "LOCK TABLE units IN ACCESS EXCLUSIVE MODE",
    "SELECT id FROM units FOR UPDATE",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "COPY units (id) TO '/tmp/x'",
    "COPY units (id) TO PROGRAM 'cat'",
    "ALTER SYSTEM SET work_mem = '1GB'",
    "ALTER ROLE koprogo PASSWORD 'x'",
    "GRANT koprogo TO koprogo_observer",
    "SET ROLE koprogo",
    "SELECT pg_stat_statements_reset()",
    "SELECT pg_stat_reset()",
    "SELECT pg_reload_conf()",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE usename ~ '^koprogo_[0-9a-f]+$' LIMIT 1",
    "CREATE EXTENSION dblink",
)
SECRETS = (
    "SELECT token FROM refresh_tokens",
    "SELECT password_hash FROM users",
    "SELECT * FROM users",
    "SELECT * FROM koprogo_deploy.superadmin",
    "SELECT rolpassword FROM pg_authid",
    "SELECT * FROM audit_logs",
    "SELECT pg_read_file('/run/secrets/postgres_password')",
    "SELECT stavalues1 FROM pg_statistic",
)


@pytest.mark.parametrize("statement", [*WRITES, *SECRETS])
def test_the_observer_is_refused(rig: Rig, statement: str) -> None:
    """Read-only is a default that a session may switch off: what holds are the privileges."""
    script = (
        "SET default_transaction_read_only = off; SET statement_timeout = '5s';\n"
        + (statement if "SYSTEM" in statement else f"BEGIN READ WRITE;\n{statement};\nROLLBACK")
        + ";\n"  # ALTER SYSTEM is refused in a transaction for another reason
    )
    said = as_observer(rig, script)
    assert re.search("permission denied|must be|not a superuser|Only roles with", said), said


def test_the_observers_session_is_read_only_and_short_by_default(rig: Rig) -> None:
    said = as_observer(
        rig,
        "SELECT current_user; SHOW default_transaction_read_only; SHOW statement_timeout;\n"
        "SHOW pg_stat_statements.track; SELECT count(*) > 0 FROM units;\n",
    )
    assert said.split() == ["koprogo_observer", "on", "15s", "none", "t"]


def test_the_observer_comes_in_from_inside_alone(rig: Rig) -> None:
    over_tcp = observer_psql().replace("-U ", "-h 127.0.0.1 -U ")
    assert "no pg_hba.conf entry" in rig.on_host(f"{over_tcp} 2>&1", check=False)
    elsewhere = observer_psql().replace("-d koprogo_db", "-d postgres")
    assert "no pg_hba.conf entry" in rig.on_host(f"{elsewhere} 2>&1", check=False)
    names = rig.sql("SELECT rolname FROM pg_authid WHERE rolpassword IS NULL AND rolcanlogin")
    assert "koprogo_observer" in names.split()


def test_a_deploy_takes_back_what_the_role_was_given(rig: Rig) -> None:
    rig.sql(
        "GRANT SELECT ON refresh_tokens TO koprogo_observer;"
        "GRANT pg_write_all_data TO koprogo_observer;"
        "ALTER ROLE koprogo_observer PASSWORD 'x' CONNECTION LIMIT -1;"
    )
    run = rig.converge()
    assert [name for name in run.changed if "Migrate" in name] != []
    assert "permission denied" in as_observer(rig, "SELECT token FROM refresh_tokens;")
    assert rig.converge().changed == []


# --- slow queries --------------------------------------------------------------------------------


def test_what_the_application_asked_is_counted(rig: Rig, api: httpx2.Client, token: str) -> None:
    def calls() -> int:
        top = found("slow-queries", "--by", "calls", "--limit", "1000")["top"]
        return sum(
            s["calls"] for s in top if re.match(r"SELECT count\(\*\) FROM owners", s["query"])
        )

    before = calls()
    for _ in range(5):
        assert api.get("/owners", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert calls() == before + 5


def test_slow_queries_are_sorted_and_their_shares_add_up(rig: Rig) -> None:
    whole = found("slow-queries", "--limit", "1000")
    shares = [s["share"] for s in whole["top"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0, abs=0.01)
    assert whole["server"] // 10000 == 17
    means = [s["mean_ms"] for s in found("slow-queries", "--by", "mean")["top"]]
    assert means == sorted(means, reverse=True)
    assert not any("SCRAM" in s["query"] for s in whole["top"])


VERSIONS = r"""
set -eu
initdb -D /tmp/data -U postgres --auth=trust >/dev/null
postgres -D /tmp/data -c unix_socket_directories=/tmp -c listen_addresses= \
  -c shared_preload_libraries=pg_stat_statements -c track_io_timing=on >/tmp/log 2>&1 &
for _ in $(seq 100); do pg_isready -q -h /tmp && break; sleep 0.1; done
for version in 1.8 1.9 1.10 1.11; do
  psql -Xq -h /tmp -U postgres -c "CREATE DATABASE \"v$version\""
  psql -Xq -h /tmp -U postgres -d "v$version" \
    -c "CREATE EXTENSION pg_stat_statements VERSION '$version'" -c "CREATE TABLE t (a int)"
  psql -Xq -h /tmp -U postgres -d "v$version" -c "SELECT * FROM t WHERE a = 1"
  name=Q$(printf %s "$version" | tr -d .)
  printf '%s\n' "${!name}" | psql -XqAt -v ON_ERROR_STOP=1 -h /tmp -U postgres -d "v$version"
done
"""


def test_the_sql_runs_on_every_version_of_the_extension(rig: Rig) -> None:
    """1.8 is Postgres 13's, 1.9 14's, 1.10 15's and 16's, 1.11 17's: each is really asked."""
    # Two rounds, as the command: what the view has, and then what was counted.
    bounds = ("--user", "999:999", "--memory", "268435456", "--entrypoint", "bash")

    def ask(queries: dict[str, str]) -> list[Any]:
        variables = [f"Q{v.replace('.', '')}={sql}" for v, sql in queries.items()]
        options = [part for variable in variables for part in ("-e", variable)]
        with container("postgres", {}, "-c", VERSIONS, options=(*bounds, *options)) as name:
            output = docker("start", "-a", name, timeout=120, check=False)
        answers = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        assert len(answers) == len(queries), output
        return answers

    versions = ("1.8", "1.9", "1.10", "1.11")
    about = dict(zip(versions, ask(dict.fromkeys(versions, statements.ABOUT_SQL)), strict=True))
    columns = {v: about[v]["columns"] for v in versions}
    assert ["toplevel" in columns[v] for v in versions] == [False, True, True, True]
    assert ["stats_since" in columns[v] for v in versions] == [False, False, False, True]
    answers = ask({v: statements.query(columns[v], "total", 100) for v in versions})
    for version, answer in zip(versions, answers, strict=True):
        assert statements.missing(about[version]) == ""
        report = statements.parse(about[version], answer)
        [asked] = [s for s in report.top if s.query == "SELECT * FROM t WHERE a = $1"]
        assert (asked.calls, asked.read_ms is not None) == (1, True)
        assert (report.since is not None) is (version != "1.8")


# --- indexes -------------------------------------------------------------------------------------

FIVE = {
    frozenset(pair)
    for pair in (
        ("idx_units_building", "idx_units_building_id"),
        ("idx_units_owner", "idx_units_owner_id"),
        ("idx_expenses_building", "idx_expenses_building_id"),
        ("idx_meetings_building", "idx_meetings_building_id"),
        ("idx_documents_building", "idx_documents_building_id"),
    )
}


def test_koprogos_five_doubled_indexes_are_found_and_no_other(rig: Rig) -> None:
    report = found("indexes")
    doubled = {
        frozenset((r["index"], r["because_of"]))
        for r in report["redundant"]
        if r["kind"] in ("same", "partial")
    }
    assert doubled == FIVE
    beside_constraints = {r["index"] for r in report["redundant"] if r["kind"] == "constraint"}
    assert beside_constraints == {
        "idx_organizations_slug",
        "idx_owners_email",
        "idx_refresh_tokens_token",
        "idx_users_email",
    }
    assert len(report["indexes"]) == int(
        rig.sql("SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'")
    )


def test_foreign_keys_without_an_index_are_found_by_dropping_one(rig: Rig) -> None:
    def missing() -> set[str]:
        return {f"{key['table']}.{key['columns'][0]}" for key in found("indexes")["missing"]}

    before = missing()
    try:
        rig.sql("DROP INDEX idx_units_owner; DROP INDEX idx_units_owner_id")
        assert missing() - before == {"units.owner_id"}
    finally:
        rig.sql(
            "CREATE INDEX idx_units_owner ON units (owner_id);"
            "CREATE INDEX idx_units_owner_id ON units (owner_id) WHERE owner_id IS NOT NULL"
        )
    assert missing() == before


def test_indexes_are_told_in_words(rig: Rig) -> None:
    # Where a line is broken hangs on how long ago the server started.
    text = " ".join(debug("indexes", "--all").stdout.split())
    assert "Twice the same: 9" in text
    assert "Nothing is dropped here" in text
    assert "they enforce uniqueness or a key" in text


# --- explain -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint", ["buildings", "units", "owners", "expenses", "meetings", "documents", "users"]
)
def test_every_list_is_explained(rig: Rig, endpoint: str) -> None:
    report = found("explain", endpoint, "--org", "small-0", "--page", "1", "--per-page", "10")
    assert report["organization"]["slug"] == "small-0"
    assert len(report["queries"]) == (1 if endpoint == "users" else 2)
    for query in report["queries"]:
        assert query["plan"]["Execution Time"] > 0
        assert "Shared Hit Blocks" in query["plan"]["Plan"]
    assert report["queries"][0]["plan"]["Plan"]["Actual Rows"] <= 10 or endpoint == "users"


def test_the_applications_own_text_is_explained_where_it_was_seen(
    rig: Rig, api: httpx2.Client, token: str
) -> None:
    assert api.get("/buildings", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    report = found("explain", "buildings")
    assert all(query["calls"] for query in report["queries"])
    assert "WHERE organization_id = $1" in report["queries"][0]["text"]


def test_a_plan_says_what_koprogo_does_not_filter(rig: Rig) -> None:
    text = " ".join(debug("explain", "units").stdout.split())
    assert "Not filtered by organisation" in text
    assert "blocks from cache" in text
    assert "estimated" in text


def test_an_unknown_organisation_is_refused(rig: Rig) -> None:
    done = debug("explain", "units", "--org", "nobody's")
    assert done.returncode == 2
    assert "small-0" in done.stderr


# --- locks ---------------------------------------------------------------------------------------


@contextmanager
def session(rig: Rig, script: str) -> Iterator[subprocess.Popen[str]]:
    """A psql session in the box that stays open; ends with its standard input."""
    from koprogo_deploy import connection

    command = f"sudo -n {PSQL}"
    process = subprocess.Popen(
        connection.ssh_command(rig.environment, command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    try:
        process.stdin.write(script)
        process.stdin.flush()
        yield process
    finally:
        process.stdin.close()
        process.wait(30)


def test_who_waits_for_whom_is_shown(rig: Rig) -> None:
    assert "Nothing waits for a lock." in debug("locks").stdout
    one = "(SELECT min(id::text)::uuid FROM units)"
    holds = f"BEGIN; UPDATE units SET floor = floor WHERE id = {one};\n"
    waits = (
        "SET lock_timeout = '20s'; BEGIN; LOCK TABLE units IN ACCESS EXCLUSIVE MODE; ROLLBACK;\n"
    )
    with session(rig, holds) as holder:
        time.sleep(0.5)
        with session(rig, waits):
            time.sleep(1.0)
            report = found("locks")
            text = " ".join(debug("locks").stdout.split())
            watched = subprocess.Popen(
                [KOPROGO, "debug", "locks", "--watch", "--json"],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert watched.stdout is not None
            line = json.loads(watched.stdout.readline())
            watched.send_signal(signal.SIGINT)
            assert watched.wait(20) == 130
            assert holder.stdin is not None
            holder.stdin.write("ROLLBACK;\n")
            holder.stdin.flush()
    [waiting] = [s for s in report["sessions"] if s["blockers"]]
    [holding] = [s for s in report["sessions"] if s["pid"] in waiting["blockers"]]
    assert (waiting["mode"], waiting["relation"]) == ("AccessExclusiveLock", "units")
    assert waiting["waits_s"] >= 0.9
    assert holding["state"] == "idle in transaction"
    assert "units RowExclusiveLock" in holding["holds"]
    assert "for AccessExclusiveLock on units: the table" in text
    assert f"{holding['pid']} postgres" in text
    assert len(line["sessions"]) == 2
    assert "Nothing waits for a lock." in debug("locks").stdout


# --- logs ----------------------------------------------------------------------------------------


def entries(*arguments: str) -> list[dict[str, Any]]:
    done = debug("logs", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_an_error_a_slow_statement_and_a_request_are_found(rig: Rig) -> None:
    mark = f"mark_{uuid.uuid4().hex[:8]}"
    as_observer(rig, f"SELECT {mark} FROM units;")
    rig.sql(f"SELECT pg_sleep(0.3) AS {mark}")
    [error] = entries("postgres", "--level", "error", "--since", "1m", "--request", mark)
    assert (error["level"], error["service"]) == ("error", "postgres")
    assert f'column "{mark}" does not exist' in error["text"]
    assert any("STATEMENT" in line for line in error["more"])
    [slow] = entries("--slow", "250ms", "--since", "1m", "--request", mark)
    assert 300 <= slow["duration_ms"] < 1000
    assert entries("--slow", "5s", "--since", "1m", "--request", mark) == []


def test_what_is_not_logged_is_said_and_nothing_found_is_no_all_clear(rig: Rig) -> None:
    done = debug("logs", "--request", "/no-such-path", "--since", "5m")
    assert done.returncode == 0
    assert done.stdout == ""
    assert re.search(r"0 of \d+ lines since 5m of backend-", done.stderr)
    assert "Traefik logs no requests" in done.stderr
    assert "the backend logs no requests" in done.stderr


def test_a_log_that_cannot_be_read_is_no_log_without_errors(rig: Rig) -> None:
    """The original's monitor said "No errors detected" when it could not read them."""
    name = f"unreadable-{uuid.uuid4().hex[:8]}"
    image = next(iter(rig.containers().values()))["Config"]["Image"]
    labels = {"project": "koprogo", "service": "frontend-spare"}
    options = " ".join(f"--label com.docker.compose.{k}={v}" for k, v in labels.items())
    rig.on_host(f"docker create --name {name} --log-driver none {options} {shlex.quote(image)}")
    try:
        done = debug("logs", "frontend", "postgres", "--since", "1m")
    finally:
        rig.on_host(f"docker rm {name}")
    assert done.returncode == 1
    assert "NOT READ: frontend-spare:" in done.stderr
    assert "does not support reading" in done.stderr


def test_a_service_without_a_container_is_not_read(rig: Rig) -> None:
    names = {n.partition("-")[0]: n for n in rig.containers()}
    rig.on_host(f"docker rename koprogo-{names['frontend']}-1 kept")
    try:
        assert debug("logs", "frontend").returncode == 0, "found by its labels, not its name"
    finally:
        rig.on_host(f"docker rename kept koprogo-{names['frontend']}-1")


def test_without_the_host_nothing_is_read(rig: Rig, tmp_path: Path) -> None:
    fake = tmp_path / "ssh"
    fake.write_text("#!/bin/sh\necho 'connect to host: refused' >&2; exit 255\n")
    fake.chmod(0o755)
    done = subprocess.run(
        [KOPROGO, "debug", "logs"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "NOT READ: all: connect to host: refused" in done.stderr


def test_following_shows_what_comes_and_leaves_nothing_behind(rig: Rig) -> None:
    mark = f"mark_{uuid.uuid4().hex[:8]}"
    process = subprocess.Popen(
        [KOPROGO, "debug", "logs", "postgres", "--follow", "--json", "--request", mark],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        time.sleep(2)
        as_observer(rig, f"SELECT {mark} FROM units;")
        began = time.monotonic()
        line = json.loads(process.stdout.readline())
        assert time.monotonic() - began < 5
        assert mark in line["text"]
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    time.sleep(1)
    assert rig.on_host("pgrep -f '[d]ocker logs' || true") == ""
