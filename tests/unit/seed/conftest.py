"""One seed, made once, for every test that only looks at it."""

from __future__ import annotations

import datetime

import pytest

from koprogo_deploy.seed import Dataset, generate

HASH = "$2b$12$" + "a" * 53
TODAY = datetime.date(2025, 11, 24)


@pytest.fixture(scope="session")
def today() -> datetime.date:
    return TODAY


@pytest.fixture(scope="session")
def bcrypt_hash() -> str:
    return HASH


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return generate(42, 1, HASH, TODAY)


@pytest.fixture(scope="session")
def tenfold() -> Dataset:
    return generate(42, 10, HASH, TODAY)
