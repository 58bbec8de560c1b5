"""The generator: sends what a plan says and tells what came back. No figures are made here.

It runs in a process of its own (`worker`), so that nothing but sending and receiving takes its
time. What it tells are events: plain dictionaries, one a second with every request that ended.

Times in events are microseconds since the run began. A request of an open loop is timed from the
moment it was to be sent, one of a closed loop from the moment it was sent.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from koprogo_deploy.load import application
from koprogo_deploy.load.alarm import Alarm
from koprogo_deploy.load.application import KINDS, Kind, Tenant
from koprogo_deploy.load.plan import Account, PhasePlan, Plan, Target
from koprogo_deploy.load.schedule import Deck, arrivals, asked_in, cards
from koprogo_deploy.runs.model import ERROR_KINDS, ErrorKind

Event = dict[str, Any]
Emit = Callable[[Event], None]

# What became of a request, by its number in a row.
OUTCOMES: tuple[str, ...] = ("right", *ERROR_KINDS, "unfinished")
UNFINISHED = OUTCOMES.index("unfinished")
_NUMBER = {name: number for number, name in enumerate(OUTCOMES)}
KIND_NAMES = tuple(KINDS)
COLUMNS = ("phase", "kind", "outcome", "at", "took", "late")

# Examples of each kind of error that are kept in words.
EXAMPLES = 5
CONNECT_WITHIN = 10.0
# After an interruption, for answers that are on their way.
GRACE = 2.0
LOGIN_TRIES = 3
# Seconds that a phase may go on beyond its end to send what it is behind with; then it gives up.
# Nor are answers waited for longer than this beyond their own timeout.
BEHIND = 5.0


class Failed(Exception):
    """The run could not be done; the message says why."""


@dataclass
class Caller:
    """An account that is logged in."""

    account: Account
    tenant: Tenant
    headers: dict[str, str]
    refresh_token: str
    turn: int = 0


class Arrival(NamedTuple):
    """A request of an open loop: which, when it was to be sent, and how late this machine was.

    Attributes:
        late: seconds; None until it is sent, where it does not have to wait for a connection.
    """

    phase: int
    kind: Kind
    due: float
    late: float | None


def _timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_WITHIN)


class _To(AbstractResolver):
    """Resolves every name to one address: URL, Host and SNI keep the name."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host=self._address, port=port, family=family, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        return


def error_kind(error: BaseException) -> ErrorKind:
    """The kind of an error of the HTTP client."""
    match error:
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return "tls"
        case aiohttp.ConnectionTimeoutError() | aiohttp.ClientConnectorError():
            return "connect"
        case TimeoutError():
            return "timeout"
        case _:
            return "reset"


def in_words(error: BaseException) -> str:
    """An error on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__


class Generator:
    """One run. `run` does it; `stop` ends it early."""

    def __init__(self, plan: Plan, emit: Emit) -> None:
        self.plan = plan
        self._emit = emit
        self._stopping = asyncio.Event()
        self._rng = random.Random(plan.seed)  # noqa: S311 - no secret
        self._rows: list[list[int]] = [[] for _ in COLUMNS]
        self._words: dict[str, list[str]] = {}
        self._new_words = False
        self._under_way: dict[asyncio.Task[None], tuple[int, int, int]] = {}
        # Arrivals for which there was no connection left: a task for each of thousands would keep
        # the garbage collector busy, and the generator late.
        self._waiting: deque[Arrival] = deque()
        self._senders = 0
        self._timeout = _timeout(plan.timeout)
        self._numbers = itertools.count(1)
        self._began = 0.0
        self._ticked = 0.0, 0.0  # when it was told last, by clock and by CPU time
        self._callers: list[Caller] = []
        self._renewals: set[asyncio.Task[None]] = set()
        self._who: Deck[Caller]
        self._session: aiohttp.ClientSession
        self._control: aiohttp.ClientSession
        base = plan.target.url
        # Made once: a URL is parsed in ten times the time of a request's other costs.
        self._urls = {name: URL(base + kind.path, encoded=True) for name, kind in KINDS.items()}

    def stop(self) -> None:
        """End early; what was sent is waited for a moment."""
        self._stopping.set()

    async def run(self) -> None:
        """Log in, look around, send, tell; events go to `emit`.

        Raises:
            Failed: it cannot be done: no login, nothing to ask for.
        """
        async with self._sessions():
            await self._log_in()
            await self._look_around()
            self._emit({"event": "ready"})
            # What exists by now stays: the collector need not look at it again and again.
            gc.collect()
            gc.freeze()
            helpers = [asyncio.create_task(self._renew(caller)) for caller in self._callers]
            try:
                await self._phases()
            finally:
                for helper in helpers:
                    helper.cancel()
                await asyncio.gather(*helpers, return_exceptions=True)
                # One that is on its way makes a token, which has to be known to be removed.
                await asyncio.gather(*self._renewals, return_exceptions=True)
                gc.unfreeze()

    @asynccontextmanager
    async def _sessions(self) -> AsyncIterator[None]:
        plan = self.plan
        async with (
            session(plan.target, plan.connections, self._timeout) as self._session,
            # Of its own: a login or a renewal does not queue behind the load.
            session(plan.target, 1, aiohttp.ClientTimeout(total=CONNECT_WITHIN)) as self._control,
        ):
            yield

    # --- before ----------------------------------------------------------------------------------

    async def _log_in(self) -> None:
        for account in self.plan.accounts:
            if self._stopping.is_set():
                return
            answer = await self._login(account)
            tenant = Tenant(account.email, answer["user"].get("organization_id") or "", ())
            self._callers.append(
                Caller(account, tenant, _headers(answer["token"]), answer["refresh_token"])
            )
        self._who = Deck(self._callers, self._rng)

    async def _login(self, account: Account) -> dict[str, Any]:
        """Once for each account: a login costs the server a bcrypt hash."""
        status, text, answer = await self._talk(
            "POST", "/auth/login", {"email": account.email, "password": account.password}
        )
        if status == 429:
            raise Failed(
                f"login of {account.email}: 429, the rate limiter refuses it; wait a minute"
            )
        if status != 200:
            raise Failed(f"login of {account.email}: {status} {text}")
        return self._tokens(answer, account)

    def _tokens(self, answer: object, account: Account) -> dict[str, Any]:
        """Judged by looking: both tokens are there, and the user is who was asked for."""
        if (
            not isinstance(answer, dict)
            or not isinstance(answer.get("token"), str)
            or not isinstance(answer.get("refresh_token"), str)
            or not isinstance(answer.get("user"), dict)
            or answer["user"].get("email") != account.email
        ):
            names = sorted(answer) if isinstance(answer, dict) else "no object"
            raise Failed(f"login of {account.email}: no token, refresh_token and user in {names}")
        self._emit({"event": "tokens", "tokens": [answer["refresh_token"]]})
        return answer

    async def _talk(
        self, method: str, path: str, sent: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str, Any]:
        """Status, text and JSON of a request that is no load."""
        url = URL(self.plan.target.url + path, encoded=True)
        data = None if sent is None else orjson.dumps(sent)
        try:
            async with self._control.request(
                method, url, data=data, headers=headers or _headers(""), allow_redirects=False
            ) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Failed(f"{method} {path}: {in_words(error)}") from None
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError:
            found = None
        return answer.status, " ".join(body.decode("utf-8", "replace").split())[:200], found

    async def _look_around(self) -> None:
        """Find out what is each tenant's own."""
        asked = {name for phase in self.plan.phases for name, _ in phase.mix}
        if not asked - {"GET /health"}:
            return
        theirs: list[dict[str, list[str]]] = []
        for caller in self._callers:
            if self._stopping.is_set():
                return
            found = {name: await self._ids(caller, name) for name in ("buildings", "owners")}
            if not found["buildings"]:
                raise Failed(
                    f"{caller.account.email} has no buildings: the realistic data is not there; "
                    "seed it with pyinfra inventories/….py deploys/seed.py"
                )
            theirs.append(found)
        every = {row for found in theirs for ids in found.values() for row in ids}
        for caller, found in zip(self._callers, theirs, strict=True):
            own = {row for ids in found.values() for row in ids}
            caller.tenant = replace(
                caller.tenant,
                buildings=tuple(found["buildings"]),
                foreign=frozenset(every - own),
                filled=frozenset(f"GET /{name}" for name, ids in found.items() if ids),
            )

    async def _ids(self, caller: Caller, name: str) -> list[str]:
        path = f"/{name}?page=1&per_page=100"
        for _try in range(LOGIN_TRIES):
            status, text, answer = await self._talk("GET", path, headers=caller.headers)
            if status < 500:  # a server that fails now and then is what a run is to measure
                break
        if status == 429:
            raise Failed(f"GET {path}: 429, the rate limiter refuses it")
        if status != 200 or not isinstance(answer, dict) or not isinstance(answer["data"], list):
            raise Failed(f"GET {path} as {caller.account.email}: {status} {text}")
        return [
            row["id"]
            for row in answer["data"]
            if not application.is_marked(row.get("name") or row.get("email"))
        ]

    # --- tokens ----------------------------------------------------------------------------------

    async def _renew(self, caller: Caller) -> None:
        """Before the token runs out, again and again, without a pause of the load."""
        while True:
            await asyncio.sleep(self.plan.renew_after)
            # Until it succeeds: what is refused for an old token is not the server's error.
            for wait in itertools.chain((1.0, 5.0), itertools.repeat(15.0)):
                try:
                    renewal = asyncio.create_task(self._renewed(caller))
                    self._renewals.add(renewal)
                    renewal.add_done_callback(self._renewals.discard)
                    await asyncio.shield(renewal)
                    break
                except Failed as failed:
                    text = f"renewing a token: {failed}; again in {wait:.0f} s"
                    self._emit({"event": "note", "text": text})
                    await asyncio.sleep(wait)

    async def _renewed(self, caller: Caller) -> None:
        status, text, answer = await self._talk(
            "POST", "/auth/refresh", {"refresh_token": caller.refresh_token}
        )
        if status == 401:  # revoked meanwhile, say by a restore
            answer = await self._login(caller.account)
        elif status != 200:
            raise Failed(f"{caller.account.email}: {status} {text}")
        else:
            answer = self._tokens(answer, caller.account)
        caller.headers = _headers(answer["token"])
        caller.refresh_token = answer["refresh_token"]

    # --- phases ----------------------------------------------------------------------------------

    async def _phases(self) -> None:
        alarm = Alarm()
        self._began = time.monotonic() + 0.02
        self._emit({"event": "began", "at": time.time() + 0.02})
        self._ticked = time.monotonic(), time.process_time()
        ticking = asyncio.create_task(self._tick())
        try:
            for number, phase in enumerate(self.plan.phases):
                if self._stopping.is_set():
                    break
                if number:
                    # On a whole second, so that a second of the run is one of the phase.
                    now = time.monotonic() - self._began
                    began = self._began + -(-now // 1) + phase.pause
                    await self._sleep_until(began)
                else:
                    began = self._began
                self._emit({"event": "phase", "phase": number, "began": self._micro(began)})
                if phase.rate is not None:
                    await self._open(number, phase, began, alarm)
                else:
                    await self._closed(number, phase, began)
                ended = self._micro(time.monotonic())
                await self._settle()
                self._emit({"event": "phase ended", "phase": number, "ended": ended})
        finally:
            alarm.close()
            ticking.cancel()
            # The last second may have ended before it was told of.
            if time.monotonic() - self._ticked[0] >= 0.5:
                self._tick_now()
            else:
                self._tell(0.0, 0.0)
            self._emit({"event": "done", "stopped": self._stopping.is_set()})

    async def _sleep_until(self, moment: float) -> None:
        left = moment - time.monotonic()
        if left > 0:
            try:
                await asyncio.wait_for(self._stopping.wait(), left)
            except TimeoutError:
                return

    async def _open(self, number: int, phase: PhasePlan, began: float, alarm: Alarm) -> None:
        """Arrivals at a rate. A slow server does not slow them down."""
        assert phase.rate is not None
        deck = Deck(cards(dict(phase.mix)), self._rng)
        most = self.plan.most_under_way
        gives_up = began + phase.seconds + BEHIND
        sent, asked = 0, sum(asked_in(second, phase.rate) for second in range(phase.seconds))
        for second in range(phase.seconds):
            for offset in arrivals(asked_in(second, phase.rate), self._rng):
                due = began + second + offset
                await alarm.until(due)
                if self._stopping.is_set():
                    return
                if time.monotonic() > gives_up:
                    text = f"{phase.name}: {BEHIND:.0f} s after its end {asked - sent} of {asked}"
                    text += " requests were not sent yet: this machine cannot send so many"
                    self._emit({"event": "note", "text": text})
                    return
                sent += 1
                kind = KINDS[deck.draw()]
                if len(self._under_way) + len(self._waiting) >= most:
                    self._never_sent(number, kind, due)
                else:
                    self._start(number, kind, due)
        await alarm.until(began + phase.seconds)

    def _start(self, phase: int, kind: Kind, due: float) -> None:
        if self._senders >= self.plan.connections:
            self._waiting.append(Arrival(phase, kind, due, time.monotonic() - due))
            return
        self._senders += 1
        task = asyncio.create_task(self._send(Arrival(phase, kind, due, None)))
        self._under_way[task] = (phase, KIND_NAMES.index(kind.name), self._micro(due))
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        if not task.cancelled() and (error := task.exception()):
            self._emit({"event": "failed", "text": f"in the generator: {in_words(error)}"})
            self.stop()

    async def _send(self, arrival: Arrival | None) -> None:
        """Send an arrival, then those that wait for a connection."""
        task = asyncio.current_task()
        assert task is not None
        try:
            while arrival is not None:
                await self._arrived(arrival)
                arrival = self._waiting.popleft() if self._waiting else None
                if arrival is not None:
                    kind = KIND_NAMES.index(arrival.kind.name)
                    self._under_way[task] = (arrival.phase, kind, self._micro(arrival.due))
        finally:
            self._senders -= 1

    async def _arrived(self, arrival: Arrival) -> None:
        phase, kind, due, late = arrival
        now = time.monotonic()
        left = None
        if late is None:
            late = now - due
        elif (left := due + self.plan.timeout - now) <= 0:
            self._say("timeout", f"not sent: waited {now - due:.0f} s for a connection")
            self._record(phase, kind, _NUMBER["timeout"], due, self.plan.timeout, late)
            return
        outcome, ended = await self._ask(kind, self._who.draw(), left)
        self._record(phase, kind, outcome, due, ended - due, late)

    def _never_sent(self, phase: int, kind: Kind, due: float) -> None:
        most = self.plan.most_under_way
        self._say("timeout", f"not sent: {most} requests under way wait for their answers")
        self._record(phase, kind, _NUMBER["timeout"], due, self.plan.timeout, 0.0)

    async def _closed(self, number: int, phase: PhasePlan, began: float) -> None:
        """So many users, each asking after its last answer."""
        assert phase.users is not None
        deck = Deck(cards(dict(phase.mix)), self._rng)
        end = began + phase.seconds
        for _ in range(phase.users):
            task = asyncio.create_task(self._user(number, phase, deck, end))
            self._under_way[task] = (number, 0, -1)
            task.add_done_callback(self._forget)
        await self._sleep_until(end)

    async def _user(self, number: int, phase: PhasePlan, deck: Deck[str], end: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        while (began := time.monotonic()) < end and not self._stopping.is_set():
            kind = KINDS[deck.draw()]
            self._under_way[task] = (number, KIND_NAMES.index(kind.name), self._micro(began))
            outcome, ended = await self._ask(kind, self._who.draw())
            self._record(number, kind, outcome, began, ended - began, 0.0)
            self._under_way[task] = (number, 0, -1)
            if phase.think:
                await self._sleep_until(min(time.monotonic() + phase.think, end))
            elif outcome != 0 and ended - began < 0.001:
                await asyncio.sleep(0.01)  # a server that refuses at once is not hammered

    async def _settle(self) -> None:
        """Wait for all answers; after an interruption only for a moment."""
        gives_up = time.monotonic() + self.plan.timeout + BEHIND
        while self._under_way:
            stopping = self._stopping.is_set()
            within = GRACE if stopping else 0.5
            await asyncio.wait(list(self._under_way), timeout=within)
            if stopping or time.monotonic() > gives_up:
                break
        for phase, waiting, due, _ in self._waiting:
            self._append(phase, KIND_NAMES.index(waiting.name), UNFINISHED, self._micro(due), 0, 0)
        self._waiting.clear()
        for task, (phase, kind, at) in list(self._under_way.items()):
            if at >= 0:
                self._append(phase, kind, UNFINISHED, at, 0, 0)
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    # --- a request -------------------------------------------------------------------------------

    async def _ask(
        self, kind: Kind, caller: Caller, left: float | None = None
    ) -> tuple[int, float]:
        """Send one request; its outcome, and when its answer was complete.

        Args:
            kind: which.
            caller: as whom.
            left: seconds until it is given up; None: the plan's.
        """
        sent = data = None
        if kind.table:
            number = next(self._numbers)
            now = datetime.now(UTC)
            sent = application.body(kind, caller.tenant, self.plan.run, number, now)
            data = orjson.dumps(sent)
        try:
            async with self._session.request(
                kind.method,
                self._urls[kind.name],
                data=data,
                headers=caller.headers,
                allow_redirects=False,
                timeout=self._timeout if left is None else _timeout(left),
            ) as answer:
                body = await answer.read()
                ended = time.monotonic()
                status = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError) as error:
            failed = error_kind(error)
            self._say(failed, in_words(error))
            return _NUMBER[failed], time.monotonic()
        if status == kind.status:
            problem = application.wrong(kind, caller.tenant, sent, body)
            if not problem:
                return 0, ended
            self._say("wrong body", f"{kind.name}: {problem}")
            return _NUMBER["wrong body"], ended
        failed = "4xx" if 400 <= status < 500 else "5xx" if status >= 500 else "wrong body"
        if status == 429:
            self._say(failed, "429: the rate limiter refuses this client")
        else:
            told = " ".join(body.decode("utf-8", "replace").split())[:120]
            self._say(failed, f"{kind.name}: {status} {told}")
        return _NUMBER[failed], ended

    def _say(self, kind: str, words: str) -> None:
        examples = self._words.setdefault(kind, [])
        if len(examples) < EXAMPLES and words not in examples:
            examples.append(words)
            self._new_words = True

    # --- telling ---------------------------------------------------------------------------------

    def _micro(self, moment: float) -> int:
        return round((moment - self._began) * 1e6)

    def _record(
        self, phase: int, kind: Kind, outcome: int, at: float, took: float, late: float
    ) -> None:
        self._append(
            phase,
            KIND_NAMES.index(kind.name),
            outcome,
            self._micro(at),
            max(1, round(took * 1e6)),
            max(0, round(late * 1e6)),
        )

    def _append(self, *row: int) -> None:
        for column, value in zip(self._rows, row, strict=True):
            column.append(value)

    async def _tick(self) -> None:
        """Once a second tell what ended, and what it cost."""
        for second in itertools.count(1):
            await asyncio.sleep(max(0.0, self._began + second - time.monotonic()))
            self._tick_now()

    def _tick_now(self) -> None:
        (wall, used), self._ticked = self._ticked, (time.monotonic(), time.process_time())
        now, cpu = self._ticked
        self._tell(now - self._began, 100 * (cpu - used) / max(now - wall, 1e-6))

    def _tell(self, at: float, cpu: float) -> None:
        rows, self._rows = self._rows, [[] for _ in COLUMNS]
        event: Event = {
            "event": "rows",
            "at": round(at, 3),
            "cpu": round(cpu, 1),
            "under_way": sum(at >= 0 for _, _, at in self._under_way.values()) + len(self._waiting),
            "rows": rows,
        }
        if self._new_words:
            event["words"], self._new_words = self._words, False
        self._emit(event)


@asynccontextmanager
async def session(
    target: Target, connections: int, timeout: aiohttp.ClientTimeout, kept: bool = True
) -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client that sends nothing twice.

    Args:
        target: where to, and how its name and certificate are to be taken.
        connections: at most so many at a time; 0: as many as are asked for.
        timeout: of each request.
        kept: connections serve one request after the other; else each has its own.
    """
    secure = target.url.startswith("https:")
    connector = aiohttp.TCPConnector(
        limit=connections,
        resolver=_To(target.address) if target.address else None,
        ttl_dns_cache=None,
        ssl=ssl.create_default_context(cafile=target.ca) if secure else True,
        **({"keepalive_timeout": 120.0} if kept else {"force_close": True}),
    )
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
    ) as made:
        send_nothing_twice(made)
        yield made


def send_nothing_twice(session: aiohttp.ClientSession) -> None:
    """Have a GET on a connection that breaks be an error: aiohttp would send it again in silence.

    It has no public setting for that.

    Raises:
        Failed: this aiohttp has no such switch any more, and a load test would tell nothing true.
    """
    if getattr(session, "_retry_connection", None) is not True:
        raise Failed(
            f"aiohttp {aiohttp.__version__} may send a request twice, and how to keep it from that "
            "is not known (it has no ClientSession._retry_connection): install the version of "
            "requirements.lock (make setup), or find its new switch for "
            "koprogo_deploy/load/generator.py"
        )
    session._retry_connection = False


def _headers(token: str) -> dict[str, str]:
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "gzip",
        "Content-Type": "application/json",
        "User-Agent": "koprogo-load",
    }
    return {**headers, "Authorization": f"Bearer {token}"} if token else headers
