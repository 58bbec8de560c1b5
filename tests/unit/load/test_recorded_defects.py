"""What KoproGo's own load tests did wrong, each fault in its words: ours does not.

They are listed in the load tests' own reports and in the scripts; each test names one. The runs
that they look at are done several at once, against a site each.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias

import pytest
from aiohttp import web

from koprogo_deploy.load.application import MARK, UNIT_TYPES
from koprogo_deploy.load.ledger import Ledger
from koprogo_deploy.load.plan import Account, Options, Plan
from koprogo_deploy.load.plan import phases as phases_of
from koprogo_deploy.load.profiles import PROFILES, REALISTIC
from koprogo_deploy.load.schedule import weights
from koprogo_deploy.runs.model import Phase
from tests.unit.load.runs import done
from tests.unit.load.server import EMAILS, PASSWORD, Site, closed, opened, plan

WRITES = ("POST /buildings", "POST /units", "POST /owners", "POST /expenses")
KEYS = {"buildings": "name", "units": "unit_number", "owners": "email", "expenses": "description"}
Request: TypeAlias = web.Request
Response: TypeAlias = Awaitable[web.StreamResponse]


@dataclass
class Ran:
    """A run, and the site that it went to."""

    site: Site
    ledger: Ledger

    @property
    def phase(self) -> Phase:
        """The only one."""
        (found,) = self.ledger.phases()
        return found


def _answer(status: int, text: str) -> Response:
    async def answer() -> web.StreamResponse:
        return web.Response(status=status, text=text)

    return answer()


def _hang_up(request: Request) -> Response:
    async def broken() -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        await asyncio.sleep(0.05)
        raise web.HTTPBadRequest

    return broken()


def _renamed(pair: dict[str, object]) -> web.Response:
    return web.json_response({"access_token": pair["token"]})


def _mixed() -> Callable[[Site], Plan]:
    phase = replace(opened(1700), mix=tuple(weights(REALISTIC).items()))
    return lambda site: plan(site, phase, run="fedcba98")


SCENARIOS: dict[str, tuple[Site, Callable[[Site], Plan]]] = {
    "plain": (Site(), lambda site: plan(site, opened(50, 1, "GET /buildings", "GET /auth/me"))),
    "writes": (Site(), lambda site: plan(site, opened(200, 1, *WRITES))),
    "realistic": (Site(), _mixed()),
    "50 ms": (Site(latency=lambda _n, _at: 0.05), lambda site: plan(site, opened(50))),
    "renamed": (Site(login_answer=_renamed), lambda site: plan(site, opened(50))),
    "wrong password": (
        Site(),
        lambda site: plan(site, opened(50), accounts=(Account(EMAILS[0], "wrong-horse"),)),
    ),
    "hangs up": (
        Site(fault=lambda request, n: _hang_up(request) if n % 2 else None),
        lambda site: plan(site, opened(50)),
    ),
    "too slow": (
        Site(latency=lambda _n, _at: 3.0), lambda site: plan(site, opened(20), timeout=0.5)
    ),
    "nobody there": (Site(), lambda _: plan("http://127.0.0.1:9/api/v1", opened(20))),
    "refuses": (
        Site(fault=lambda _request, _n: _answer(401, "Invalid token: InvalidSignature")),
        lambda site: plan(site, opened(50)),
    ),
    "limits": (
        Site(fault=lambda _request, _n: _answer(429, "Too many requests, retry in 3s")),
        lambda site: plan(site, opened(50)),
    ),
    "units fail": (
        Site(fault=lambda r, _n: _answer(500, "boom") if r.path.endswith("units") else None),
        lambda site: plan(site, opened(60, 1, "GET /buildings", "GET /units")),
    ),
    "thirty users": (Site(), lambda site: plan(site, closed(30, 1, think=0.1), connections=30)),
    "renewed": (
        Site(token_life=3.5), lambda site: plan(site, opened(100, 4), renew_after=0.4)
    ),
    "not renewed": (
        Site(token_life=1.5), lambda site: plan(site, opened(100, 4), renew_after=900.0)
    ),
    "stalls": (
        Site(latency=lambda _n, at: 0.6 - at if at < 0.6 else 0.0),
        lambda site: plan(site, opened(100)),
    ),
    "never answers": (
        Site(latency=lambda _n, _at: 1.5),
        lambda site: plan(site, opened(100), timeout=1.0, most_under_way=30),
    ),
}  # fmt: skip


# Of the others those that look at a time would be late beside these.
MANY_REQUESTS = ("writes", "realistic")


@pytest.fixture(scope="module")
def ran() -> Iterator[dict[str, Ran]]:
    """Every scenario's run: first those that send much, then all others at once."""
    found: dict[str, Ran] = {}
    others = tuple(name for name in SCENARIOS if name not in MANY_REQUESTS)
    with ExitStack() as stack:
        for names in (MANY_REQUESTS, others):
            sites = [stack.enter_context(SCENARIOS[name][0]) for name in names]
            plans = [SCENARIOS[name][1](site) for name, site in zip(names, sites, strict=True)]
            runs = zip(names, sites, done(*plans), strict=True)
            found |= {name: Ran(site, ledger) for name, site, ledger in runs}
    yield found


@pytest.fixture(scope="module")
def posted(ran: dict[str, Ran]) -> list[tuple[str, dict[str, object]]]:
    """All that two runs at the same time wrote."""
    for name in ("writes", "realistic"):
        assert not ran[name].ledger.failed
        assert not ran[name].ledger.words, ran[name].ledger.words
    return ran["writes"].site.bodies + ran["realistic"].site.bodies


def test_the_token_is_read_from_the_field_that_login_has(ran: dict[str, Ran]) -> None:
    """ "reads `.access_token`; the API returns `token`: No token received, exit 1"."""
    plain = ran["plain"]
    assert plain.ledger.failed == ""
    assert plain.site.unauthorised == 0
    assert plain.phase.right == 50


def test_a_login_without_a_token_is_said_and_not_gone_on_with(ran: dict[str, Ran]) -> None:
    """The same, the other way round: whoever renames the field again is told which were there."""
    renamed = ran["renamed"]
    assert "no token, refresh_token and user in ['access_token']" in renamed.ledger.failed
    assert renamed.site.seen == {}


def test_every_body_has_what_the_api_demands(posted: list[tuple[str, dict[str, str]]]) -> None:
    """ "all POST bodies are invalid: no organization_id, lower-case unit types incl.
    studio/duplex, owners lack 4 fields, expenses lack category, date YYYY-MM-DD".
    """
    wanted = {
        "buildings": {"name", "address", "city", "postal_code", "country", "total_units"},
        "units": {"building_id", "unit_number", "unit_type", "surface_area", "quota"},
        "owners": {"first_name", "last_name", "email", "address", "city", "postal_code", "country"},
        "expenses": {"building_id", "category", "description", "amount", "expense_date"},
    }
    assert {path for path, _ in posted} == set(wanted)
    for path, body in posted:
        assert wanted[path] | {"organization_id"} <= body.keys()
        assert body["organization_id"].startswith("org-admin@")
        if path == "units":
            assert body["unit_type"] in UNIT_TYPES
            assert 0.1 <= float(body["quota"]) <= 1000
        if path == "expenses":
            assert re.fullmatch(r"[A-Z][a-z]+", body["category"])
            assert datetime.fromisoformat(body["expense_date"]).tzinfo is not None
            assert "T" in body["expense_date"]
        if path == "owners":
            assert len(body["phone"]) <= 20


def test_ids_of_buildings_are_the_tenants_own(posted: list[tuple[str, dict[str, str]]]) -> None:
    """ "hard-coded production building and organisation UUIDs"."""
    for path, body in posted:
        if path in ("units", "expenses"):
            owner = body["organization_id"].removeprefix("org-")
            assert body["building_id"].startswith(f"buildings-{owner}-")


def test_users_is_not_asked_for() -> None:
    """ "GET /users is 403 for org users: ~34 % errors by construction"."""
    for profile in PROFILES.values():
        for stretch in profile.stretches:
            assert "GET /users" not in weights(stretch.mix)


def test_latencies_are_milliseconds(ran: dict[str, Ran]) -> None:
    """ "prints wrk's microseconds as ms: latencies 1000x too high"."""
    latency = ran["50 ms"].phase.latency
    assert latency.p50 is not None
    assert 49 < latency.p50 < 500
    assert ran["50 ms"].ledger.series()[0].p50 == pytest.approx(latency.p50, rel=0.01)


def test_requests_that_were_never_answered_are_errors(ran: dict[str, Ran]) -> None:
    """ "error count omits connect/read/write errors, so `successful` is inflated"."""
    broken = ran["hangs up"].phase
    assert broken.sent == 50
    assert broken.errors == {"reset": 25}
    assert broken.right == 25
    assert broken.error_percent == 50


def test_a_request_that_was_given_up_counts_with_the_time_it_took(ran: dict[str, Ran]) -> None:
    """The same: "no errors", and fast ones at that."""
    late = ran["too slow"].phase
    assert late.errors == {"timeout": 20}
    assert late.latency.p50 is not None
    assert late.latency.p50 >= 490


def test_a_server_that_is_not_there_is_no_run(ran: dict[str, Ran]) -> None:
    """ "Test completed", with nothing measured."""
    assert "Cannot connect to host 127.0.0.1:9" in ran["nobody there"].ledger.failed


def test_every_request_carries_a_token(ran: dict[str, Ran]) -> None:
    """ "every mixed.lua test is unauthenticated: ~95 % 401"."""
    for name in ("plain", "writes", "realistic", "thirty users"):
        assert ran[name].site.unauthorised == 0
        assert ran[name].phase.errors == {}


def test_an_answer_of_401_is_an_error_and_no_load(ran: dict[str, Ran]) -> None:
    """ "52 042 requests / 494 OK: they load-test Traefik + a 401, not the DB"."""
    refused = ran["refuses"]
    assert refused.phase.right == 0
    assert refused.phase.errors == {"4xx": 50}
    assert refused.phase.achieved_rate == 0
    assert refused.ledger.words["4xx"] == ["GET /buildings: 401 Invalid token: InvalidSignature"]


def test_the_rate_limiter_is_named(ran: dict[str, Ran]) -> None:
    """ "the medium/heavy targets are impossible from one client (429)", and nobody was told."""
    limited = ran["limits"]
    assert limited.phase.errors == {"4xx": 50}
    assert limited.ledger.words["4xx"] == ["429: the rate limiter refuses this client"]


def test_whether_login_succeeded_is_judged_by_looking(ran: dict[str, Ran]) -> None:
    """ "always prints Authentication: FAILED … fixed by inferring success from > 90 % OK"."""
    refused = ran["wrong password"].ledger
    assert refused.failed == (f'login of {EMAILS[0]}: 401 {{"error": "Invalid email or password"}}')
    assert refused.count == 0
    assert PASSWORD not in repr(refused.plan)


def test_each_account_logs_in_once(ran: dict[str, Ran]) -> None:
    """ "logs in once per connection in flight until a thread has a token … a failed login is
    retried at full speed".
    """
    assert ran["thirty users"].site.logins == dict.fromkeys(EMAILS, 1)
    assert ran["realistic"].site.logins == dict.fromkeys(EMAILS, 1)
    assert ran["wrong password"].site.logins == {EMAILS[0]: 1}


def test_tokens_are_renewed_before_they_run_out_and_the_load_goes_on(ran: dict[str, Ran]) -> None:
    """ "Token expires after 15 min, never renewed: a 30-min soak would be half 401". Here a token
    lives 3.5 s, and the run takes 4 s.
    """
    renewed = ran["renewed"]
    assert renewed.site.unauthorised == 0
    assert renewed.phase.right == 400
    assert min(renewed.site.refreshes[email] for email in EMAILS) >= 3
    assert renewed.site.logins == dict.fromkeys(EMAILS, 1)
    # All of them are known, to be removed.
    assert len(renewed.ledger.tokens) == 2 + renewed.site.refreshes.total()


def test_without_renewal_that_very_run_would_be_401(ran: dict[str, Ran]) -> None:
    """What the test above would see if nothing were renewed."""
    assert ran["not renewed"].phase.errors["4xx"] > 80


def test_no_two_rows_have_the_same_email_number_or_name(
    posted: list[tuple[str, dict[str, str]]],
) -> None:
    """ "all threads draw the same sequence: duplicate e-mails / unit numbers … e-mail space 9 000,
    unit space 44 per building: saturates within minutes".
    """
    marks = [(path, body[KEYS[path]]) for path, body in posted]
    assert len(set(marks)) == len(marks) > 600
    # Two runs at the same time, with the same random numbers, share none either.
    runs = {mark.split("-")[1] for _, mark in marks}
    assert runs == {"0123abcd", "fedcba98"}


def test_every_row_is_marked_so_that_it_can_be_removed(
    posted: list[tuple[str, dict[str, str]]],
) -> None:
    """ "Writes are never cleaned; result sets and therefore latencies drift run to run"."""
    for path, body in posted:
        assert re.match(f"^{MARK}", body[KEYS[path]])


def test_rows_of_a_run_do_not_change_what_a_first_page_shows(
    posted: list[tuple[str, dict[str, str]]],
) -> None:
    """The same: lists of owners are sorted by last name, of units by number."""
    assert all(body["last_name"].startswith("Zz") for path, body in posted if path == "owners")
    assert all(body["unit_number"] > "9" for path, body in posted if path == "units")


def test_an_open_loop_does_not_wait_for_the_server(ran: dict[str, Ran]) -> None:
    """ "Closed-loop wrk: coordinated omission; `target 500 req/s` is not enforced"."""
    stalled = ran["stalls"]
    assert stalled.phase.sent == 100
    assert stalled.ledger.series()[0].sent == 100
    # 60 of 100 fell into the stall; in a loop that waits there would have been one a connection.
    assert stalled.phase.latency.p90 is not None
    assert stalled.phase.latency.p90 > 400


def test_the_mix_is_the_weights_exactly(ran: dict[str, Ran]) -> None:
    """ "~34 % errors by construction" went unseen in a mix that nobody could check: this one is
    70 % reads and 30 % writes, with the guide's weights.
    """
    counts = weights(REALISTIC)
    total = sum(counts.values())
    reads = {name: count for name, count in counts.items() if name.startswith("GET")}
    writes = {name: count for name, count in counts.items() if name.startswith("POST")}
    assert sum(reads.values()) * 10 == total * 7
    assert {name: 85 * count / sum(reads.values()) for name, count in reads.items()} == {
        "GET /buildings": 25, "GET /units": 25, "GET /owners": 15, "GET /expenses": 15,
        "GET /auth/me": 5,
    }  # fmt: skip
    assert {name: 100 * count / sum(writes.values()) for name, count in writes.items()} == {
        "POST /buildings": 30, "POST /units": 30, "POST /owners": 20, "POST /expenses": 20,
    }  # fmt: skip
    sent = {endpoint.name: endpoint.sent for endpoint in ran["realistic"].phase.endpoints}
    assert sum(sent.values()) == total == 1700
    assert sent == counts


def test_no_profile_asks_a_question() -> None:
    """ "`read -p` blocks automation": a suite is data, one phase after the other."""
    planned = phases_of(PROFILES["suite"], Options(), 200)
    assert [phase.name for phase in planned] == ["warm-up", "light", "medium", "heavy"]


def test_what_could_not_be_sent_is_no_success(ran: dict[str, Ran]) -> None:
    """ "a failing child (piped to tee) is reported as completed": a server that answers nothing is
    not waited for without end, and not taken for one that is fast.
    """
    never = ran["never answers"]
    assert never.phase.errors == {"timeout": 100}
    assert never.phase.latency.p50 is not None
    assert never.phase.latency.p50 >= 990
    words = never.ledger.words["timeout"]
    assert any("not sent: 30 requests under way" in said for said in words)


def test_errors_are_counted_by_endpoint(ran: dict[str, Ran]) -> None:
    """ "/users is 403 for org users", and no figure said which of all were."""
    failing = ran["units fail"]
    by_name = {endpoint.name: endpoint for endpoint in failing.phase.endpoints}
    assert by_name["GET /units"].errors == {"5xx": 30}
    assert by_name["GET /buildings"].errors == {}
    assert failing.ledger.words == {"5xx": ["GET /units: 500 boom"]}
