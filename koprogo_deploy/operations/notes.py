"""What a run's line of the journal says besides, such as the result of the smoke tests."""

from __future__ import annotations

from typing import Any

from koprogo_deploy import database
from koprogo_deploy.facts.stack import StackState

notes: dict[str, Any] = {}  # one run, one process, one host


def note(**values: Any) -> None:  # noqa: ANN401 - whatever JSON holds
    """Have the run's line say this as well."""
    notes.update(values)


def interrupted(service: str, seconds: float) -> None:
    """Have it say for how long a service's restart interrupted requests."""
    note(interrupted={**notes.get("interrupted", {}), service: round(seconds, 2)})


def about(manifest: dict[str, Any] | None, found: StackState) -> dict[str, Any]:
    """What a line says of the release that a run worked on; nothing where there is none."""
    if manifest is None:
        return {}
    versions = database.versions(found.migrations.get(manifest["id"], []))
    return {
        "release": manifest["id"],
        "images": manifest["images"],
        "settings": manifest["settings"],
        "migrations": {"head": max(versions), "count": len(versions)} if versions else None,
    }
