"""The ids of seeded rows: recognisable on sight, and saying which seed they come from.

RFC 9562 (https://www.rfc-editor.org/rfc/rfc9562#section-5.8) leaves the content of a version-8
UUID to its maker; KoproGo makes version-4 ones, so the two can never be mistaken for each other::

    5eed SSSS - NNNN - 8hhh - vhhh - hhhhhhhhhhhh
    |    |      |      |      74 bits of a SHA-256 of kind, number, scale and index
    |    |      |      version 8 (v: the variant, 8 to b)
    |    |      number, hexadecimal
    |    scale, hexadecimal
    "seed"

No date goes in, so a later run finds the same rows; and since number and scale can be read back,
a refusal can say which seed is in the way.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, Literal
from uuid import UUID

Kind = Literal["organization", "user", "building", "unit", "owner", "expense"]

MAX_NUMBER: Final = 0xFFFF
MAX_SCALE: Final = 1000

SEED_ID_PATTERN: Final = "^5eed[0-9a-f]{4}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab]"
"""What the text of a seeded id begins with; a regular expression for Postgres and for Python."""

_SEED_ID = re.compile(SEED_ID_PATTERN)


class SeedError(ValueError):
    """An argument or an answer that the seed cannot work with; the message says what is right."""


def check_number_and_scale(number: int, scale: int) -> None:
    """Refuse a number or a scale that an id has no room for.

    Args:
        number: which data set, 0 to 65535.
        scale: how many times the basic three organisations, 1 to 1000.

    Raises:
        SeedError: one of them is out of range.
    """
    if not 0 <= number <= MAX_NUMBER:
        raise SeedError(f"the seed's number is 0 to {MAX_NUMBER}, not {number}")
    if not 1 <= scale <= MAX_SCALE:
        raise SeedError(f"the seed's scale is 1 to {MAX_SCALE}, not {scale}")


def seed_uuid(kind: Kind, number: int, scale: int, index: int) -> UUID:
    """The id of the `index`-th seeded row of a kind.

    Args:
        kind: the kind of row.
        number: which data set, 0 to 65535.
        scale: its size, 1 to 1000.
        index: position among the rows of that kind, from 0.

    Returns:
        A version-8 UUID beginning with ``5eed``, the same on every machine and every day.

    Raises:
        SeedError: number or scale is out of range.
    """
    check_number_and_scale(number, scale)
    digest = hashlib.sha256(f"koprogo-seed/{kind}/{number}/{scale}/{index}".encode()).digest()
    octets = bytearray(
        b"\x5e\xed" + scale.to_bytes(2, "big") + number.to_bytes(2, "big") + digest[:10]
    )
    octets[6] = 0x80 | (octets[6] & 0x0F)
    octets[8] = 0x80 | (octets[8] & 0x3F)
    return UUID(bytes=bytes(octets))


def is_seeded(identifier: UUID | str) -> bool:
    """Whether an id was made by `seed_uuid`; text that is no UUID is simply not seeded."""
    try:
        return _SEED_ID.match(str(UUID(str(identifier)))) is not None
    except ValueError:
        return False


def seed_identity(identifier: UUID | str) -> tuple[int, int]:
    """Read number and scale back from a seeded id.

    Returns:
        ``(number, scale)``.

    Raises:
        SeedError: the id is not a seeded one.
    """
    if not is_seeded(identifier):
        raise SeedError(f"{identifier} is not the id of a seeded row")
    octets = UUID(str(identifier)).bytes
    return int.from_bytes(octets[4:6], "big"), int.from_bytes(octets[2:4], "big")


def fingerprint(number: int, scale: int) -> str:
    """What the ids of one data set begin with, such as ``5eed0001-002a-8`` for number 42, scale 1.

    Raises:
        SeedError: number or scale is out of range.
    """
    return str(seed_uuid("organization", number, scale, 0))[:15]
