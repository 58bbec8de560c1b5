"""`@step`: a pyinfra operation that says why it cannot go on, without a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ParamSpec

from pyinfra import logger, state
from pyinfra.api import FunctionCommand, operation
from pyinfra.api.exceptions import OperationError

P = ParamSpec("P")

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
            yield from function(*args, **kwargs)
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
