"""What a colour is asked before it has traffic, by whose login, and how an old one is stopped."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bcrypt
import pytest
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import database as schema
from koprogo_deploy import direct
from koprogo_deploy.database import told as told_hash
from koprogo_deploy.facts.stack import Container, StackState
from koprogo_deploy.on_host import ask
from koprogo_deploy.operations import context, migrate, rehearse, routes, shell, trial
from koprogo_deploy.plan.wanted import Wanted, refused
from tests import project

BASE = project.settings()
LOGIN = {"email": "admin@small.be", "password": "right one", "lists": {"/buildings": 2}}


class Answers(BaseHTTPRequestHandler):
    """An application that answers as KoproGo does, but for what a test changes."""

    changed: dict[str, tuple[int, Any]] = {}  # noqa: RUF012
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, token = self.path.partition("?")[0], self.headers.get("Authorization")
        rows = {"data": [{}, {}], "pagination": {"total_items": 2}}
        usual: dict[str, tuple[int, Any]] = {
            "/api/v1/health": (200, {"status": "ok"}),
            "/api/v1/auth/me": (200, {"email": LOGIN["email"]}),
            "/api/v1/buildings": (200, rows) if token == "Bearer t" else (401, "no"),
        }
        self.answer(path + (" +" if token else ""), path, usual)

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        right = given["password"] == LOGIN["password"]
        usual = {self.path: (200, {"token": "t"}) if right else (401, {"error": "no"})}
        self.answer(self.path + (" right" if right else " wrong"), self.path, usual)

    def answer(self, name: str, path: str, usual: dict[str, tuple[int, Any]]) -> None:
        status, content = self.changed.get(name, usual.get(path, (404, None)))
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if path == "/" else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    Answers.changed = {}
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as served:
        threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
        yield "127.0.0.1", served.server_address[1]
        served.shutdown()


# --- what is asked -------------------------------------------------------------------------------


def test_one_that_answers_as_it_should_has_no_failure(server: tuple[str, int]) -> None:
    assert ask.failures(server, None, LOGIN) == []
    assert ask.failures(server, None, None) == [], "without a login the rest is asked"


@pytest.mark.parametrize(
    ("name", "answer", "failure"),
    [
        ("/api/v1/health", (503, {"status": "down"}), "/health: 503, not 200"),
        ("/api/v1/health", (200, {"status": "ill"}), "/health: {'status': 'ill'}"),
        ("/api/v1/buildings", (200, {}), "/buildings: 200, not 401"),
        ("/api/v1/auth/login wrong", (200, {"token": "x"}), "/auth/login: 200, not 401"),
        ("/api/v1/auth/login right", (401, {"error": "no"}), "/auth/login: 401, not 200 (no)"),
        ("/api/v1/auth/login right", (200, {}), "/auth/login: 200 without a token"),
        (
            "/api/v1/auth/me +",
            (200, {"email": "x@y.be"}),
            "/auth/me: x@y.be, not admin@small.be",
        ),
        ("/api/v1/auth/me +", (200, []), "/auth/me: None, not admin@small.be"),
        ("/api/v1/auth/me +", (200, "hello"), "/auth/me: None, not admin@small.be"),
        ("/api/v1/auth/login right", (200, ["t"]), "/auth/login: 200 without a token"),
        ("/api/v1/buildings +", (500, "boom"), "/buildings: 500, not 200"),
        (
            "/api/v1/buildings +",
            (200, {"data": None, "pagination": {"total_items": 2}}),
            "/buildings: not a list with its pagination",
        ),
        ("/api/v1/buildings +", (200, []), "/buildings: not a list with its pagination"),
        (
            "/api/v1/buildings +",
            (200, {"data": [{}], "pagination": {"total_items": 1}}),
            "/buildings: 1 in all, and there should be 2 or more",
        ),
        (
            "/api/v1/buildings +",
            (200, {"data": [], "pagination": {"total_items": 2}}),
            "/buildings: 0 of 2 on the first page",
        ),
    ],
)
def test_each_wrong_answer_is_told_and_the_rest_still_asked(
    server: tuple[str, int], name: str, answer: tuple[int, Any], failure: str
) -> None:
    Answers.changed = {name: answer}
    assert ask.failures(server, None, LOGIN) == [failure]


# --- as a tenant of real data --------------------------------------------------------------------

READER = {"organization": "o1", "token": "t", "lists": {"/buildings": 2, "/units": 1}}


def test_a_tenants_lists_are_all_asked_and_an_empty_one_is_told(server: tuple[str, int]) -> None:
    full = {"data": [{}], "pagination": {"total_items": 1}}
    none = {"data": [], "pagination": {"total_items": 0}}
    Answers.changed = {"/api/v1/units +": (200, full)}
    assert ask.failures(server, None, LOGIN, READER) == []
    Answers.changed = {"/api/v1/units +": (200, none), "/api/v1/buildings +": (500, {})}
    assert ask.failures(server, None, None, READER) == [
        "a tenant's /buildings: 500, not 200",
        "a tenant's /units: 0 in all, and there should be 1 or more",
    ]


def test_a_token_of_ours_is_an_accountants_of_that_organisation_and_ends() -> None:
    head, claims, mark = ask.signed("secret", "o1").split(".")

    def plain(part: str) -> bytes:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))

    right = hmac.new(b"secret", f"{head}.{claims}".encode(), hashlib.sha256).digest()
    assert plain(mark) == right
    assert json.loads(plain(head)) == {"alg": "HS256", "typ": "JWT"}
    found = json.loads(plain(claims))
    assert (found["role"], found["organization_id"]) == ("accountant", "o1")
    assert 0 < found["exp"] - found["iat"] <= 60
    assert {"sub", "email"} <= set(found)


def test_it_is_signed_by_the_secret_of_the_backend_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("its own\n")
    docker = tmp_path / "docker"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    docker.write_text(f'#!/bin/sh\necho "{tmp_path}/secret"\n')
    docker.chmod(0o755)
    read = ask.read_by("koprogo-backend-blue-1", READER)
    assert read["lists"] == READER["lists"]
    head, claims, mark = read["token"].split(".")
    right = hmac.new(b"its own", f"{head}.{claims}".encode(), hashlib.sha256).digest()
    assert base64.urlsafe_b64encode(right).rstrip(b"=").decode() == mark
    docker.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(ask.Wrong, match="no list was read: koprogo-backend-blue-1 has no /run"):
        ask.read_by("koprogo-backend-blue-1", READER)


def test_what_nobody_could_try_is_said() -> None:
    rows = {"/buildings": 3, "/units": 1, "/meetings": 0}
    read = direct.reader({"organization": "o1", "rows": rows})
    assert read == {
        "organization": "o1",
        "lists": {"/buildings": 2, "/units": 1, "/meetings": 0},
    }
    assert direct.reader({"organization": None}) is None
    assert direct.untried({"email": "x"}, read) == [
        "nobody has a row to show in /meetings: an answer, and no more"
    ]
    nothing = direct.untried(None, None)
    assert [told.partition(":")[0] for told in nothing] == [
        "no login was tried",
        "no tenant's list was tried",
    ]


def test_the_tenants_query_is_one_line_for_psql_and_reads_counts_alone() -> None:
    query = schema.tenant_query()
    for table in ("organizations", "buildings", "units", "owners", "expenses", "meetings"):
        assert f"public.{table}" in query
    assert query.count("$q$") == 2
    for name in ("email", "first_name", "amount", "password"):
        assert name not in query


@pytest.mark.parametrize(
    ("answer", "failures"),
    [
        ({"organization": None}, []),
        ({"organization": "o1", "rows": {"/units": 2}}, []),
        ({}, [direct.UNCOUNTED]),
    ],
)
def test_rows_that_cannot_be_counted_are_no_database_without_tenants(
    answer: dict[str, Any], failures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the image's own migration took `meetings.organization_id` away."""
    run = SimpleNamespace(run=lambda *_: {"failures": [], "log": []})
    monkeypatch.setattr(trial, "_untried", [])
    monkeypatch.setattr(trial, "look", lambda *_, **__: answer)
    monkeypatch.setattr(trial, "login", lambda: None)
    monkeypatch.setattr(trial, "on_host", run)
    monkeypatch.setattr(trial, "state", SimpleNamespace(is_executing=True))
    assert trial.failures(backend="backend-green") == (failures, [])


def test_a_database_without_its_tables_has_no_tenant_and_one_that_lacks_a_list_gives_an_error() -> (
    None
):
    query = schema.tenant_query()
    assert "CASE WHEN to_regclass('public.organizations') IS NOT NULL" in query
    assert query.count("to_regclass") == 1
    assert """END, '{"organization": null}'::json)""" in query


def test_one_that_does_not_answer_fails_every_check() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found = ask.failures(taken.getsockname(), taken.getsockname(), LOGIN)
    assert len(found) == 4
    assert all("no answer" in line for line in found)


def test_a_frontend_serves_a_page(server: tuple[str, int]) -> None:
    Answers.changed = {"/": (200, "<!doctype html><HTML>")}
    assert ask.failures(None, server) == []
    Answers.changed = {"/": (200, "welcome")}
    assert ask.failures(None, server) == ["frontend /: text/html, and not a page"]
    Answers.changed = {"/": (403, "<html>")}
    assert ask.failures(None, server) == ["frontend /: 403, not 200"]


# --- by whose login ------------------------------------------------------------------------------


def hashed(password: str) -> str:
    return told_hash(bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode())


def test_a_tenants_login_is_taken_where_it_is_seeded_with_our_password() -> None:
    seeded, secrets = project.settings(seed_enabled=True), project.SECRETS
    ours, guard = hashed(secrets["SEED_PASSWORD"]), hashed(secrets["SUPERADMIN_PASSWORD"])
    found = direct.login(seeded, secrets, ours, guard)
    assert found
    assert (found["email"], found["password"]) == ("admin@small.be", secrets["SEED_PASSWORD"])
    assert found["lists"]["/buildings"] == 5
    for there in (None, hashed("changed since")):
        other = direct.login(seeded, secrets, there, guard)
        assert other
        assert other["email"] == direct.SUPERADMIN


def test_without_a_login_of_ours_there_is_none() -> None:
    secrets = project.SECRETS
    assert direct.login(BASE, secrets, hashed(secrets["SEED_PASSWORD"]), None) is None
    assert direct.login(BASE, secrets, None, hashed("another one")) is None
    unguarded = project.settings(superadmin_guard=False)
    guard = hashed(secrets["SUPERADMIN_PASSWORD"])
    assert direct.login(unguarded, secrets, None, guard) is None
    by_api = project.settings(seed_enabled=True, seed_via="api")
    found = direct.login(by_api, secrets, hashed("admin123"), None)
    assert found
    assert found["password"] == "admin123"


def test_a_mark_is_one_short_line() -> None:
    assert direct.on_one_line(["a\n b", "c\td"]) == "a b; c d"
    assert len(direct.on_one_line(["x" * 999])) == 301


# --- which colours -------------------------------------------------------------------------------


def about(identity: str, **colours: str) -> dict[str, Any]:
    rendered = project.release(BASE, **colours)
    return {
        "id": identity,
        "colours": rendered.colours,
        "specs": rendered.specs,
        "images": rendered.images,
        "settings": "s",
        "dynamic": "d1",
    }


def test_only_colours_that_have_no_traffic_are_asked() -> None:
    live = about("r1")
    one = {**about("r2", backend="green"), "dynamic": "d2"}
    state = StackState(current=live, candidate=one, dynamic="d1")
    assert trial.unrouted(state) == {"backend": "backend-green"}
    switched = StackState(current=live, candidate=one, dynamic="d2")
    assert trial.unrouted(switched) == {}
    assert trial.unrouted(StackState(current=live, dynamic="d1")) == {}
    assert trial.unrouted(StackState(candidate=live)) == {}, "nothing serves that it could replace"


def test_what_serves_is_asked_only_if_it_serves() -> None:
    running = Container("1", "backend-blue", "s", "running", "healthy", "")
    state = StackState(current=about("r1"), dynamic="d1", containers={"backend-blue": running})
    assert trial.serving(state) == "backend-blue"
    down = Container("1", "backend-blue", "s", "exited", "", "")
    state.containers["backend-blue"] = down
    assert trial.serving(state) == ""
    assert trial.serving(StackState()) == ""


def test_a_newer_schema_is_told_by_the_set() -> None:
    assert direct.newer_than({"1", "3"}, {"1": True, "2": True, "3": True}) == ["2"]
    assert direct.newer_than({"1", "2", "3"}, {"1": True}) == []


# --- a Postgres that does not answer -------------------------------------------------------------


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Postgres answers to a run that is executed; a live release knows one migration more."""
    answer: dict[str, Any] = {}
    monkeypatch.setattr(migrate, "look", lambda *_, **__: answer)
    monkeypatch.setattr(migrate, "state", SimpleNamespace(is_executing=True))
    monkeypatch.setattr(context, "planned", lambda: None)
    seeded = SimpleNamespace(settings=project.settings(seed_enabled=True), secrets=project.SECRETS)
    monkeypatch.setattr(context, "current", lambda: seeded)
    return answer


FOUND = StackState(
    current=about("r1"),
    candidate={**about("r2", backend="green"), "dynamic": "d2"},
    dynamic="d1",
    migrations={"r1": ["1_a.sql"], "r2": ["1_a.sql", "2_b.sql"]},
)


@pytest.mark.parametrize("look", [rehearse.waiting, trial.newer, lambda _: trial.login()])
def test_no_answer_is_no_empty_database(look: Any, database: dict[str, Any]) -> None:
    with pytest.raises(OperationError, match="Postgres does not answer, so nobody knows"):
        look(FOUND)


def test_an_empty_database_answers_and_has_nothing_to_rehearse(database: dict[str, Any]) -> None:
    database.update(migrations="", schema=False)
    assert rehearse.waiting(FOUND).versions == []
    assert trial.newer(FOUND) == []
    assert trial.login() is None
    database.update(migrations="1:true")
    assert rehearse.waiting(FOUND).versions == ["2"]


def test_while_changes_are_detected_there_may_be_no_database_yet(
    database: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "state", SimpleNamespace(is_executing=False))
    assert rehearse.waiting(FOUND).versions == []


# --- one that fails, and who is to blame --------------------------------------------------------

SICK = ["/buildings: 500, not 200"]


class Told:
    """A run that asks a new backend; what each container fails at, each time it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails: dict[str, list[list[str]]] = {}
        self.host_well = True
        self.noted: dict[str, Any] = {}
        self.said: list[str] = []
        self.applied = "1:true"
        run = SimpleNamespace(
            noop=self.said.append, run_shell_command=lambda _: (self.host_well, None)
        )
        environment = SimpleNamespace(settings=BASE)
        for name, value in {
            "state": SimpleNamespace(is_executing=True),
            "host": run,
            "stack": lambda _: FOUND,
            "failures": self.failures,
            "answered": lambda _: {"migrations": self.applied},
            "note": self.noted.update,
            "AGAIN": 0,
        }.items():
            monkeypatch.setattr(trial, name, value)
        monkeypatch.setattr(context, "current", lambda: environment)
        monkeypatch.setattr(context, "planned", lambda: None)
        monkeypatch.setattr(context, "going_back", lambda: None)

    def failures(self, backend: str) -> tuple[list[str], list[str]]:
        left = self.fails.get(backend, [])
        return (left.pop(0) if left else []), []


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(monkeypatch)


def test_a_hiccup_marks_nothing(told: Told) -> None:
    told.fails = {"backend-green": [SICK, []]}
    assert list(trial.colour_answers("backend")) == []
    assert told.said == ["the new backend answers as it should"]
    assert told.noted == {"unrouted_backend": "passed"}


@pytest.mark.parametrize(
    ("host_well", "live", "words"),
    [
        (False, [], "the host has no room, its Postgres does not answer, or another run"),
        (True, [SICK], "r1, which serves, fails alike"),
    ],
)
def test_what_is_the_hosts_or_the_datas_fault_marks_nothing(
    told: Told, host_well: bool, live: list[list[str]], words: str
) -> None:
    told.host_well = host_well
    told.fails = {"backend-green": [SICK, SICK], "backend-blue": live}
    ran = trial.colour_answers("backend")
    with pytest.raises(OperationError, match=f"r2 is not marked as bad: {words}"):
        next(ran)
    assert "outcome" not in told.noted


@pytest.mark.parametrize(
    ("live", "applied"),
    [([], "1:true"), ([["/health: 503, not 200"]], "1:true"), ([SICK, SICK], "1:true 2:true")],
)
def test_one_that_fails_by_itself_is_marked(
    told: Told, live: list[list[str]], applied: str
) -> None:
    """Also where what serves fails alike, on the schema that this one migrated."""
    told.fails = {"backend-green": [SICK, SICK], "backend-blue": live}
    told.applied = applied
    ran = trial.colour_answers("backend")
    assert "releases/r2/bad" in next(ran)
    with pytest.raises(OperationError, match="release r2 gets no traffic: /buildings: 500"):
        next(ran)
    assert told.noted["outcome"] == "failed"


# --- a release that is put away ------------------------------------------------------------------


def test_a_release_without_traffic_is_stopped_marked_and_no_route_is_touched() -> None:
    serving, failed = about("r1"), about("r2", backend="green")
    command = routes.put_away_command(BASE, serving, failed, "not routed: it's bad")
    assert "dynamic" not in command
    assert "koprogo-backend-green-1" in command
    assert "koprogo-backend-blue-1" not in command
    assert "compose" not in command, "Postgres and Traefik are as they were"
    assert "/releases/r2/bad" in command
    other = {**failed, "specs": {**failed["specs"], "postgres": "x"}}
    again = routes.put_away_command(BASE, serving, other, "why")
    assert "releases/r1/compose.yaml up -d --no-deps --no-build --pull never postgres" in again


def test_a_release_that_was_not_routed_is_refused_in_its_own_words() -> None:
    rendered = project.release(BASE)
    wanted = Wanted(rendered, "", rendered.hash)
    state = StackState(bad={rendered.hash: "not routed 2026-01-01 10:00 UTC: its migrations fail"})
    assert refused(state, wanted).startswith("this very release was not routed 2026")


# --- an old colour that is stopped ---------------------------------------------------------------


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A `docker` that knows one container, whose processes are ours, and writes down its calls."""
    program = tmp_path / "docker"
    program.write_text(
        '#!/bin/sh\necho "$(date +%s.%N) $*" >> "$0.log"\n'
        'case "$1 $4" in "inspect koprogo-backend-blue-1") cat "$0.pid" ;; '
        '"inspect "*) exit 1 ;; esac\n'
    )
    program.chmod(0o755)
    return program


def stopped(docker: Path, port: int, **options: Any) -> tuple[list[str], float, str]:
    script = shell.stop("backend-blue", "backend-green", **options)
    script = script.replace("*) port=8080", f"*) port={port}").replace("!~ /0100007F:/", "!~ /XX/")
    began = time.monotonic()
    done = subprocess.run(
        ["sh", "-ec", script],
        env={"PATH": f"{docker.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = [line.partition(" ")[2] for line in Path(f"{docker}.log").read_text().splitlines()]
    return (
        [line for line in lines if not line.startswith("inspect")],
        (time.monotonic() - began),
        done.stderr,
    )


def test_an_old_colour_is_stopped_when_nobody_is_connected_any_more(docker: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        served, _ = listening.accept()
        # The connection belongs to this network namespace, which any of our processes shows.
        Path(f"{docker}.pid").write_text("self\n")

        def hang_up() -> None:
            time.sleep(1)
            client.close()
            served.close()

        threading.Thread(target=hang_up).start()
        calls, seconds, said = stopped(docker, port, remove=True)
    assert 0.9 < seconds < 5
    assert said == ""
    names = "koprogo-backend-blue-1"
    assert calls == [f"stop -t 35 {names}", f"rm {names}"], "and none that is not there"


def test_one_that_is_down_already_is_not_waited_for(docker: Path) -> None:
    Path(f"{docker}.pid").write_text("0\n")
    calls, seconds, _ = stopped(docker, 1)
    assert calls == ["stop -t 35 koprogo-backend-blue-1"]
    assert seconds < 2


def test_what_never_ends_is_stopped_nevertheless_and_said(
    docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "DRAIN", 1)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            served, _ = listening.accept()
            Path(f"{docker}.pid").write_text("self\n")
            calls, _, said = stopped(docker, port)
            served.close()
    assert calls == ["stop -t 35 koprogo-backend-blue-1"]
    assert "koprogo-backend-blue-1 is stopped with requests at work" in said
