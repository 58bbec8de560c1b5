"""The monitor, kept running for the dashboard: its last minutes, and whether it is still live."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from koprogo_deploy.problems import Refusal
from koprogo_deploy.runs.sample import Sample

KEPT = 300  # samples: five minutes
# Older than this, a value is not shown as live.
STALE = 5.0
PULSE = 0.2
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 15.0
# A monitor keeps all it saw; a fresh one now and then keeps a long day's dashboard small.
RENEW = 1800


class Monitor(Protocol):
    """What the dashboard needs of `koprogo_deploy.monitor.Monitor`."""

    @property
    def samples(self) -> Sequence[Sample]:
        """All so far."""

    @property
    def problem(self) -> str:
        """Why there are none or not all."""

    @property
    def running(self) -> bool:
        """Whether samples may still come."""


@dataclass(frozen=True)
class Seen:
    """The state of the watch.

    Attributes:
        count: samples since the dashboard began; a reader asks for those after its own count.
        age: seconds since the last one, None before the first.
        problem: why none come, empty if all is well.
    """

    count: int
    age: float | None
    problem: str

    @property
    def live(self) -> bool:
        """Whether the last sample is of now."""
        return self.age is not None and self.age <= STALE


class Watch:
    """Runs a monitor in a thread and opens it again when it is lost."""

    def __init__(self, open_monitor: Callable[[], AbstractContextManager[Monitor]]) -> None:
        self._open = open_monitor
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._kept: deque[Sample] = deque(maxlen=KEPT)
        self._count = 0
        self._last: float | None = None
        self._problem = "connecting"
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin; the first sample comes when the host was reached."""
        self._thread.start()

    def stop(self) -> None:
        """End the monitor and wait until it is gone."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(20)

    def seen(self) -> Seen:
        """How it stands now."""
        with self._lock:
            age = None if self._last is None else time.monotonic() - self._last
            return Seen(self._count, age, self._problem)

    def since(self, count: int) -> list[Sample]:
        """The samples after the first `count`, as far as they are kept."""
        with self._lock:
            new = min(self._count - count, len(self._kept))
            return list(self._kept)[len(self._kept) - new :] if new > 0 else []

    @property
    def latest(self) -> Sample | None:
        """The last sample."""
        with self._lock:
            return self._kept[-1] if self._kept else None

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            before = self._count
            try:
                with self._open() as monitor:
                    self._follow(monitor)
            except Refusal as refusal:
                first = refusal.problems[0]
                self._tell(f"{refusal.subject}: {first.what}")
            except Exception as error:  # whatever it is, the page says so and it is tried again
                self._tell(f"{type(error).__name__}: {error}")
            pause = FIRST_PAUSE if self._count > before else min(2 * pause, LONGEST_PAUSE)
            self._stop.wait(pause)

    def _follow(self, monitor: Monitor) -> None:
        taken, running = 0, True
        while running and taken < RENEW:
            running = monitor.running and not self._stop.wait(PULSE)
            new = monitor.samples[taken:]
            taken += len(new)
            self._take(new, monitor.problem)

    def _take(self, new: Sequence[Sample], problem: str) -> None:
        with self._lock:
            if new:
                self._kept.extend(new)
                self._count += len(new)
                self._last = time.monotonic()
            if new or problem:  # it is connected, or says why it is not
                self._problem = problem

    def _tell(self, problem: str) -> None:
        with self._lock:
            self._problem = problem
