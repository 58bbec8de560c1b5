"""What pyinfra prints: its echo, its colours and its log."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pyinfra import logger
from pyinfra.api import output


def print_by(style: Callable[..., str], echo: Callable[..., None], log: logging.Filter) -> None:
    """Have all that this run prints pass here.

    Args:
        style: takes what click.style does.
        echo: takes what click.echo does.
        log: sees each record of pyinfra's log; one of its class, however often it is given.
    """
    output.set_formatter(style)
    output.set_echo(echo)
    if not any(type(each) is type(log) for each in logger.filters):
        logger.addFilter(log)
