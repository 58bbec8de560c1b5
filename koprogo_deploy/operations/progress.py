"""Elapsed time beside pyinfra's own output: how long each step took, and the run so far."""

from __future__ import annotations

import time
from typing import Any

from pyinfra import logger, state
from pyinfra.api.state import BaseStateCallback

_WORTH_SAYING = 1.0  # seconds


class Progress(BaseStateCallback):
    """Says after each step how long it took, if that was worth a line."""

    began = time.monotonic()
    started: dict[str, float] = {}  # noqa: RUF012 - one run, one process

    @staticmethod
    def operation_start(state: Any, op_hash: str) -> None:  # noqa: ANN401 - pyinfra's own type
        """Note when a step began."""
        Progress.started[op_hash] = time.monotonic()

    @staticmethod
    def operation_host_error(
        state: Any,  # noqa: ANN401 - pyinfra's own type
        host: object,
        op_hash: str,
        retry_count: int = 0,
        max_retries: int = 0,
    ) -> None:
        """Say where the run stopped, and that it can go on from there."""
        name = ", ".join(state.get_op_meta(op_hash).names)
        logger.error("")
        logger.error("Stopped at: %s. The reason is above; once mended, run it again:", name)
        logger.error("it goes on from here.")

    @staticmethod
    def operation_end(state: Any, op_hash: str) -> None:  # noqa: ANN401 - pyinfra's own type
        """Say how long a step took."""
        now = time.monotonic()
        took = now - Progress.started.get(op_hash, now)
        if took >= _WORTH_SAYING:
            logger.info("    %.1f s (%.0f s since the start)", took, now - Progress.began)


def show_progress() -> None:
    """Have the run say elapsed times; once, however many hosts there are."""
    if not any(isinstance(handler, Progress) for handler in state.callback_handlers):
        state.add_callback_handler(Progress())
