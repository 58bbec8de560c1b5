"""An alarm that rings on time: event loops wake up to a millisecond late, and a request that is
sent a millisecond late is measured a millisecond too slow.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time

_MONOTONIC = 1
_ABSOLUTE = 1
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_NANO = 1_000_000_000


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Alarm:
    """Wakes one task at a moment of `time.monotonic`, to some 50 microseconds.

    Linux' timerfd, which Python has from 3.13 on; where there is none, the loop's own timers.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None
        self._fd = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_MONOTONIC, _FLAGS)
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._ring)

    async def until(self, moment: float) -> None:
        """Return at a moment of `time.monotonic`; at once if it has passed.

        Even then the loop has had a turn: who is behind does not starve the others.
        """
        left = moment - time.monotonic()
        if left <= 0:
            await asyncio.sleep(0)
        elif self._fd < 0:
            await asyncio.sleep(left)
        else:
            whole, part = divmod(int(moment * _NANO), _NANO)
            setting = _Setting(_Timespec(0, 0), _Timespec(whole, part))
            self._waiting = self._loop.create_future()
            self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(setting), None)
            await self._waiting

    def _ring(self) -> None:
        os.read(self._fd, 8)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def close(self) -> None:
        """Give the timer back."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
