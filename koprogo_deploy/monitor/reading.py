"""What a sample says and what it does not. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from koprogo_deploy.runs.sample import Sample

NO_REASON = "the probe gave no reason"
# Missing for a reason that is no trouble: there was nothing to measure, or there is no such thing.
QUIET = frozenset({"first sample", "no limit", "no reads", "no writes", "no blocks were asked for"})


def reason(sample: Sample, path: str) -> str:
    """Why a value is missing: the note on it, or on what it is a part of."""
    while path:
        if path in sample.unread:
            return sample.unread[path]
        path = path.rpartition(".")[0]
    return NO_REASON


def missing(sample: Sample) -> dict[str, str]:
    """Every value that is missing, by dotted name, and why."""
    body = sample.model_dump(exclude={"unread", "at"})
    return {path: reason(sample, path) for path in _empty(body, "")}


def _empty(part: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in part.items():
        if value is None:
            yield f"{prefix}{name}"
        elif isinstance(value, Mapping):
            yield from _empty(value, f"{prefix}{name}.")


def troubles(sample: Sample) -> dict[str, str]:
    """What could not be read and should have been: the notes, without the quiet ones."""
    found = {path: why for path, why in sample.unread.items() if why not in QUIET}
    unexplained = {path: why for path, why in missing(sample).items() if why == NO_REASON}
    return found | unexplained
