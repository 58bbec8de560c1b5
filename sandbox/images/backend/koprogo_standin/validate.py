"""The checks after deserialising, answered `Validation failed`."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from koprogo_standin.errors import JsonError

# The HTML5 rule, like the validator there: no dot is demanded of the domain.
EMAIL = re.compile(
    r"[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@"
    r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*"
)

Check = tuple[str, Callable[[Any], bool]]


def length(least: int) -> Check:
    return "length", lambda value: len(value) >= least


def at_least(least: float) -> Check:
    return "range", lambda value: value >= least


def between(least: float, most: float) -> Check:
    return "range", lambda value: least <= value <= most


def email() -> Check:
    return "email", lambda value: EMAIL.fullmatch(value) is not None


def validate(values: dict[str, Any], rules: Mapping[str, Check]) -> None:
    broken = [
        f"{name}: Validation error: {kind}"
        for name, (kind, holds) in rules.items()
        if not holds(values[name])
    ]
    if broken:
        raise JsonError(400, "Validation failed", "\n".join(broken))
