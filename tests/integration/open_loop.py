"""An open loop through TLS whose every answer is kept: reads and writes, kept and new connections.

Requests begin at a rate, whatever the answers take, so that an interruption is not slept through.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import aiohttp

from koprogo_deploy.load import application, host
from koprogo_deploy.load.application import KINDS, Tenant
from koprogo_deploy.load.generator import in_words, session
from koprogo_deploy.load.plan import Target
from koprogo_deploy.outside import Outside
from koprogo_deploy.problems import Refusal
from tests.integration.rig import Rig

LOGIN = "admin@large.be"
RUN = "0f0f0f0f"  # in every row that is written; removed at the end


@dataclass(frozen=True)
class Answer:
    """What came of one request; `at` and `took` in seconds since the loop began."""

    at: float
    took: float
    method: str
    status: int  # 0: no answer
    told: str = ""
    retry_after: str = ""


@dataclass
class OpenLoop:
    """Runs in a thread of its own while the block is executed; `answers` are whole after it."""

    rig: Rig
    rate: float = 30.0
    answers: list[Answer] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> OpenLoop:
        settings, secrets = self.rig.environment.settings, self.rig.environment.secrets
        with Outside(settings) as outside:
            answer = outside.login(LOGIN, secrets["SEED_PASSWORD"]).json()
            headers = {"Authorization": f"Bearer {answer['token']}"}
            rows = outside.api.get("/buildings?page=1&per_page=5", headers=headers).json()["data"]
        organization = answer["user"]["organization_id"]
        self._tenant = Tenant(LOGIN, organization, tuple(row["id"] for row in rows))
        self._headers = {**headers, "Content-Type": "application/json"}
        self._began = time.monotonic()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(Refusal) if error else contextlib.nullcontext():
            host.clean(self.rig.environment, RUN)  # its failure would hide what went wrong before

    async def _work(self) -> None:
        settings = self.rig.environment.settings
        target = Target(settings.api_url, settings.public_address, settings.ca_certificate)
        assert target.address == "127.0.0.1", "load stays on this machine"
        timeout = aiohttp.ClientTimeout(total=60)
        async with (
            session(target, 0, timeout) as kept,
            session(target, 0, timeout, kept=False) as new,
        ):
            tasks = []
            for number in itertools.count():
                due = self._began + number / self.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if self._stop.is_set():
                    break
                method = "POST" if number % 5 == 4 else "GET"
                client = new if number % 3 == 0 else kept
                tasks.append(asyncio.create_task(self._ask(client, method, number, due)))
            await asyncio.gather(*tasks)

    async def _ask(
        self, client: aiohttp.ClientSession, method: str, number: int, due: float
    ) -> None:
        url = f"{self.rig.environment.settings.api_url}/buildings"
        body: Mapping[str, Any] | None = None
        if method == "POST":
            kind, now = KINDS["POST /buildings"], datetime.now(UTC)
            body = application.body(kind, self._tenant, RUN, number, now)
        try:
            async with client.request(method, url, json=body, headers=self._headers) as answer:
                told = (await answer.read())[:120].decode("utf-8", "replace")
                status, retry = answer.status, answer.headers.get("Retry-After", "")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            status, told, retry = 0, in_words(error), ""
        ended = time.monotonic()
        self.answers.append(Answer(due - self._began, ended - due, method, status, told, retry))

    def __str__(self) -> str:
        """What it saw, in figures."""
        longest = max((a.took for a in self.right), default=0.0)
        return (
            f"{len(self.answers)} requests: {len(self.right)} right (longest {longest:.1f} s), "
            f"{len(self.told_to_wait)} told to wait, {len(self.lost)} lost"
        )

    # --- what it saw -----------------------------------------------------------------------------

    @property
    def right(self) -> list[Answer]:
        """Answers of the application."""
        return [a for a in self.answers if a.status in (200, 201)]

    @property
    def told_to_wait(self) -> list[Answer]:
        """503 with Retry-After: the maintenance page."""
        return [a for a in self.answers if a.status == 503 and a.retry_after.isdigit()]

    @property
    def lost(self) -> list[Answer]:
        """Whatever else: no answer, a 5xx without the page, an error."""
        kept = {id(a) for a in (*self.right, *self.told_to_wait)}
        return [a for a in self.answers if id(a) not in kept]

    @property
    def interrupted(self) -> float:
        """Seconds between the first and the last request that did not get its answer."""
        times = [a.at for a in (*self.told_to_wait, *self.lost)]
        return max(times) - min(times) if times else 0.0
