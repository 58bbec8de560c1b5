"""What the commands share: the environments, and where they print to."""

from __future__ import annotations

import enum
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koprogo_deploy import door
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.screen import Screen, complain

if TYPE_CHECKING:
    from koprogo_deploy.runs.model import Run

# Piped output is as wide as a wide terminal: a table in a log stays readable.
out = Screen(width=None if sys.stdout.isatty() else 120)


class Where(enum.StrEnum):
    """The environments there are."""

    production = "production"
    staging = "staging"
    sandbox = "sandbox"


Environment = Annotated[Where, typer.Argument(help="whose inventory and group data to use")]
EnvironmentOption = Annotated[
    Where, typer.Option("--env", "-e", help="whose inventory and group data to use")
]
Json = Annotated[bool, typer.Option("--json", help="for machines")]
DataOption = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="NAME=VALUE", help="another value of a setting"),
]

# Of the commands that load a site.
LoginOption = Annotated[
    list[str] | None,
    typer.Option(
        "--login",
        metavar="E-MAIL",
        help="who asks, in place of the seeded logins; password in KOPROGO_LOAD_PASSWORD",
    ),
]
SecondsOption = Annotated[
    str,
    typer.Option("--seconds", metavar="TIME", help="length of a phase after the warm-up: 90, 3min"),
]


def length_of(seconds: str, subject: str) -> int | None:
    """Seconds of a `SecondsOption`; None if it was not given.

    Raises:
        Refusal: about `subject`; it is no duration.
    """
    from koprogo_deploy.load.plan import parse_seconds

    try:
        return parse_seconds(seconds) if seconds else None
    except ValueError as error:
        what, _, fix = str(error).partition("; ")
        raise Refusal(subject, [Problem("--seconds", what, fix)]) from None


def shown(path: Path) -> str:
    """A file as people find it: from the project's root, if it is below."""
    return str(path.relative_to(door.ROOT) if path.is_relative_to(door.ROOT) else path)


def stop_as_by_ctrl_c() -> None:
    """Let SIGTERM, as of a pipeline or `timeout`, end a run as Ctrl-C does: cleaned up."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def write_down(opened: door.Environment, run: Run) -> None:
    """Give the host's journal the gate's line; the verdict stands whether it could or not."""
    from koprogo_deploy import gate, remote

    line = gate.line(run)
    if line is None:
        return
    try:
        remote.write_down(opened, "gate", **line)
    except Refusal as refusal:
        why = refusal.problems[0].what
        complain(f"\nThe host's journal has no line of this gate: {why}")
