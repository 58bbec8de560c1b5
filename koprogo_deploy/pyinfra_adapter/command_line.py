"""The pyinfra command line that is being run. Importing this has gevent patch nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any


def parameters() -> Mapping[str, Any] | None:
    """What pyinfra was asked for, by the names of its options; None if this is no run of it."""
    import click

    context = click.get_current_context(silent=True)
    return None if context is None else context.params


def no_traceback_of_failed_hosts() -> None:
    """Have gevent print no traceback of pyinfra's errors, which pyinfra says itself, in words."""
    from gevent import get_hub
    from pyinfra.api.exceptions import PyinfraError

    hub = get_hub()
    hub.NOT_ERROR = (*hub.NOT_ERROR, PyinfraError)


def value(text: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """A value of `--data`, read as pyinfra reads it."""
    # pyinfra_cli.util.parse_cli_arg, but importing that has gevent patch sockets and threads of
    # this process, and a load test that runs in it hangs.
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for read in (int, json.loads):
        with contextlib.suppress(ValueError):
            return read(text)
    return text
