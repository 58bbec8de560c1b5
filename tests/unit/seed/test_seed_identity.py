"""The ids: what a seeded one looks like, and that nothing else looks like it."""

from __future__ import annotations

import re
import uuid

import pytest

from koprogo_deploy.seed import SeedError, fingerprint, is_seeded, seed_identity, seed_uuid
from koprogo_deploy.seed.identity import SEED_ID_PATTERN


def test_a_seeded_id_is_a_version_8_uuid_that_begins_with_seed() -> None:
    identifier = seed_uuid("unit", 42, 1, 7)
    assert identifier.version == 8
    assert identifier.variant == uuid.RFC_4122
    assert str(identifier).startswith("5eed0001-002a-8")
    assert is_seeded(identifier) and is_seeded(str(identifier))
    assert re.match(SEED_ID_PATTERN, str(identifier))


def test_it_never_changes() -> None:
    """Rows in the field carry these: another value here would orphan them."""
    assert str(seed_uuid("organization", 42, 1, 0)) == "5eed0001-002a-8a22-9649-4dbc9e5520d0"


def test_each_part_of_the_key_makes_another_id() -> None:
    ids = {
        seed_uuid("unit", 1, 1, 0),
        seed_uuid("owner", 1, 1, 0),
        seed_uuid("unit", 2, 1, 0),
        seed_uuid("unit", 1, 2, 0),
        seed_uuid("unit", 1, 1, 1),
    }
    assert len(ids) == 5


def test_number_and_scale_can_be_read_back() -> None:
    for number, scale in ((0, 1), (42, 1), (65535, 1000)):
        identifier = seed_uuid("organization", number, scale, 3)
        assert seed_identity(identifier) == (number, scale)
        assert str(identifier).startswith(fingerprint(number, scale))


@pytest.mark.parametrize(
    "identifier",
    [
        "00000000-0000-0000-0000-000000000001",
        "5eed0001-002a-4a22-9649-4dbc9e5520d0",
        "5eed0001-002a-8a22-1649-4dbc9e5520d0",
        "6eed0001-002a-8a22-9649-4dbc9e5520d0",
        "5eed",
        "",
        "'; DROP TABLE units; --",
    ],
)
def test_what_is_not_seeded(identifier: str) -> None:
    assert not is_seeded(identifier)
    with pytest.raises(SeedError):
        seed_identity(identifier)


def test_no_id_of_the_application_is_seeded() -> None:
    assert not any(is_seeded(uuid.uuid4()) for _ in range(1000))


def test_out_of_range() -> None:
    with pytest.raises(SeedError, match="65535"):
        seed_uuid("unit", 65536, 1, 0)
    with pytest.raises(SeedError, match="1000"):
        seed_uuid("unit", 1, 1001, 0)
