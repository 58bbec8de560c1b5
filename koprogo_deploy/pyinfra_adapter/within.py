"""A limit in time for what waits for the host: pyinfra's greenlets know no other one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gevent


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """End what is in the block after so many seconds.

    Raises:
        TimeoutError: it was not done by then.
    """
    with gevent.Timeout(seconds, exception=TimeoutError):
        yield
