"""Programs that run on the host, of the standard library alone; they are sent when needed.

Each gets one JSON object on standard input, which is where secrets travel, and prints one.
"""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path


@cache
def source(name: str) -> str:
    """Text of one of the programs, such as `ask`."""
    return (Path(__file__).parent / f"{name}.py").read_text("utf-8")


def command(name: str) -> str:
    """Shell command that runs one of them as root."""
    return f"sudo -n python3 -c {shlex.quote(source(name))}"
