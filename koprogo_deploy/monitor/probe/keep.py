"""What is kept from one look to the next: open files and counters; and why a value is missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TypeVar

from koprogo_deploy.monitor.probe.parse import UnreadError

T = TypeVar("T")

FIRST = "first sample"


class File:
    """A file that stays open and is read again from its beginning."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.descriptor = -1

    def read(self) -> bytes:
        """Its content now.

        Raises:
            UnreadError: it is not there, or not any more.
        """
        try:
            if self.descriptor < 0:
                self.descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(self.descriptor, 65536, 0)
        except OSError as error:
            self.close()
            raise UnreadError(f"{self.path}: {error.strerror}") from None

    def close(self) -> None:
        """Close it; the next read opens it again."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Rates:
    """Counters of the last look; gives what they grew by a second since."""

    def __init__(self) -> None:
        self.last: dict[str, tuple[float, float]] = {}

    def growth(self, name: str, value: float, at: float) -> tuple[float, float]:
        """How much a counter grew, and in how many seconds.

        Args:
            name: of the counter.
            value: now.
            at: when it was read, in seconds of the monotonic clock.

        Raises:
            UnreadError: this is the first look at it, or it began anew.
        """
        grown, seconds = self.growths({name: value}, at)
        return grown[name], seconds

    def growths(self, counters: Mapping[str, float], at: float) -> tuple[dict[str, float], float]:
        """The same for counters that are read together."""
        before = {name: self.last.get(name) for name in counters}
        for name, value in counters.items():  # all, before the first complaint
            self.last[name] = (value, at)
        grown = {}
        seconds = 0.0
        for name, value in counters.items():
            last = before[name]
            if last is None:
                raise UnreadError(FIRST)
            if value < last[0]:
                raise UnreadError("the counter began anew")
            if at <= last[1]:
                raise UnreadError("read twice at one time")
            grown[name], seconds = value - last[0], at - last[1]
        return grown, seconds

    def second(self, name: str, value: float, at: float) -> float:
        """Growth a second; errors as `growth`."""
        grown, seconds = self.growth(name, value, at)
        return grown / seconds

    def forget(self, prefix: str) -> None:
        """Counters of something that is gone."""
        for name in [name for name in self.last if name.startswith(prefix)]:
            del self.last[name]


class Sheet:
    """One sample in the making: takes values, and notes why one is missing."""

    def __init__(self) -> None:
        self.unread: dict[str, str] = {}

    def take(self, path: str, read: Callable[[], T]) -> T | None:
        """What `read` gives; None with a reason where it cannot."""
        try:
            return read()
        except UnreadError as reason:
            self.unread[path] = str(reason)
        except OSError as error:
            self.unread[path] = error.strerror or str(error)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            self.unread[path] = f"not understood: {type(error).__name__}: {error}"
        return None
