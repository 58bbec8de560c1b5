"""Traffic of every sort through TLS, at a rate of its own, of which every request is accounted for.

Quick reads and writes on kept and on new connections, pages, requests that take 5 s, uploads that
take 6 s: at any moment some are under way. What does not come back right is lost, and is told
with its reason; each write that was acknowledged is looked up in the database afterwards.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import random
import secrets
import shlex
import ssl
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import aiohttp
from yarl import URL

from koprogo_deploy import door, maintenance
from koprogo_deploy.load import application, rows
from koprogo_deploy.load.application import KINDS, Tenant, mark
from koprogo_deploy.load.generator import error_kind, in_words, session
from koprogo_deploy.load.plan import Account, Target
from koprogo_deploy.outside import Outside

TIMEOUT = 30.0
# Lists of more than a page each: their length does not hang on what is written meanwhile.
READS = ("GET /health", "GET /auth/me", "GET /units", "GET /owners", "GET /expenses")
WRITES = ("POST /buildings", "POST /expenses", "POST /owners")
LOGINS = ("admin@medium.be", "admin@large.be")
COLUMNS = {
    "buildings": "name", "expenses": "description", "owners": "email", "documents": "title",
}  # fmt: skip
UPLOADS = "/var/lib/docker/volumes/koprogo_uploads/_data"
SLOW = 5.0  # seconds that the backend takes for a slow request
UPLOAD_SECONDS = 6.0
UPLOAD_SIZE = 192 * 1024
PIECES = 24
LOGIN_EVERY = 600.0  # seconds; tokens live 900
PAGE = "maintenance page"  # an outcome: 503 with Retry-After, by the proxy
SLOW_RELEASE = {"STANDIN_FAULTS": "slow_on_request"}  # a backend that can be slow when asked to


@dataclass(frozen=True)
class Stream:
    """One sort of request, and how many of it begin each second.

    Attributes:
        kept: on connections that are kept; else each has a new one.
        steady: evenly spaced, so that some of a long sort are always under way.
    """

    name: str
    rate: float
    kept: bool = True
    steady: bool = False


STREAMS = (
    Stream("read", 12),
    Stream("read", 3, kept=False),
    Stream("write", 5),
    Stream("write", 1.5, kept=False),
    Stream("page", 2),
    Stream("page", 1, kept=False),
    Stream("slow read", 1, steady=True),
    Stream("slow write", 0.5, steady=True),
    Stream("upload", 0.5, steady=True),
)
QUICK = (
    Stream("read", 16),
    Stream("read", 8, kept=False),
    Stream("write", 4),
    Stream("write", 2, kept=False),
)
WITHOUT_PAGES = tuple(stream for stream in STREAMS if stream.name != "page")


@dataclass(frozen=True)
class Ended:
    """A request that ended; times are seconds since 1970."""

    stream: str
    kept: bool
    began: float
    ended: float
    outcome: str
    words: str = ""

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.ended, UTC)
        kept = "kept" if self.kept else "new"
        took = self.ended - self.began
        return (
            f"{when:%H:%M:%S.%f} {self.stream} ({kept}), {took:.2f} s: {self.outcome} {self.words}"
        )


@dataclass(frozen=True)
class Where:
    """What is asked.

    Attributes:
        api: base URL ends in `/api/v1`.
        site: base URL of the pages; empty for none.
        cpus: those of this machine that the traffic keeps to; None: all.
    """

    api: str
    accounts: tuple[Account, ...]
    site: str = ""
    address: str | None = None
    ca: str | None = None
    cpus: tuple[int, ...] | None = None


def where(environment: door.Environment) -> Where:
    """The front door of an environment, by its seeded logins."""
    settings, password = environment.settings, environment.secrets["SEED_PASSWORD"]
    return Where(
        settings.api_url,
        tuple(Account(email, password) for email in LOGINS),
        settings.url,
        settings.public_address,
        settings.ca_certificate,
        tuple(settings.load_cpus) if settings.load_cpus else None,
    )


@dataclass
class Caller:
    """An account that is logged in."""

    account: Account
    tenant: Tenant
    user: str
    headers: dict[str, str]


@dataclass
class Acknowledged:
    """Writes that were answered 201: marks by table, and each upload's id and content by mark."""

    marks: dict[str, list[str]] = field(default_factory=dict)
    uploads: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, table: str, marked: str) -> None:
        """One more."""
        self.marks.setdefault(table, []).append(marked)

    @property
    def count(self) -> int:
        """How many."""
        return sum(map(len, self.marks.values()))


def unaccounted(
    acknowledged: Mapping[str, Iterable[str]], found: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """Acknowledged writes that are not in the database exactly once. Pure.

    Args:
        acknowledged: marks by table.
        found: how often each mark is there, by table.
    """
    wrong = []
    for table, marks in acknowledged.items():
        for marked in marks:
            times = found.get(table, {}).get(marked, 0)
            if times != 1:
                wrong.append(f"{table}: {marked} was acknowledged and is there {times} times")
    return wrong


def least_under_way(ended: Iterable[Ended], stream: str, since: float, until: float) -> int:
    """How many of a sort were under way at the moment when fewest were. Pure."""
    spans = [(e.began, e.ended) for e in ended if e.stream == stream]
    moments = {since, *(end for _, end in spans if since <= end < until)}
    return min(sum(a <= moment < b for a, b in spans) for moment in moments)


def losses(ended: Iterable[Ended]) -> list[Ended]:
    """Requests that did not come back right."""
    return [each for each in ended if each.outcome != "right"]


class Traffic:
    """Runs in a thread from entering the context to leaving it; then every answer has come.

    Attributes:
        ended: every request.
        acknowledged: every write that was answered 201.
        late: seconds that the worst request was sent too late by.
    """

    def __init__(
        self, target: Where, streams: Sequence[Stream] = STREAMS, timeout: float = TIMEOUT
    ) -> None:
        self.where = target
        self.timeout = timeout
        self.run = secrets.token_hex(4)
        self.ended: list[Ended] = []
        self.acknowledged = Acknowledged()
        self.late = 0.0
        self.tokens: list[str] = []
        self.began = 0.0
        self._streams = streams
        self._rng = random.Random(self.run)
        self._numbers = itertools.count(1)
        self._callers: list[Caller] = []
        self._turn = 0
        self._error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    # --- as a context ----------------------------------------------------------------------------

    def __enter__(self) -> Traffic:
        self._thread.start()
        ready = self._ready.wait(60)
        if self._error is not None:
            raise self._error
        assert ready, "nobody was logged in within 60 s: nothing is asked"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(self.timeout + 30)
        if self._error is not None and error is None:
            raise self._error
        assert error is not None or not self._thread.is_alive(), "answers are still to come"

    @property
    def lost(self) -> list[str]:
        """Requests that did not come back right, in words.

        Raises:
            AssertionError: there was none of a sort, so that no loss would say nothing.
        """
        return [str(each) for each in losses(self._every_sort())]

    @property
    def lost_beside_the_page(self) -> list[str]:
        """As `lost`, where the maintenance page is expected for a while."""
        return [str(each) for each in losses(self._every_sort()) if each.outcome != PAGE]

    def _every_sort(self) -> list[Ended]:
        missing = {(s.name, s.kept) for s in self._streams} - {
            (each.stream, each.kept) for each in self.ended
        }
        assert not missing, f"no request of these sorts ended: {sorted(missing)}"
        return self.ended

    @property
    def told_to_wait(self) -> list[Ended]:
        """Requests that got the maintenance page."""
        return [each for each in self.ended if each.outcome == PAGE]

    @property
    def interrupted(self) -> float:
        """Seconds between the first and the last request that did not come back right."""
        times = [each.began for each in losses(self.ended)]
        return max(times) - min(times) if times else 0.0

    @property
    def kinds(self) -> dict[str, int]:
        """How many requests of each outcome."""
        return dict(Counter(each.outcome for each in self.ended))

    @property
    def summary(self) -> str:
        """For whoever reads a test's output."""
        counts = Counter(each.stream for each in self.ended)
        parts = ", ".join(f"{count} × {name}" for name, count in sorted(counts.items()))
        return (
            f"{len(self.ended)} requests ({parts}), {len(losses(self.ended))} lost, "
            f"{self.acknowledged.count} writes acknowledged"
        )

    def under_way(self, since: float, until: float) -> dict[str, int]:
        """Of each long sort, how many were under way when fewest were."""
        names = sorted({stream.name for stream in self._streams if stream.steady})
        return {name: least_under_way(self.ended, name, since, until) for name in names}

    # --- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            if self.where.cpus:
                os.sched_setaffinity(0, self.where.cpus)  # of this thread alone
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(self._everything())
        except BaseException as error:
            self._error = error
        finally:
            self._loop.close()
            self._ready.set()

    async def _everything(self) -> None:
        target = Target(self.where.api, self.where.address, self.where.ca)
        timeout = aiohttp.ClientTimeout(total=self.timeout, sock_connect=10.0)
        async with AsyncExitStack() as stack:
            self._kept = await stack.enter_async_context(session(target, 0, timeout))
            self._new = await stack.enter_async_context(session(target, 0, timeout, kept=False))
            for account in self.where.accounts:
                self._callers.append(await self._logged_in(account))
            self.began = time.time()
            self._ready.set()
            helper = asyncio.create_task(self._renew())
            await asyncio.gather(*(self._arrivals(stream) for stream in self._streams))
            helper.cancel()

    async def _arrivals(self, stream: Stream) -> None:
        under_way: set[asyncio.Task[None]] = set()
        due = time.monotonic() + self._rng.random() / stream.rate
        while not self._stopping.is_set():
            try:
                await asyncio.wait_for(self._stopping.wait(), max(0.0, due - time.monotonic()))
                break
            except TimeoutError:
                pass
            self.late = max(self.late, time.monotonic() - due)
            task = asyncio.create_task(self._one(stream))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            due += 1 / stream.rate if stream.steady else self._rng.expovariate(stream.rate)
        await asyncio.gather(*under_way)

    async def _one(self, stream: Stream) -> None:
        work: dict[str, Callable[[Stream], Awaitable[str]]] = {
            "read": self._read,
            "write": self._write,
            "page": self._page,
            "slow read": self._read,
            "slow write": self._write,
            "upload": self._upload,
        }
        began, words = time.time(), ""
        try:
            outcome, _, words = (await work[stream.name](stream)).partition(": ")
        except aiohttp.ClientPayloadError as error:
            outcome, words = "truncated", in_words(error)
        except (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError) as error:
            outcome, words = error_kind(error), in_words(error)
        except (ValueError, LookupError) as error:  # what is no answer of KoproGo's
            outcome, words = "wrong body", in_words(error)
        self.ended.append(Ended(stream.name, stream.kept, began, time.time(), outcome, words))

    # --- requests: each says `right`, or a kind of error and words -------------------------------

    def _caller(self) -> Caller:
        self._turn += 1
        return self._callers[self._turn % len(self._callers)]

    def _client(self, stream: Stream) -> aiohttp.ClientSession:
        return self._kept if stream.kept else self._new

    def _headers(self, stream: Stream, caller: Caller) -> dict[str, str]:
        wait = {"X-Standin-Wait": f"{SLOW * 1000:.0f}"} if stream.name.startswith("slow") else {}
        return {**caller.headers, **wait}

    async def _read(self, stream: Stream) -> str:
        # Health answers without a wait.
        names = READS[1:] if stream.name.startswith("slow") else READS
        kind, caller = KINDS[self._rng.choice(names)], self._caller()
        url = URL(self.where.api + kind.path, encoded=True)
        async with self._client(stream).get(url, headers=self._headers(stream, caller)) as answer:
            body = await answer.read()
        if answer.status != 200:
            return _status(kind.name, answer, body)
        return _body(kind.name, application.wrong(kind, caller.tenant, None, body))

    async def _write(self, stream: Stream) -> str:
        kind, caller = KINDS[self._rng.choice(WRITES)], self._caller()
        number = next(self._numbers)
        sent = application.body(kind, caller.tenant, self.run, number, datetime.now(UTC))
        headers = {**self._headers(stream, caller), "Content-Type": "application/json"}
        url = URL(self.where.api + kind.path, encoded=True)
        async with self._client(stream).post(
            url, data=json.dumps(sent).encode(), headers=headers
        ) as answer:
            body = await answer.read()
        if answer.status != 201:
            return _status(kind.name, answer, body)
        self.acknowledged.add(kind.table, sent[COLUMNS[kind.table]])
        return _body(kind.name, application.wrong(kind, caller.tenant, sent, body))

    async def _page(self, stream: Stream) -> str:
        async with self._client(stream).get(self.where.site + "/") as answer:
            body = await answer.read()
        if answer.status != 200:
            return _status("page", answer, body)
        whole = body.rstrip().lower().endswith(b"</html>")
        return _body("page", "" if whole else f"ends in {body[-40:]!r}")

    async def _upload(self, stream: Stream) -> str:
        caller, marked = self._caller(), mark(self.run, next(self._numbers))
        content = hashlib.shake_128(marked.encode()).digest(UPLOAD_SIZE)
        form, boundary = upload_form(marked, content, caller.tenant.buildings[0], caller.user)
        headers = {
            **caller.headers,
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(form)),
        }
        async with self._client(stream).post(
            f"{self.where.api}/documents", data=slowly(form, UPLOAD_SECONDS), headers=headers
        ) as answer:
            body = await answer.read()
        if answer.status != 201:
            return _status("upload", answer, body)
        found = json.loads(body)
        self.acknowledged.add("documents", marked)
        digest = hashlib.sha256(content).hexdigest()
        self.acknowledged.uploads[marked] = found.get("id", ""), digest
        right = (found.get("title"), found.get("file_size")) == (marked, len(content))
        return _body("upload", "" if right else f"{found.get('title')}, {found.get('file_size')}")

    # --- logins ----------------------------------------------------------------------------------

    async def _logged_in(self, account: Account) -> Caller:
        url = f"{self.where.api}/auth/login"
        sent = {"email": account.email, "password": account.password}
        async with self._kept.post(url, json=sent) as answer:
            text = await answer.text()
        if answer.status != 200:
            raise AssertionError(f"login of {account.email}: {answer.status} {text[:200]}")
        found = json.loads(text)
        self.tokens.append(found["refresh_token"])
        headers = {"Authorization": f"Bearer {found['token']}", "Accept-Encoding": "gzip"}
        listing = f"{self.where.api}/buildings?page=1&per_page=100"
        async with self._kept.get(listing, headers=headers) as answer:
            data = json.loads(await answer.read())["data"]
        buildings = tuple(r["id"] for r in data if not application.is_marked(r.get("name")))
        user = found["user"]
        tenant = Tenant(account.email, user.get("organization_id") or "", buildings)
        return Caller(account, tenant, user["id"], headers)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(LOGIN_EVERY)
            began = time.time()
            for number, caller in enumerate(list(self._callers)):
                try:
                    self._callers[number] = await self._logged_in(caller.account)
                except (AssertionError, aiohttp.ClientError, OSError, TimeoutError) as error:
                    now = time.time()
                    self.ended.append(Ended("login", True, began, now, "login", in_words(error)))

    # --- afterwards ------------------------------------------------------------------------------

    def accounted(self, sql: Callable[[str], str]) -> list[str]:
        """Acknowledged writes that are not there exactly once.

        Args:
            sql: asks the database, as superuser, and returns what psql prints.
        """
        parts = [
            f"SELECT '{table}', {column}, count(*) FROM {table} "
            f"WHERE {column} LIKE 'load-{self.run}-%' GROUP BY {column}"
            for table, column in COLUMNS.items()
        ]
        found: dict[str, dict[str, int]] = {}
        for line in sql(" UNION ALL ".join(parts) + ";").splitlines():
            table, marked, times = line.split("|")
            found.setdefault(table, {})[marked] = int(times)
        return unaccounted(self.acknowledged.marks, found)

    def uploaded(self, environment: door.Environment) -> list[str]:
        """Acknowledged uploads whose content does not come back as it was sent."""
        wrong = []
        with Outside(environment.settings) as outside:
            for marked, (identity, digest) in self.acknowledged.uploads.items():
                answer = outside.api.get(f"/documents/{identity}/download")
                if answer.status_code != 200:
                    wrong.append(f"{marked}: {answer.status_code} {answer.text[:80]}")
                elif hashlib.sha256(answer.content).hexdigest() != digest:
                    wrong.append(f"{marked}: {len(answer.content)} bytes, of another content")
        return wrong

    def clean(self, sql: Callable[[str], str], root: Callable[[str], str]) -> None:
        """Remove what was written: rows, and uploaded files, also of uploads that were lost.

        Args:
            sql: as above.
            root: runs a shell command on the host as root.
        """
        sql(f"DELETE FROM documents WHERE title LIKE 'load-{self.run}-%';")
        pattern = shlex.quote(f"*_load-{self.run}-*")
        root(f"find {UPLOADS} -name {pattern} -delete")
        sql(rows.clean_sql(self.run, self.tokens))


def _status(name: str, answer: aiohttp.ClientResponse, body: bytes) -> str:
    status = answer.status
    if maintenance.ours(answer.headers) and answer.headers.get("Retry-After", "").isdigit():
        return f"{PAGE}: {name}"
    kind = "4xx" if 400 <= status < 500 else "5xx" if status >= 500 else "wrong body"
    told = " ".join(body.decode("utf-8", "replace").split())[:120]
    return f"{kind}: {name}: {status} {told}"


def _body(name: str, problem: str) -> str:
    return f"wrong body: {name}: {problem}" if problem else "right"


def upload_form(marked: str, content: bytes, building: str, user: str) -> tuple[bytes, str]:
    """The body of an upload as a browser sends it, and the boundary of its parts."""
    boundary = f"----koprogo{marked}"
    values = {
        "building_id": building, "document_type": "Other", "title": marked, "uploaded_by": user,
    }  # fmt: skip
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in values.items()
    ]
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{marked}.bin"'
        "\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
    return b"".join([*parts, head.encode(), content, f"\r\n--{boundary}--\r\n".encode()]), boundary


async def slowly(content: bytes, seconds: float) -> AsyncIterator[bytes]:
    """A body as it comes over a slow line."""
    size = -(-len(content) // PIECES)
    for number in range(PIECES):
        yield content[number * size : (number + 1) * size]
        if number < PIECES - 1:
            await asyncio.sleep(seconds / (PIECES - 1))


def told(traffic: Traffic, **more: Any) -> str:
    """A line for the test's output."""
    extra = "".join(f"; {name}: {value}" for name, value in more.items())
    return f"{traffic.summary}; at most {traffic.late * 1000:.0f} ms late{extra}"
