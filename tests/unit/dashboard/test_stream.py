"""The stream of events, and the socket it is served on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from koprogo_deploy.dashboard import app, server, watch
from koprogo_deploy.dashboard.jobs import Job, Plan, Result
from koprogo_deploy.dashboard.watch import Watch
from koprogo_deploy.problems import Refusal
from koprogo_deploy.runs.sample import Sample
from tests.unit.dashboard.conftest import Bench, FakeMonitor, python


@contextlib.contextmanager
def two_samples() -> Iterator[FakeMonitor]:
    yield FakeMonitor([Sample(at=1.0), Sample(at=2.0)])


def parsed(event: str) -> tuple[str, Any]:
    name, data, *rest = event.split("\n")
    assert rest == ["", ""]
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def test_it_brings_samples_once_the_time_and_the_job_and_ends_when_told(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "PULSE", 0.01)
    monkeypatch.setattr(watch, "PULSE", 0.01)
    made = bench()
    made.desk.watch = Watch(two_samples)
    evil = "</script>\n\nevent: job\ndata: {}"
    job = Job(1, Plan("clear", evil, python("pass"), _good), 0.0, state="done")
    made.desk.jobs.job = job
    seen: list[tuple[str, Any]] = []

    async def go() -> None:
        closing = asyncio.Event()
        made.desk.watch.start()
        while made.desk.watch.seen().count < 2:
            await asyncio.sleep(0.01)
        async for event in app._stream(made.desk, closing):
            seen.append(parsed(event))
            if len(seen) == 4:
                closing.set()

    try:
        asyncio.run(asyncio.wait_for(go(), 10))
    finally:
        made.desk.watch.stop()
    assert [name for name, _ in seen] == ["points", "now", "job", "now"]
    assert [point["at"] for point in seen[0][1]] == [1.0, 2.0]
    assert seen[1][1]["live"] is True
    assert seen[2][1]["title"] == evil  # a line end in a name does not start another event


async def _good(job: Job) -> Result:
    return Result(True, "")


def test_it_listens_on_this_machine_alone() -> None:
    with contextlib.closing(server.listen(0)) as made:
        address, port = made.getsockname()
        assert address == "127.0.0.1"
        with pytest.raises(Refusal, match=rf"--port {port}: cannot listen on 127\.0\.0\.1"):
            server.listen(port)
        with contextlib.closing(socket.create_connection(("127.0.0.1", port), 1)):
            pass


def test_the_browser_gets_the_link_by_a_file_that_others_cannot_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    link = "http://127.0.0.1:1/?token=secret&x"
    path = server.open_browser(link)
    try:
        assert opened == [path.as_uri()]
        assert "secret" not in opened[0]  # arguments can be read by everybody
        assert path.stat().st_mode & 0o077 == 0
        assert "token=secret&amp;x" in path.read_text()
    finally:
        path.unlink()
