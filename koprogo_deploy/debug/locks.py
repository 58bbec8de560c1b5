"""Who waits for whom in Postgres. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from koprogo_deploy.debug.ask import one_line

# Ages from the server's clock: this machine's may differ. pg_blocking_pids() takes the lock
# manager's locks for a moment, so only those that wait are asked about.
SQL = """
WITH waiting AS MATERIALIZED (
  SELECT pid, pg_blocking_pids(pid) AS blockers FROM pg_stat_activity
  WHERE wait_event_type = 'Lock' AND datname = current_database()
), concerned AS (
  SELECT pid FROM waiting UNION SELECT unnest(blockers) FROM waiting
)
SELECT json_build_object(
  'now', now(),
  'sessions', (SELECT coalesce(json_agg(json_build_object(
      'pid', a.pid, 'role', a.usename, 'application', a.application_name,
      'client', a.client_addr, 'kind', a.backend_type, 'state', a.state, 'query', a.query,
      'transaction_s', extract(epoch FROM clock_timestamp() - a.xact_start),
      'state_s', extract(epoch FROM clock_timestamp() - a.state_change),
      'query_s', extract(epoch FROM clock_timestamp() - a.query_start),
      'blockers', (SELECT blockers FROM waiting w WHERE w.pid = a.pid),
      'waits', (SELECT json_agg(json_build_object(
          'mode', l.mode, 'type', l.locktype,
          'relation', CASE WHEN l.database = (SELECT oid FROM pg_database
                                              WHERE datname = current_database())
                           THEN (SELECT relname FROM pg_class WHERE oid = l.relation) END,
          'seconds', extract(epoch FROM clock_timestamp() - l.waitstart)))
        FROM pg_locks l WHERE l.pid = a.pid AND NOT l.granted),
      'holds', (SELECT json_agg(DISTINCT c.relname || ' ' || l.mode)
        FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
        WHERE l.pid = a.pid AND l.granted AND l.locktype IN ('relation', 'tuple')
          AND c.relkind IN ('r', 'p') AND c.relnamespace <> 'pg_catalog'::regnamespace)
    ) ORDER BY a.xact_start), '[]')
    FROM pg_stat_activity a WHERE a.pid IN (SELECT pid FROM concerned)),
  'prepared', (SELECT count(*) FROM waiting WHERE 0 = ANY (blockers)),
  'idle_in_transaction', (SELECT count(*) FROM pg_stat_activity
                          WHERE state LIKE 'idle in transaction%' AND datname = current_database()),
  'oldest_transaction_s', (SELECT extract(epoch FROM clock_timestamp() - min(xact_start))
                           FROM pg_stat_activity
                           WHERE datname = current_database() AND pid <> pg_backend_pid()));
"""

# What a lock that is waited for means, in plain words.
_MEANINGS = {
    "transactionid": "a row that the other one changed: waits until that transaction ends",
    "tuple": "a row, behind others that wait for the same one",
    "relation": "the table",
    "advisory": "an advisory lock of the application; sqlx takes one while it migrates",
    "virtualxid": "the other's transaction to end, as CREATE INDEX CONCURRENTLY does",
    "extend": "the table's file to grow",
}


@dataclass(frozen=True)
class Session:
    """A session that waits or is waited for. Ages in seconds; None where there is none.

    Attributes:
        blockers: pids it waits for; empty for one that only holds.
        waits: what it waits for: mode, type of lock, relation.
        holds: tables it has locked, with the mode.
    """

    pid: int
    role: str | None
    application: str
    client: str | None
    kind: str
    state: str | None
    query: str
    transaction_s: float | None
    state_s: float | None
    query_s: float | None
    blockers: tuple[int, ...]
    mode: str | None
    lock: str | None
    relation: str | None
    waits_s: float | None
    holds: tuple[str, ...]

    @property
    def meaning(self) -> str:
        """What it waits for, in plain words."""
        return _MEANINGS.get(self.lock or "", self.lock or "")


@dataclass(frozen=True)
class Locks:
    """All that wait and all that are waited for."""

    now: str
    sessions: tuple[Session, ...]
    prepared: int
    idle_in_transaction: int
    oldest_transaction_s: float | None

    @property
    def waiting(self) -> tuple[Session, ...]:
        """Sessions that wait."""
        return tuple(session for session in self.sessions if session.blockers)


@dataclass(frozen=True)
class Node:
    """A session with those that wait for it."""

    session: Session
    waiting: tuple[Node, ...]


def parse(found: Mapping[str, Any]) -> Locks:
    """What `SQL` gave."""
    return Locks(
        now=found["now"],
        sessions=tuple(_session(row) for row in found["sessions"]),
        prepared=found["prepared"],
        idle_in_transaction=found["idle_in_transaction"],
        oldest_transaction_s=found["oldest_transaction_s"],
    )


def _session(row: Mapping[str, Any]) -> Session:
    wait = (row["waits"] or [{}])[0]
    return Session(
        pid=row["pid"],
        role=row["role"],
        application=row["application"] or "",
        client=row["client"],
        kind=row["kind"],
        state=row["state"],
        query=one_line(row["query"] or ""),
        transaction_s=row["transaction_s"],
        state_s=row["state_s"],
        query_s=row["query_s"],
        # Parallel workers of one session give its pid more than once; 0 is a prepared transaction.
        blockers=tuple(sorted(set(row["blockers"] or ()))),
        mode=wait.get("mode"),
        lock=wait.get("type"),
        relation=wait.get("relation"),
        waits_s=wait.get("seconds"),
        holds=tuple(row["holds"] or ()),
    )


def tree(locks: Locks) -> tuple[Node, ...]:
    """Those that hold and do not wait, each with those that wait for it, and so on down.

    A circle, which Postgres breaks after deadlock_timeout, is entered at its lowest pid.
    """
    by_pid = {session.pid: session for session in locks.sessions}
    roots = [s for s in locks.sessions if not set(s.blockers) & set(by_pid)]
    shown: set[int] = set()

    def node(session: Session, above: frozenset[int]) -> Node:
        shown.add(session.pid)
        path = above | {session.pid}
        below = [
            other
            for other in locks.sessions
            if session.pid in other.blockers and other.pid not in path
        ]
        return Node(session, tuple(node(other, path) for other in below))

    nodes = [node(session, frozenset()) for session in roots]
    for pid in sorted(by_pid):
        if pid not in shown:
            nodes.append(node(by_pid[pid], frozenset()))
    return tuple(nodes)
