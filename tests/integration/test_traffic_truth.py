"""The traffic of the release tests tells the truth: each loss that a server inflicts, no other."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import pytest
from aiohttp import web

from koprogo_deploy.load.plan import Account
from tests.integration.traffic import (
    COLUMNS,
    Ended,
    Stream,
    Traffic,
    Where,
    least_under_way,
    unaccounted,
)
from tests.unit.load.server import EMAILS, PASSWORD, Site

Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]

MANY = (Stream("read", 500), Stream("read", 40, kept=False), Stream("write", 60))


async def reset(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    await asyncio.sleep(0.05)
    raise web.HTTPBadRequest


async def truncated(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Length": "5000"})
    await answer.prepare(request)
    await answer.write(b'{"data":[')
    assert request.transport is not None
    request.transport.close()
    return answer


async def unavailable(_request: web.Request) -> web.StreamResponse:
    return web.Response(status=503, text="no available server")


async def other(_request: web.Request) -> web.StreamResponse:
    return web.json_response({"hello": "world"}, status=201 if _request.method == "POST" else 200)


async def silent(_request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(2)
    return web.Response()


def where(site: Site) -> Where:
    accounts = tuple(Account(email, PASSWORD) for email in EMAILS)
    return Where(site.url, accounts, site.url.removesuffix("/api/v1"))


def inflicting(fault: Fault, one_in: int) -> tuple[Site, Counter[str]]:
    """A site that does this to one request in so many, and how often it did."""
    done: Counter[str] = Counter()

    def decide(request: web.Request, number: int) -> Awaitable[web.StreamResponse] | None:
        if number % one_in != one_in - 1:
            return None
        done["faults"] += 1
        return fault(request)

    return Site(fault=decide), done


@pytest.mark.parametrize(
    ("fault", "one_in", "kind"),
    [
        (reset, 1000, "reset"),
        (truncated, 200, "truncated"),
        (unavailable, 300, "5xx"),
        (other, 250, "wrong body"),
        (silent, 400, "timeout"),
    ],
)
def test_exactly_what_the_server_did_is_reported(fault: Fault, one_in: int, kind: str) -> None:
    site, done = inflicting(fault, one_in)
    with site, Traffic(where(site), MANY, timeout=1.0) as traffic:
        time.sleep(2.5)
    assert done["faults"] >= 1
    assert len(traffic.ended) > 1000
    found = {name: count for name, count in traffic.kinds.items() if name != "right"}
    assert found == {kind: done["faults"]}, traffic.lost
    assert len(traffic.lost) == done["faults"]


def test_a_server_without_a_fault_loses_nothing_and_everything_is_under_way_all_the_while() -> None:
    streams = (
        Stream("read", 20),
        Stream("page", 5, kept=False),
        Stream("slow read", 2, steady=True),
        Stream("slow write", 2, steady=True),
        Stream("upload", 2, steady=True),
    )
    with ExitStack() as stack:
        site = stack.enter_context(Site())
        traffic = stack.enter_context(Traffic(where(site), streams))
        time.sleep(8)
        before = time.time()
        stack.pop_all().close()
    assert traffic.lost == []
    assert {each.stream for each in traffic.ended} == {stream.name for stream in streams}
    slow = [each for each in traffic.ended if each.stream.startswith("slow")]
    assert min(each.ended - each.began for each in slow) >= 4.99
    assert min(traffic.under_way(before - 1.5, before).values()) >= 5
    assert traffic.acknowledged.marks.keys() >= {"documents"}
    assert len(traffic.acknowledged.uploads) == len(traffic.acknowledged.marks["documents"])


def test_a_door_that_closes_is_seen_by_new_connections_alone() -> None:
    streams = (Stream("read", 50), Stream("page", 50, kept=False))
    with Site() as site, Traffic(where(site), streams) as traffic:
        time.sleep(0.5)
        site.refuse()
        time.sleep(0.5)
    # Who stood in the listen queue when the door closed is reset, everybody after is refused.
    assert set(traffic.kinds) - {"reset"} == {"right", "connect"}
    lost = Counter(each.stream for each in traffic.ended if each.outcome != "right")
    right = Counter(each.stream for each in traffic.ended if each.outcome == "right")
    assert lost["page"] > 10
    # A read that comes while another is still under way opens a connection of its own.
    assert lost["read"] < lost["page"] / 2 < right["read"]
    assert lost.keys() <= {"page", "read"}


def test_a_write_that_was_acknowledged_and_is_not_there_is_told_and_so_is_one_there_twice() -> None:
    with Site() as site, Traffic(where(site), (Stream("write", 200),)) as traffic:
        time.sleep(0.5)
    stored = [(path, sent[COLUMNS[path]]) for path, sent in site.bodies]
    assert len(stored) == traffic.acknowledged.count > 50
    forgotten, doubled = stored[7], stored[11]
    counts = Counter(stored)

    def sql(_statements: str) -> str:
        rows = counts + Counter([doubled]) - Counter([forgotten])
        return "\n".join(f"{path}|{marked}|{times}" for (path, marked), times in rows.items())

    assert sorted(traffic.accounted(sql)) == sorted(
        [
            f"{forgotten[0]}: {forgotten[1]} was acknowledged and is there 0 times",
            f"{doubled[0]}: {doubled[1]} was acknowledged and is there 2 times",
        ]
    )


def test_a_traffic_of_which_a_sort_never_came_does_not_say_that_nothing_was_lost() -> None:
    streams = (Stream("read", 50), Stream("write", 1e-6, steady=True))
    with Site() as site, Traffic(where(site), streams) as traffic:
        time.sleep(0.3)
    assert any(each.stream == "read" for each in traffic.ended)
    for lost in ("lost", "lost_beside_the_page"):
        with pytest.raises(AssertionError, match=r"no request of these sorts .*'write', True"):
            getattr(traffic, lost)


def test_what_nobody_acknowledged_need_not_be_there() -> None:
    assert unaccounted({"owners": ["a"]}, {"owners": {"a": 1, "b": 1}}) == []
    assert unaccounted({"owners": ["a"]}, {}) == ["owners: a was acknowledged and is there 0 times"]


@pytest.mark.parametrize(
    ("spans", "least"),
    [
        ([(0, 5), (4, 9), (8, 20)], 1),
        ([(0, 5), (5, 20)], 1),
        ([(0, 5), (6, 20)], 0),
        ([(0, 8), (3, 20), (7, 20)], 2),
        ([], 0),
        ([(0, 1)], 0),
    ],
)
def test_the_moment_when_fewest_were_under_way(
    spans: list[tuple[float, float]], least: int
) -> None:
    ended = [Ended("upload", True, began, end, "right") for began, end in spans]
    ended.append(Ended("read", True, 0, 20, "right"))
    assert least_under_way(ended, "upload", 3, 12) == least
