"""What holds for every test: an interrupt works as it does in a terminal."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    # A shell starts what it puts into the background with SIGINT ignored, and whatever is started
    # from there inherits that: programs that a test interrupts would not notice.
    signal.signal(signal.SIGINT, signal.default_int_handler)
