"""The monitor behind the page: what is old is never called live."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from koprogo_deploy.dashboard import watch
from koprogo_deploy.dashboard.watch import Seen, Watch
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.runs.sample import Sample
from tests.unit.dashboard.conftest import FakeMonitor


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PULSE", "FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(watch, name, 0.01)


def until(so: Callable[[], object], within: float = 3.0) -> None:
    deadline = time.monotonic() + within
    while not so():
        assert time.monotonic() < deadline, "never"
        time.sleep(0.005)


def samples(*at: float) -> list[Sample]:
    return [Sample(at=value) for value in at]


@contextlib.contextmanager
def running(
    opened: Callable[[], contextlib.AbstractContextManager[FakeMonitor]],
) -> Iterator[Watch]:
    made = Watch(opened)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def test_each_reader_gets_what_is_new_to_it() -> None:
    monitor = FakeMonitor(samples(1, 2))
    with running(lambda: contextlib.nullcontext(monitor)) as made:
        until(lambda: made.seen().count == 2)
        assert [sample.at for sample in made.since(0)] == [1, 2]
        assert [sample.at for sample in made.since(1)] == [2]
        assert made.since(2) == []
        monitor.samples.append(Sample(at=3))
        until(lambda: made.seen().count == 3)
        assert [sample.at for sample in made.since(2)] == [3]
        assert made.seen().live


def test_no_more_than_five_minutes_are_kept() -> None:
    monitor = FakeMonitor(samples(*range(400)))
    with running(lambda: contextlib.nullcontext(monitor)) as made:
        until(lambda: made.seen().count == 400)
        assert [sample.at for sample in made.since(0)] == list(range(100, 400))


def test_old_values_are_not_live() -> None:
    assert Seen(5, 1.0, "").live
    assert not Seen(5, 12.0, "").live
    assert not Seen(0, None, "connecting").live


def test_a_lost_monitor_is_said_and_opened_again() -> None:
    given = [
        FakeMonitor(samples(1), problem="SSH ended", running=False),
        FakeMonitor(samples(7)),
    ]
    told: list[int] = []

    @contextlib.contextmanager
    def opened() -> Iterator[FakeMonitor]:
        if told:
            assert made.seen().problem == "SSH ended"
        told.append(1)
        yield given.pop(0)

    with running(opened) as made:
        until(lambda: made.seen().count == 2)
        assert [sample.at for sample in made.since(0)] == [1, 7]
        until(lambda: made.seen().problem == "")


def test_a_host_that_cannot_be_reached_is_tried_again_and_named() -> None:
    tried = []

    def opened() -> contextlib.AbstractContextManager[FakeMonitor]:
        tried.append(1)
        raise Refusal("Host vps", [Problem("ssh", "no route to host")])

    with running(opened) as made:
        until(lambda: len(tried) > 2)
        assert made.seen() == Seen(0, None, "Host vps: no route to host")


def test_a_fault_in_the_monitor_does_not_end_the_watch() -> None:
    def opened() -> contextlib.AbstractContextManager[FakeMonitor]:
        raise ValueError("boom")

    with running(opened) as made:
        until(lambda: made.seen().problem == "ValueError: boom")


def test_the_end_ends_the_monitor_too() -> None:
    ended = threading.Event()

    @contextlib.contextmanager
    def opened() -> Iterator[FakeMonitor]:
        try:
            yield FakeMonitor(samples(1))
        finally:
            ended.set()

    with running(opened) as made:
        until(lambda: made.seen().count == 1)
    assert ended.is_set()


def test_a_long_day_does_not_keep_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RENEW", 10)
    opened = []

    def fresh() -> contextlib.AbstractContextManager[FakeMonitor]:
        opened.append(1)
        return contextlib.nullcontext(FakeMonitor(samples(*range(10))))

    with running(fresh):
        until(lambda: len(opened) >= 3)
