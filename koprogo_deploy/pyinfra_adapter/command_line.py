"""The pyinfra command line that is being run. Importing this has gevent patch nothing."""

from __future__ import annotations

import contextlib
import json
import logging
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


class _Explanation(logging.Filter):
    def __init__(self, words: str, explained: str) -> None:
        super().__init__()
        self.words, self.explained = words, explained

    def filter(self, record: logging.LogRecord) -> bool:
        if self.words in (said := record.getMessage()):
            record.msg, record.args = f"{said}\n{self.explained}", ()
        return True


def explain(words: str, explained: str, logger: logging.Logger | None = None) -> None:
    """Have pyinfra's log say more after a line of its own; once, however often it is asked.

    Args:
        words: what the line holds.
        explained: what comes after it.
        logger: whose log; None: pyinfra's.
    """
    import pyinfra

    told = logger or pyinfra.logger
    if not any(isinstance(f, _Explanation) and f.words == words for f in told.filters):
        told.addFilter(_Explanation(words, explained))


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
