"""Commands of an operation: their text, their failure heard, and functions in their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pyinfra.api import FunctionCommand, StringCommand

Complain = Callable[[Sequence[str]], None]


def text(command: str | StringCommand) -> str:
    """A command as the shell takes it, secrets in clear."""
    return command if isinstance(command, str) else str(command.get_raw_value())


def calling(function: Callable[[Any], bool]) -> FunctionCommand:
    """A command that calls a function with the host; the step fails where that gives False."""

    # pyinfra passes these two, recognises them by name, and takes False for a failure.
    def call(state: object, host: Any) -> bool:  # noqa: ANN401 - pyinfra's own type
        return function(host)

    return FunctionCommand(call, [], {})


class _Heard(StringCommand):
    """A shell command whose standard error is told if it fails."""

    complain: Complain

    def execute(self, *args: Any, **kwargs: Any) -> tuple[bool, Any]:  # noqa: ANN401
        """As pyinfra does it."""
        ok, output = super().execute(*args, **kwargs)
        if not ok:
            self.complain(output.stderr_lines)
        return ok, output


def heard(command: Any, complain: Complain) -> Any:  # noqa: ANN401 - whatever pyinfra takes
    """The same command; if it is of the shell and fails, `complain` gets its standard error."""
    if isinstance(command, str):
        made = _Heard(command.strip())
    elif type(command) is StringCommand:
        how = command.connector_arguments
        made = _Heard(*command.bits, _separator=command.separator, **how)
    else:
        return command
    made.complain = complain
    return made
