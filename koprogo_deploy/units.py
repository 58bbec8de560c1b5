"""Sizes in bytes, written and read as people and Docker write them.

As in Docker and Postgres, ``kB``, ``MB`` and ``GB`` are powers of 1024: Traefik's
``80MB`` is the ``80m`` of ``docker run``, 83 886 080 bytes.
"""

from __future__ import annotations

import re

KB = 1024
MB = 1024 * KB
GB = 1024 * MB

_UNITS = {"kB": KB, "MB": MB, "GB": GB}
_SIZE = re.compile(r"(\d+)\s*(kB|MB|GB)")


def parse_size(text: object) -> int:
    """Read a size such as ``80MB``.

    Args:
        text: a whole number and one of ``kB``, ``MB``, ``GB``.

    Returns:
        The size in bytes, always positive.

    Raises:
        ValueError: no unit, an unknown unit, not a whole number, or not positive; the message
            says what to write instead.
    """
    if isinstance(text, bool) or not isinstance(text, (str, int)):
        raise ValueError(f'a size is text such as "80MB", not {text!r}')
    written = str(text).strip()
    match = _SIZE.fullmatch(written)
    if match:
        size = int(match[1]) * _UNITS[match[2]]
        if size == 0:
            raise ValueError('a limit of zero means "no limit" to Docker; write a size above 0')
        return size
    number = re.match(r"-?\d+", written)
    if not number:
        raise ValueError('not a size; write a whole number and kB, MB or GB, such as "80MB"')
    if number[0].startswith("-"):
        raise ValueError('a size cannot be negative; write, for instance, "80MB"')
    if written == number[0]:
        raise ValueError(f'the unit is missing; write "{number[0]}MB" (or kB, GB)')
    raise ValueError(f'unknown unit; write "{number[0]}MB" (kB, MB and GB are known)')


def show_size(size: int) -> str:
    """Write a size in bytes as ``parse_size`` reads it, in the largest unit that keeps it whole.

    Args:
        size: bytes; rounded down to whole kB.

    Returns:
        Text such as ``80MB``.
    """
    for name, unit in (("GB", GB), ("MB", MB)):
        if size >= unit and size % unit == 0:
            return f"{size // unit}{name}"
    return f"{size // KB}kB"


def megabytes(size: int) -> str:
    """Write a size in bytes as rounded megabytes, for tables: ``1 848 MB``."""
    return f"{round(size / MB):,} MB".replace(",", " ")
