"""Elapsed time beside pyinfra's own output: how long each step took, and the run so far."""

from __future__ import annotations

import time

from pyinfra import logger

from koprogo_deploy.pyinfra_adapter import events

_WORTH_SAYING = 1.0  # seconds


class Progress(events.Listener):
    """Says after each step how long it took, if that was worth a line."""

    began = time.monotonic()
    started: dict[str, float] = {}  # noqa: RUF012 - one run, one process

    def step_began(self, step: events.Step) -> None:
        """Note when a step began."""
        Progress.started[step.key] = time.monotonic()

    def step_failed(self, step: events.Step, host: object) -> None:
        """Say where the run stopped, and that it can go on from there."""
        logger.error("")
        logger.error("Stopped at: %s. The reason is above; once mended, run it again:", step.name)
        logger.error("it goes on from here.")

    def step_ended(self, step: events.Step) -> None:
        """Say how long a step took."""
        now = time.monotonic()
        took = now - Progress.started.get(step.key, now)
        if took >= _WORTH_SAYING:
            logger.info("    %.1f s (%.0f s since the start)", took, now - Progress.began)


def show_progress() -> None:
    """Have the run say elapsed times; once, however many hosts there are."""
    events.listen(Progress())
