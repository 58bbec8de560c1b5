"""The database, asked over one connection of our own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import struct
import time
from typing import Any

from koprogo_deploy.monitor.probe.keep import File, Rates, Sheet
from koprogo_deploy.monitor.probe.parse import UnreadError

RETRY = 5.0  # seconds between two attempts to connect
SIZE_EVERY = 60.0  # seconds; measuring a database walks through its files


def activity_query(version: int) -> str:
    """One JSON object of everything that is asked each time, for a Postgres major version."""
    checkpoints = "num_timed, num_requested FROM pg_stat_checkpointer"
    if version < 17:
        checkpoints = "checkpoints_timed, checkpoints_req FROM pg_stat_bgwriter"
    return f"""
WITH others AS (
  SELECT coalesce(state, 'unknown') AS state, wait_event_type, xact_start FROM pg_stat_activity
  WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
)
SELECT json_build_object(
  'connections', (SELECT coalesce(json_object_agg(state, n), '{{}}')
                  FROM (SELECT state, count(*) AS n FROM others GROUP BY state) AS states),
  'waiting', (SELECT count(*) FROM others WHERE wait_event_type = 'Lock'),
  'longest', (SELECT coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)
              FROM others),
  'max', current_setting('max_connections')::int,
  'database', (SELECT json_build_array(xact_commit, xact_rollback, deadlocks, temp_bytes,
                                       blks_hit, blks_read)
               FROM pg_stat_database WHERE datname = current_database()),
  'wal', (SELECT wal_bytes FROM pg_stat_wal),
  'checkpoints', (SELECT json_build_array({checkpoints.partition(" FROM ")[0]})
                  FROM {checkpoints.partition(" FROM ")[2]}))"""  # noqa: S608 - no value of anybody's


def message(kind: bytes, body: bytes) -> bytes:
    """A message of Postgres' wire protocol; the first one of a connection has no kind."""
    return kind + struct.pack("!I", 4 + len(body)) + body


def messages(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Whole messages at the beginning of what was received, and what is left."""
    found = []
    while len(data) >= 5:
        end = 1 + struct.unpack("!I", data[1:5])[0]
        if len(data) < end:
            break
        found.append((data[:1], data[5:end]))
        data = data[end:]
    return found, data


def error_text(body: bytes) -> str:
    """What an error message of Postgres says."""
    for field in body.split(b"\0"):
        if field[:1] == b"M":
            return f"Postgres says: {field[1:].decode(errors='replace')}"
    return "Postgres reports an error"


class Database:
    """One connection to Postgres, by its own socket and wire protocol.

    Through the container's file system, as the user that the observer's role is mapped to: no
    client runs in the container, whose memory and CPU would be counted as Postgres' own.
    """

    def __init__(self, proc: str, user: int, role: str, database: str) -> None:
        self.proc, self.user, self.role, self.database = proc, user, role, database
        self.line: socket.socket | None = None
        self.backend: File | None = None  # CPU time of the server's process for us
        self.next_try = 0.0
        self.problem = "not connected"
        self.version = 0
        self.buffer = b""
        self.received: list[tuple[bytes, bytes]] = []
        self.asked = 0.0
        self.waiting = False
        self.own = 0  # transactions of ours since the last answer
        self.size: int | None = None
        self.next_size = 0.0
        self.asks_size = False
        self.pid = 0

    def ask(self, pid: int | None, now: float) -> None:
        """Send the query, unless the last one is still open. `pid` is the server's, on the host."""
        if self.line and pid != self.pid:
            self._close("Postgres was started again")
        if not self.line and now >= self.next_try:
            self.next_try = now + RETRY
            if pid is None:
                self.problem = "Postgres is not running"
                return
            try:
                self._connect(pid)
            except (UnreadError, OSError, ValueError) as error:
                self._close(getattr(error, "strerror", None) or str(error))
        if not self.line or self.waiting:
            return
        self.asks_size = now >= self.next_size
        size = f"SELECT pg_database_size('{self.database}');" if self.asks_size else ""
        self._send(f"EXECUTE look;{size}")
        self.asked, self.waiting = now, True

    def _send(self, query: str) -> None:
        try:
            assert self.line is not None
            self.line.sendall(message(b"Q", query.encode() + b"\0"))
            self.own += 1
        except OSError as error:
            self._close(f"connection lost: {error.strerror}")

    def answer(self, deadline: float) -> list[str]:
        """The rows that came, first column only.

        Raises:
            UnreadError: not connected, or no answer by then; it is waited for the next time.
        """
        while self.line and self.waiting:
            found, self.buffer = messages(self.buffer)
            self.received += found
            if self.received and self.received[-1][0] == b"Z":
                answer, self.received, self.waiting = self.received, [], False
                return self._rows(answer)
            left = deadline - time.monotonic()
            if not select.select([self.line], [], [], max(0.0, left))[0]:
                waited = time.monotonic() - self.asked
                raise UnreadError(f"Postgres has not answered for {waited:.1f} s")
            try:
                data = self.line.recv(65536)
            except OSError as lost:
                self._close(f"connection lost: {lost.strerror}")
                break
            if not data:
                said = [error_text(body) for kind, body in self.received if kind == b"E"]
                self._close(said[-1] if said else "Postgres closed the connection")
            self.buffer += data
        raise UnreadError(self.problem)

    def _rows(self, answer: list[tuple[bytes, bytes]]) -> list[str]:
        rows = []
        for kind, body in answer:
            if kind == b"D":
                length = struct.unpack("!i", body[2:6])[0]
                rows.append(body[6 : 6 + length].decode() if length >= 0 else "")
            elif kind == b"E":
                raise UnreadError(error_text(body))
            elif kind == b"K":
                self._find_backend(struct.unpack("!I", body[:4])[0])
            elif kind == b"S" and body.startswith(b"server_version\0"):
                self.version = int(body[15:].split(b".")[0].split(b"\0")[0])
        return rows

    def _connect(self, pid: int) -> None:
        folder = os.open(f"{self.proc}/{pid}/root/run/postgresql", os.O_PATH | os.O_CLOEXEC)
        self.line, self.pid, self.own = socket.socket(socket.AF_UNIX), pid, 0
        self.line.settimeout(2.0)
        try:
            os.seteuid(self.user)  # Postgres asks the kernel who is at the other end
            self.line.connect(f"/proc/self/fd/{folder}/.s.PGSQL.5432")
        finally:
            os.seteuid(0)
            os.close(folder)
        names = {
            "user": self.role,
            "database": self.database,
            "application_name": "koprogo monitor",
            # What is asked is the catalog's: nothing of the application's is taken for it.
            "options": "-c search_path=pg_catalog,pg_temp",
        }
        pairs = b"".join(f"{key}\0{value}\0".encode() for key, value in names.items())
        self.line.sendall(message(b"", struct.pack("!I", 196608) + pairs + b"\0"))
        self.asked, self.waiting = time.monotonic(), True
        self.answer(time.monotonic() + 2.0)
        self._send(f"PREPARE look AS {activity_query(self.version)}")
        self.waiting = True
        self.answer(time.monotonic() + 2.0)
        self.next_size = 0.0

    def _find_backend(self, inside: int) -> None:
        """The server's process for this connection: what it uses is a cost of looking."""
        self.backend = None
        with contextlib.suppress(OSError, UnreadError, ValueError):
            children = File(f"{self.proc}/{self.pid}/task/{self.pid}/children").read().split()
            for child in children:
                status = File(f"{self.proc}/{int(child)}/status").read()
                spaces = re.search(rb"^NSpid:(.*)$", status, re.M)
                if spaces and int(spaces[1].split()[-1]) == inside:
                    self.backend = File(f"{self.proc}/{int(child)}/schedstat")

    def cost(self) -> float:
        """CPU seconds that the server has used for us."""
        if not self.backend:
            return 0.0
        try:
            return int(self.backend.read().split()[0]) / 1e9
        except (UnreadError, ValueError, IndexError):
            return 0.0

    def _close(self, reason: str) -> None:
        if self.line:
            self.line.close()
        self.line, self.waiting, self.problem, self.backend = None, False, reason, None
        self.buffer, self.received = b"", []

    def sample(self, sheet: Sheet, rates: Rates, deadline: float) -> dict[str, Any]:
        """`PostgresSample`'s fields."""
        try:
            rows = self.answer(deadline)
            found = json.loads(rows[0])
        except (UnreadError, ValueError, IndexError) as reason:
            sheet.unread["postgres"] = str(reason) or "no answer"
            return {}
        at, own, self.own = self.asked, self.own, 0
        if self.asks_size and len(rows) > 1:
            self.size, self.next_size = int(rows[1]), at + SIZE_EVERY
        names = ("commits", "rollbacks", "deadlocks", "temp_bytes")
        counters = dict(zip(names, found["database"], strict=False))
        counters["wal_bytes"] = float(found["wal"])

        def second(name: str) -> float:
            grown, seconds = rates.growth(f"postgres.{name}", counters[name], at)
            # Each query of ours is a transaction of its own.
            return max(0.0, grown - (own if name == "commits" else 0)) / seconds

        def cache_hit() -> float:
            blocks = dict(
                zip(("postgres.hit", "postgres.read"), found["database"][4:6], strict=True)
            )
            hits, reads = rates.growths(blocks, at)[0].values()
            if not hits + reads:
                raise UnreadError("no blocks were asked for")
            return 100 * hits / (hits + reads)

        values: dict[str, Any] = {
            name: sheet.take(f"postgres.{name}", lambda n=name: second(n))  # type: ignore[misc]
            for name in (*names, "wal_bytes")
        }
        return values | {
            "connections": found["connections"],
            "max_connections": found["max"],
            "waiting": found["waiting"],
            "longest_transaction": float(found["longest"]),
            "cache_hit_percent": sheet.take("postgres.cache_hit_percent", cache_hit),
            "checkpoints_timed": found["checkpoints"][0],
            "checkpoints_requested": found["checkpoints"][1],
            "size": sheet.take("postgres.size", self._size),
        }

    def _size(self) -> int:
        if self.size is None:
            raise UnreadError("not measured yet")
        return self.size
