"""Who waits for whom."""

from __future__ import annotations

from typing import Any

from koprogo_deploy.debug import locks


def session(pid: int, *blockers: int, **more: Any) -> dict[str, Any]:
    wait = {"mode": "ShareLock", "type": "transactionid", "relation": None, "seconds": 2.5}
    return {
        "pid": pid,
        "role": "koprogo",
        "application": "",
        "client": "172.30.80.4",
        "kind": "client backend",
        "state": "active" if blockers else "idle in transaction",
        "query": "UPDATE units\n SET floor = 'x'",
        "transaction_s": 10.0,
        "state_s": 9.0,
        "query_s": 9.0,
        "blockers": list(blockers) or None,
        "waits": [wait] if blockers else None,
        "holds": ["units RowExclusiveLock"],
        **more,
    }


def parsed(*sessions: dict[str, Any]) -> locks.Locks:
    return locks.parse(
        {
            "now": "2026-01-01T10:00:00+00:00",
            "sessions": list(sessions),
            "prepared": 0,
            "idle_in_transaction": 1,
            "oldest_transaction_s": 10.0,
        }
    )


def shape(nodes: tuple[locks.Node, ...]) -> list[Any]:
    return [(node.session.pid, shape(node.waiting)) for node in nodes]


def test_nothing_waits() -> None:
    assert parsed().waiting == ()
    assert locks.tree(parsed()) == ()


def test_a_queue_hangs_below_the_one_that_holds() -> None:
    found = parsed(session(1), session(2, 1), session(3, 2, 1))
    assert [s.pid for s in found.waiting] == [2, 3]
    assert shape(locks.tree(found)) == [(1, [(2, [(3, [])]), (3, [])])]


def test_a_circle_is_shown_and_ends() -> None:
    assert shape(locks.tree(parsed(session(7, 8), session(8, 7)))) == [(7, [(8, [])])]


def test_one_that_waits_for_what_has_no_session_is_shown() -> None:
    assert shape(locks.tree(parsed(session(5, 0)))) == [(5, [])]


def test_a_session_is_told_in_plain_words_and_without_texts() -> None:
    waiting = parsed(session(1), session(2, 1, 1)).sessions[1]
    assert waiting.blockers == (1,)
    assert waiting.query == "UPDATE units SET floor = '…'"
    assert "until that transaction ends" in waiting.meaning
    assert (waiting.mode, waiting.waits_s) == ("ShareLock", 2.5)
