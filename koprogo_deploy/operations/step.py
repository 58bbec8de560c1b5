"""`@step`: a pyinfra operation that says why it cannot go on, without a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, ParamSpec

from pyinfra import logger, state
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import direct

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
        try:
            for command in function(*args, **kwargs):
                yield _heard(command)
        except OperationError as error:
            if not state.is_executing:
                raise
            said.append(str(error))
            yield FunctionCommand(_saying(str(error)), [], {})

    return wrapped  # type: ignore[no-any-return]


def _saying(message: str) -> Callable[[object, object], bool]:
    # pyinfra passes these two, recognises them by name, and takes False for a failure.
    def fail(state: object, host: object) -> bool:
        for line in message.splitlines():
            logger.error("    %s", line)
        return False

    return fail


class _Heard(StringCommand):
    """A shell command that, if it fails, has said why the step could not go on."""

    def execute(self, *args: Any, **kwargs: Any) -> tuple[bool, Any]:  # noqa: ANN401
        """As pyinfra does it."""
        ok, output = super().execute(*args, **kwargs)
        if not ok and (words := why_failed(output.stderr_lines)):
            said.append(words)
        return ok, output


def _heard(command: Any) -> Any:  # noqa: ANN401 - whatever pyinfra takes
    if isinstance(command, str):
        return _Heard(command.strip())
    if type(command) is StringCommand:
        how = command.connector_arguments
        return _Heard(*command.bits, _separator=command.separator, **how)
    return command


def why_failed(lines: Sequence[str]) -> str:
    """What a command's standard error says of its failure, on one line; empty for nothing. Pure.

    Ours say it first and show logs after it; warnings of Compose and sudo may come before.
    """
    told = [line for line in lines if line.strip()]
    first = (line for line in told if not line.startswith((" ", "\t", *_WARNINGS)))
    words = next(first, told[-1] if told else "").partition(". Last lines of its log")[0]
    return direct.on_one_line([words])
