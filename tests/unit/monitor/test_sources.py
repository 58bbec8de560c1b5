"""Engine, database and proxy, each against a small server that speaks as the real one."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from koprogo_deploy.monitor.probe import keep
from koprogo_deploy.monitor.probe.engine import Engine, short_names
from koprogo_deploy.monitor.probe.parse import UnreadError, http_body, traefik_counters
from koprogo_deploy.monitor.probe.postgres import Database, activity_query, message, messages
from koprogo_deploy.monitor.probe.traefik import Proxy
from koprogo_deploy.runs.sample import ContainerSample, PostgresSample, TraefikSample
from tests.unit.monitor import recorded

# --- which container is which ---------------------------------------------------------------------


def test_a_service_is_named_without_its_colour() -> None:
    running = [("traefik", "1"), ("backend-green", "2"), ("burner-red", "3")]
    assert short_names(running, {}) == {
        "traefik": "traefik",
        "backend-green": "backend",
        "burner-red": "burner-red",
    }


def test_during_a_switch_the_second_colour_has_its_full_name() -> None:
    both = [("backend-green", "2026-01-02"), ("backend-blue", "2026-01-01")]
    assert short_names(both, {}) == {"backend-blue": "backend", "backend-green": "backend-green"}
    # The older one was only started again: green, which serves, keeps the name it had.
    again = [("backend-green", "2026-01-02"), ("backend-blue", "2026-01-01")]
    before = {"backend-green": "backend"}
    assert short_names(again, before) == {
        "backend-green": "backend",
        "backend-blue": "backend-blue",
    }
    assert short_names([("backend-blue", "2026-01-03")], {"backend-blue": "backend-blue"}) == {
        "backend-blue": "backend"
    }


class Docker:
    """As much of the engine's interface as the probe asks."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "docker.sock")
        self.running: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.listeners: list[socket.socket] = []
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(self.path)
        self.server.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def start(self, service: str, created: str = "2026", **state: Any) -> str:
        identity = f"{len(self.asked) + len(self.running):064x}"
        self.running[identity] = {
            "Id": identity,
            "Name": f"/koprogo-{service}-1",
            "Created": created,
            "RestartCount": state.pop("RestartCount", 0),
            "State": {"Pid": 77, "StartedAt": created} | state,
            "Config": {"Labels": {"com.docker.compose.service": service}},
        }
        self.tell()
        return identity

    def tell(self) -> None:
        for listener in self.listeners:
            listener.sendall(b'{"Type":"container","Action":"start"}\n')

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self.server.accept()
            except OSError:
                return
            path = unquote(line.recv(65536).decode().split()[1])
            self.asked.append(path.partition("?")[0])
            line.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n")
            if path.startswith("/events"):
                self.listeners.append(line)
                continue
            answer: Any = [{"Id": identity} for identity in self.running]
            if not path.startswith("/containers/json"):
                answer = self.running.get(path.split("/")[2], {})
            line.sendall(json.dumps(answer).encode())
            line.close()

    def close(self) -> None:
        self.server.close()
        for listener in self.listeners:
            listener.close()


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[Docker]:
    made = Docker(tmp_path)
    yield made
    made.close()


def engine(docker: Docker, tmp_path: Path, *services: str) -> Engine:
    recorded.v1(tmp_path / "cgroup")
    lines = "".join(f"{n}:{c}:/docker/{recorded.ID}\n" for n, c in enumerate(recorded.v1_paths()))
    recorded.write(tmp_path / "proc", {"77/cgroup": lines})
    root, proc = str(tmp_path / "cgroup"), str(tmp_path / "proc")
    return Engine(docker.path, root, proc, "koprogo", list(services))


def eventually(true: Callable[[], bool], within: float = 2.0) -> None:
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_engine_is_asked_again_only_after_it_said_that_something_changed(
    docker: Docker, tmp_path: Path
) -> None:
    docker.start("backend-blue")
    found = engine(docker, tmp_path)
    for second in range(5):
        found.refresh(float(second))
        time.sleep(0.01)
    assert found.containers.keys() == {"backend"}
    # Once at first, and once for the head of the events.
    assert docker.asked.count("/containers/json") <= 2
    before = len(docker.asked)
    docker.start("backend-green", "2027")

    def both() -> bool:
        found.refresh(9.0)
        return found.containers.keys() == {"backend", "backend-green"}

    eventually(both)
    assert len(docker.asked) - before <= 4  # a list, and each container


def test_a_container_that_is_just_being_started_is_looked_for_again(
    docker: Docker, tmp_path: Path
) -> None:
    docker.start("backend-blue", Pid=78)
    found = engine(docker, tmp_path)
    found.refresh(0.0)
    assert found.containers == {}
    recorded.write(tmp_path / "proc", {"78/cgroup": "1:memory:/docker/x\n"})
    found.refresh(1.0)
    assert found.containers.keys() == {"backend"}


def test_a_container_is_read_from_its_group(docker: Docker, tmp_path: Path) -> None:
    docker.start("traefik", RestartCount=3)
    found, rates = engine(docker, tmp_path, "traefik"), keep.Rates()
    found.refresh(0.0)
    found.sample(keep.Sheet(), rates, 10.0)
    usage = tmp_path / "cgroup/cpuacct/docker" / recorded.ID / "cpuacct.usage"
    usage.write_text(str(1787935407 + 600_000_000))
    sheet = keep.Sheet()
    read = ContainerSample.model_validate(found.sample(sheet, rates, 12.0)["traefik"])
    assert read.cpu_percent == pytest.approx(30)
    assert (read.memory, read.memory_charged) == (22269952 - 409600, 22269952)
    assert (read.memory_limit, read.restarts, read.oom_kills) == (83886080, 3, 2)
    assert (read.throttled_ms, read.major_faults) == (0, 0)
    assert sheet.unread == {}


def test_a_service_that_does_not_run_is_in_the_sample_as_unread(
    docker: Docker, tmp_path: Path
) -> None:
    found, sheet = engine(docker, tmp_path, "backend"), keep.Sheet()
    found.refresh(0.0)
    assert found.sample(sheet, keep.Rates(), 1.0) == {"backend": {}}
    assert sheet.unread == {"containers.backend": "not running"}


def test_an_engine_that_does_not_answer_is_said_so(tmp_path: Path) -> None:
    found = Engine(str(tmp_path / "none.sock"), "/", "/proc", "koprogo", ["backend"])
    sheet = keep.Sheet()
    found.refresh(0.0)
    assert found.sample(sheet, keep.Rates(), 1.0) == {"backend": {}}
    assert "the engine does not answer" in sheet.unread["containers.backend"]
    assert "the engine does not answer" in sheet.unread["containers"]


# --- Postgres ------------------------------------------------------------------------------------

ANSWER = {
    "connections": {"idle": 7, "idle in transaction": 1},
    "waiting": 2,
    "longest": 1.5,
    "max": 25,
    "database": [1000, 10, 0, 4096, 9000, 100],
    "wal": 100000,
    "checkpoints": [3, 1],
}


def row(text: str) -> bytes:
    body = text.encode()
    return message(b"D", struct.pack("!hi", 1, len(body)) + body)


READY = message(b"Z", b"I")


@pytest.fixture
def server() -> Iterator[tuple[Database, socket.socket]]:
    """A database that is connected, and the server's end of its line."""
    ours, theirs = socket.socketpair()
    database = Database("/proc", 999, "koprogo_observer", "koprogo_db")
    database.line, database.pid = ours, 5
    yield database, theirs
    ours.close()
    theirs.close()


def ask(
    asked: Database, server: socket.socket, rates: keep.Rates, now: float, **changes: Any
) -> tuple[PostgresSample, keep.Sheet]:
    asked.next_size = now + 60 if now > 1 else 0
    asked.ask(5, now)
    query = server.recv(65536)
    size = row("27000000") if b"pg_database_size" in query else b""
    server.sendall(row(json.dumps(ANSWER | changes)) + size + READY)
    sheet = keep.Sheet()
    found = PostgresSample.model_validate(asked.sample(sheet, rates, time.monotonic() + 1))
    return found, sheet


def test_the_database_is_asked_one_query_and_gives_rates(
    server: tuple[Database, socket.socket],
) -> None:
    rates = keep.Rates()
    first, sheet = ask(*server, rates, 1.0)
    assert (first.connections, first.max_connections) == (ANSWER["connections"], 25)
    assert (first.waiting, first.longest_transaction, first.size) == (2, 1.5, 27000000)
    assert (first.checkpoints_timed, first.checkpoints_requested) == (3, 1)
    assert (first.commits, sheet.unread["postgres.commits"]) == (None, "first sample")
    after: dict[str, Any] = {"database": [1402, 12, 1, 8192, 9990, 110], "wal": 300000}
    second, sheet = ask(*server, rates, 3.0, **after)
    assert (second.rollbacks, second.deadlocks, second.temp_bytes) == (1, 0.5, 2048)
    assert second.wal_bytes == 100000
    assert second.cache_hit_percent == pytest.approx(99)
    assert second.size == 27000000  # measured once a minute
    assert sheet.unread == {}


def test_the_monitors_own_queries_are_no_transactions_of_the_application(
    server: tuple[Database, socket.socket],
) -> None:
    rates = keep.Rates()
    ask(*server, rates, 1.0)
    # 400 of the application, and the one that asked.
    second, _ = ask(*server, rates, 3.0, database=[1401, 10, 0, 4096, 9000, 100])
    assert second.commits == 200


def test_a_database_that_is_late_is_unread_now_and_read_when_it_answers(
    server: tuple[Database, socket.socket],
) -> None:
    database, theirs = server
    rates = keep.Rates()
    database.ask(5, time.monotonic())
    theirs.recv(65536)
    whole = row(json.dumps(ANSWER)) + row("1") + READY
    theirs.sendall(whole[:9])  # and then nothing: it is busy
    sheet = keep.Sheet()
    assert database.sample(sheet, rates, time.monotonic()) == {}
    assert "has not answered for" in sheet.unread["postgres"]
    database.ask(5, time.monotonic())  # still open: not asked again
    theirs.sendall(whole[9:])
    found = database.sample(keep.Sheet(), rates, time.monotonic() + 1)
    assert found["waiting"] == 2


def test_what_postgres_complains_of_is_the_reason(server: tuple[Database, socket.socket]) -> None:
    database, theirs = server
    database.ask(5, 1.0)
    theirs.sendall(message(b"E", b"SFATAL\0C53300\0Msorry, too many clients already\0\0"))
    theirs.shutdown(socket.SHUT_RDWR)
    sheet = keep.Sheet()
    assert database.sample(sheet, keep.Rates(), time.monotonic() + 1) == {}
    assert sheet.unread["postgres"] == "Postgres says: sorry, too many clients already"


def test_without_a_database_the_reason_is_that_it_does_not_run() -> None:
    database, sheet = Database("/proc", 999, "r", "d"), keep.Sheet()
    database.ask(None, 1.0)
    assert database.sample(sheet, keep.Rates(), 0.0) == {}
    assert sheet.unread == {"postgres": "Postgres is not running"}


def test_messages_are_cut_where_they_end() -> None:
    data = row("x") + READY + b"Z\0"
    found, left = messages(data)
    assert ([kind for kind, _ in found], left) == ([b"D", b"Z"], b"Z\0")


def test_checkpoints_are_asked_where_each_version_keeps_them() -> None:
    assert "pg_stat_checkpointer" in activity_query(17)
    assert "pg_stat_checkpointer" in activity_query(18)
    for old in (15, 16):
        assert "checkpoints_req" in activity_query(old)
        assert "checkpointer" not in activity_query(old)


# --- Traefik --------------------------------------------------------------------------------------

METRICS = b"""# TYPE traefik_entrypoint_requests_total counter
traefik_entrypoint_requests_total{code="200",entrypoint="websecure",method="GET"} %d
traefik_entrypoint_requests_total{code="201",entrypoint="websecure",method="POST",protocol="http"} 4
traefik_entrypoint_requests_total{code="308",entrypoint="web",method="GET",protocol="http"} 1
traefik_entrypoint_requests_total{code="502",entrypoint="websecure",method="GET"} %d
traefik_entrypoint_requests_total{code="200",entrypoint="internal",method="GET"} 1e+06
traefik_entrypoint_requests_bytes_total{code="200",entrypoint="websecure",method="GET"} 99
traefik_open_connections{entrypoint="internal",protocol="TCP"} 1
traefik_open_connections{entrypoint="web",protocol="TCP"} 2
traefik_open_connections{entrypoint="websecure",protocol="TCP"} 20
"""


def test_requests_are_counted_by_status_without_the_internal_ones() -> None:
    requests, opened = traefik_counters(METRICS % (200, 0))
    assert requests == {"2xx": 204, "3xx": 1, "5xx": 0}
    assert opened == 22


@pytest.fixture
def proxy() -> Iterator[tuple[Proxy, list[bytes]]]:
    answers: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                with line:
                    line.recv(4096)
                    line.sendall(answers.pop(0))

        threading.Thread(target=serve, daemon=True).start()
        yield Proxy("127.0.0.1", server.getsockname()[1]), answers
        server.shutdown(socket.SHUT_RDWR)


def looked(proxy: Proxy, now: float) -> tuple[TraefikSample, dict[str, str]]:
    sheet = keep.Sheet()
    proxy.ask(now)
    found = proxy.sample(sheet, time.monotonic() + 1)
    return TraefikSample.model_validate(found), sheet.unread


def test_traefik_gives_requests_a_second(proxy: tuple[Proxy, list[bytes]]) -> None:
    found, answers = proxy
    ok = b"HTTP/1.0 200 OK\r\n\r\n"
    answers += [ok + METRICS % (200, 0), ok + METRICS % (600, 3), ok + METRICS % (10, 0)]
    first, unread = looked(found, 1.0)
    assert (first.requests, first.open_connections) == (None, 22)
    assert unread == {"traefik.requests": "first sample"}
    second, unread = looked(found, 3.0)
    assert second.requests == {"2xx": 200, "3xx": 0, "5xx": 1.5}
    third, unread = looked(found, 4.0)
    assert third.requests is None
    assert unread == {"traefik.requests": "the counter began anew"}


def test_a_proxy_without_counters_is_unread_with_its_answer(
    proxy: tuple[Proxy, list[bytes]],
) -> None:
    found, answers = proxy
    answers.append(b"HTTP/1.0 404 Not Found\r\n\r\nno")
    _, unread = looked(found, 1.0)
    assert unread == {"traefik": "Traefik's counters: answered 404"}


def test_a_proxy_that_is_gone_is_unread() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    _, unread = looked(Proxy("127.0.0.1", port), 1.0)
    assert "Traefik does not answer" in unread["traefik"]


def test_half_an_answer_is_no_answer() -> None:
    with pytest.raises(UnreadError):
        http_body(b"HTTP/1.0 200 OK\r\n")
