"""Diffs for people: unified, and without a secret. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

HIDDEN = "(secret)"
_SHORTEST = 4  # characters; a shorter value would hide half of every file


class Mask:
    """Hides values wherever they stand in a text."""

    def __init__(self, values: Iterable[str]) -> None:
        words = sorted({v for v in values if len(v) >= _SHORTEST}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, words))) if words else None

    def __call__(self, text: str) -> str:
        """The text without them."""
        return self._pattern.sub(HIDDEN, text) if self._pattern else text


def mask(sets: Mapping[str, Mapping[str, str]]) -> Mask:
    """Hides every secret. Group data holds none: the door refuses a name that sounds like one.

    Args:
        sets: secret files by service.
    """
    return Mask(value for files in sets.values() for value in files.values())


def unified(old: str, new: str, hide: Mask) -> str:
    """Unified diff of two texts, two lines of context; empty where they are equal."""
    lines = difflib.unified_diff(
        hide(old).splitlines(), hide(new).splitlines(), "before", "after", lineterm="", n=2
    )
    found = list(lines)[2:]  # without the two names
    if not found and old != new:
        return f"a value that is not shown changes: {HIDDEN}"
    return "\n".join(found)
