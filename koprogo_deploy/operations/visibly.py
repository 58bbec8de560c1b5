"""What a pyinfra run prints: its own colours, and no control character of anybody else."""

from __future__ import annotations

import logging
from typing import Any

import click

from koprogo_deploy.pyinfra_adapter.output import print_by
from koprogo_deploy.visible import beside_colours, visible


class Visible(logging.Filter):
    """Makes a log record's text visible; in its arguments not even colours are ours."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Every record passes."""
        if isinstance(record.msg, str):
            record.msg = beside_colours(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(_shown(value) for value in record.args)
        return True


def _shown(value: object) -> object:
    if value is None or isinstance(value, (int, float)):
        return value
    return visible(str(value), lines=True)


def show_visibly() -> None:
    """Have all that this run prints pass here: pyinfra's echo, its colours and its log."""
    print_by(_style, _echo, Visible())


def _style(text: object, *args: Any, **kwargs: Any) -> str:  # noqa: ANN401 - click's own
    return click.style(beside_colours(str(text)), *args, **kwargs)


def _echo(message: object = None, **kwargs: Any) -> None:  # noqa: ANN401 - click's own
    click.echo(beside_colours(message) if isinstance(message, str) else message, **kwargs)
