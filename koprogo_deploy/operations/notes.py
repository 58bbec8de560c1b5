"""What a run's line of the journal says besides, such as the result of the smoke tests."""

from __future__ import annotations

from typing import Any

notes: dict[str, Any] = {}  # one run, one process, one host


def note(**values: Any) -> None:  # noqa: ANN401 - whatever JSON holds
    """Have the run's line say this as well."""
    notes.update(values)


def interrupted(service: str, seconds: float) -> None:
    """Have it say for how long a service's restart interrupted requests."""
    note(interrupted={**notes.get("interrupted", {}), service: round(seconds, 2)})
