"""A dashboard of made-up parts: no host, no monitor, commands that only print."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from koprogo_deploy import door, seed
from koprogo_deploy.dashboard import app
from koprogo_deploy.dashboard.desk import Desk
from koprogo_deploy.dashboard.guard import Keys
from koprogo_deploy.dashboard.jobs import Jobs
from koprogo_deploy.dashboard.watch import Watch
from koprogo_deploy.facts.stack import StackState
from koprogo_deploy.runs import store
from koprogo_deploy.runs.model import Run
from koprogo_deploy.runs.sample import Sample
from tests import project

PORT = 8123
HOST = f"127.0.0.1:{PORT}"
ORIGIN = f"http://{HOST}"
EMPTY = dict.fromkeys(("organizations", "users", "buildings", "units", "owners", "expenses"), 0)


@dataclass
class FakeMonitor:
    """Gives these samples, then stays as it is told."""

    samples: list[Sample] = field(default_factory=list)
    problem: str = ""
    running: bool = True


@contextlib.contextmanager
def no_monitor() -> Iterator[FakeMonitor]:
    yield FakeMonitor()


def seeded(**counts: int) -> seed.State:
    """A database with an empty schema, or with these counts of seeded rows."""
    return seed.State(True, EMPTY | counts, (), None, counts.get("organizations", 0), (), ())


def environment(name: str = "sandbox", **changes: Any) -> door.Environment:
    return door.Environment(project.settings(name, **changes), project.SECRETS, "203.0.113.7", {})


@dataclass
class Bench:
    """A dashboard, and a browser that has opened its link."""

    desk: Desk
    keys: Keys
    client: TestClient
    reported: list[Run]

    def stranger(self, base_url: str = ORIGIN) -> TestClient:
        """Another browser, without the cookie."""
        return TestClient(self.client.app, base_url=base_url, follow_redirects=False)

    def post(self, path: str = "/jobs", **body: Any) -> Any:
        return self.client.post(path, json=body, headers={"Origin": ORIGIN})


@pytest.fixture
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    return tmp_path


@pytest.fixture
def bench(runs_folder: Path) -> Iterator[Callable[..., Bench]]:
    with contextlib.ExitStack() as stack:

        def make(name: str = "sandbox", link_opened: bool = True, **changes: Any) -> Bench:
            opened = environment(name, **changes)
            keys = Keys(PORT)
            desk = Desk(
                name=name,
                open=lambda: opened,
                watch=Watch(no_monitor),
                jobs=Jobs(),
                profiles={"realistic": "as people do", "light": "a few"},
                look_at_stack=lambda _: StackState(docker=True),
                look_at_seed=lambda _: seeded(),
            )
            reported: list[Run] = []

            def report(runs: list[Run]) -> str:
                reported.extend(runs)
                return "<h1>the report</h1>"

            built = app.build(desk, keys, asyncio.Event(), report)
            client = TestClient(built, base_url=ORIGIN, follow_redirects=False)
            stack.enter_context(client)
            if link_opened:
                assert client.get(f"/?token={keys.token}").status_code == 303
            return Bench(desk, keys, client, reported)

        yield make


def python(code: str) -> tuple[str, ...]:
    """A command line that runs a piece of Python."""
    return sys.executable, "-c", code
