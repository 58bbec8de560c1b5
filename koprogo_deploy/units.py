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
    raise ValueError(_not_a_size(written))


def _not_a_size(written: str) -> str:
    """What is wrong with a size, and the likeliest right one: `80m` and `1.5GB` have one."""
    number = re.match(r"-?\d+([.,]\d+)?", written)
    if not number:
        return 'not a size; write a whole number and kB, MB or GB, such as "80MB"'
    amount, unit = number[0].replace(",", "."), written[number.end() :].strip()
    if amount.startswith("-"):
        return 'a size cannot be negative; write, for instance, "80MB"'
    if float(amount) == 0:
        return 'a limit of zero means "no limit" to Docker; write a size above 0'
    meant = {"k": "kB", "m": "MB", "g": "GB"}.get(unit[:1].lower(), "MB")
    right = (
        f"{amount}{meant}" if amount.isdigit() else show_size(int(float(amount) * _UNITS[meant]))
    )
    if not unit:
        return f'the unit is missing; write "{right}" (kB, MB and GB are known)'
    if unit in _UNITS:
        return f'not a whole number; write "{right}"'
    return f'unknown unit "{unit}"; write "{right}" (kB, MB and GB are known)'


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
