"""`@step`: a pyinfra operation that says why it cannot go on, without a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, ParamSpec

from pyinfra import logger, state
from pyinfra.api import operation
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import direct
from koprogo_deploy.pyinfra_adapter import commands, connection

P = ParamSpec("P")

_WARNINGS = ("time=", "WARN", "sudo: unable to resolve")

said: list[str] = []  # why steps of this run could not go on, for the journal


def step(function: Callable[P, Iterator[Any]]) -> Callable[..., Any]:
    """Make an operation of a generator function that may raise OperationError.

    pyinfra shows an exception of an executed operation with its traceback; here it becomes a
    command that says the message and fails. While changes are only detected it stays an
    exception: nothing would execute the command, and pyinfra shows it as it should.
    """

    @operation()
    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
        yield from told(function(*args, **kwargs))

    return wrapped  # type: ignore[no-any-return]


def told(asked: Iterator[Any]) -> Iterator[Any]:
    """The commands of a step, and one that fails with the reason where it cannot go on."""
    try:
        for command in asked:
            yield commands.heard(command, _note)
    except (OperationError, *connection.LOST) as error:
        if not state.is_executing:
            raise
        words = str(error) if isinstance(error, OperationError) else connection.lost(error)
        said.append(words)
        yield commands.calling(_saying(words))


def _saying(message: str) -> Callable[[object], bool]:
    def fail(_host: object) -> bool:
        for line in message.splitlines():
            logger.error("    %s", line)
        return False

    return fail


def _note(complaints: Sequence[str]) -> None:
    if words := why_failed(complaints):
        said.append(words)


def why_failed(lines: Sequence[str]) -> str:
    """What a command's standard error says of its failure, on one line; empty for nothing. Pure.

    Ours say it first and show logs after it; warnings of Compose and sudo may come before.
    """
    told = [line for line in lines if line.strip()]
    first = (line for line in told if not line.startswith((" ", "\t", *_WARNINGS)))
    words = next(first, told[-1] if told else "").partition(". Last lines of its log")[0]
    return direct.on_one_line([words])
