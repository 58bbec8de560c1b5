"""Postgres settings: each computed with its reason, each to be overridden, none unsafe."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some

from koprogo_deploy import tuning
from koprogo_deploy.settings import Settings
from koprogo_deploy.units import GB, MB, parse_size
from tests import project

SIZES = ("shared_buffers", "effective_cache_size", "work_mem", "maintenance_work_mem")


def tuned(settings: Settings) -> dict[str, str]:
    return {setting.name: setting.value for setting in tuning.tune(settings)}


def refused(**changes: Any) -> list[tuple[str, str]]:
    with pytest.raises(tuning.Unsafe) as error:
        tuning.tune(project.settings(**changes))
    return error.value.problems


def test_the_container_of_512_mb_gets_what_was_measured_to_be_right() -> None:
    values = tuned(project.settings())
    assert values["shared_buffers"] == "192MB"
    assert values["maintenance_work_mem"] == "48MB"
    assert values["autovacuum_work_mem"] == "24MB"
    assert values["effective_cache_size"] == "768MB"
    assert values["max_connections"] == "25"
    assert values["max_wal_size"] == "1GB"
    assert values["max_parallel_workers"] == "0"


def test_every_setting_has_its_reason() -> None:
    assert all(setting.reason for setting in tuning.tune(project.settings()))


def test_max_connections_follows_from_the_pools() -> None:
    assert tuned(project.settings(pool_max_connections=10))["max_connections"] == "29"


BIGGER: dict[str, Any] = {
    "vps_vcpus": 4,
    "vps_memory": "8GB",
    "vps_disk": "160GB",
    "vps_disk_kind": "nvme",
    "postgres_memory": "4GB",
}


def test_a_bigger_vps_gives_bigger_numbers_that_still_fit() -> None:
    small, settings = tuned(project.settings()), project.settings(**BIGGER)
    big = tuned(settings)
    for name in (*SIZES, "max_wal_size"):
        assert parse_size(big[name]) > parse_size(small[name]), name
    assert big["shared_buffers"] == "1536MB"
    assert big["max_parallel_workers"] == "3"
    assert big["effective_io_concurrency"] == "500"
    assert tuning.worst_case(settings, big) <= settings.postgres_memory


def test_a_slow_disk_is_told_as_one() -> None:
    values = tuned(project.settings(vps_disk_kind="hdd"))
    assert (values["random_page_cost"], values["effective_io_concurrency"]) == ("4", "2")


BASE = project.settings()


@hypothesis_settings(max_examples=300)
@given(
    limit=some.integers(min_value=128, max_value=64 * 1024),
    vcpus=some.integers(min_value=1, max_value=32),
    pool=some.integers(min_value=1, max_value=200),
)
def test_what_is_computed_is_proven_or_refused(limit: int, vcpus: int, pool: int) -> None:
    """On no machine is a configuration written that the container would not survive."""
    settings = BASE.model_copy(
        update={
            "postgres_memory": limit * MB,
            "vps_memory": 4 * limit * MB,
            "vps_vcpus": vcpus,
            "pool_max_connections": pool,
        }
    )
    try:
        values = tuned(settings)
    except tuning.Unsafe as unsafe:
        assert [field for field, _ in unsafe.problems] == ["postgres_memory"]
        return
    assert tuning.worst_case(settings, values) <= settings.postgres_memory
    assert parse_size(values["shared_buffers"]) <= 0.55 * settings.postgres_memory
    assert parse_size(values["work_mem"]) >= 4 * MB


def test_an_override_wins_and_says_that_it_is_one() -> None:
    settings = project.settings(postgres_settings={"work_mem": "5MB", "deadlock_timeout": "2s"})
    found = {s.name: s for s in tuning.tune(settings)}
    assert found["work_mem"].value == "5MB"
    assert found["work_mem"].reason == "set in postgres_settings"
    assert found["deadlock_timeout"].value == "2s"


def test_shared_buffers_may_be_55_percent_and_no_more() -> None:
    assert tuned(project.settings(postgres_settings={"shared_buffers": "256MB"}))
    (field, message), *_ = refused(postgres_settings={"shared_buffers": "282MB"})
    assert field == "postgres_settings"
    assert "is above 55 % of the container's 512MB" in message
    assert 'write at most "281MB"' in message


def test_the_worst_case_above_the_limit_names_the_override() -> None:
    assert refused(postgres_settings={"work_mem": "40MB"}) == [
        (
            "postgres_settings",
            "at worst Postgres would use 1001MB of its 512MB; "
            "lower work_mem, or raise postgres_memory",
        )
    ]


def test_connections_written_by_hand_are_counted_too() -> None:
    (_, message), *_ = refused(postgres_settings={"max_connections": "400"})
    assert message.endswith("lower max_connections, or raise postgres_memory")


def test_a_pool_that_does_not_fit_is_told_the_one_that_does() -> None:
    (field, message), *_ = refused(pool_max_connections=60)
    assert field == "postgres_memory"
    assert "lower pool_max_connections to 15, or raise postgres_memory" in message
    assert tuned(project.settings(pool_max_connections=15))
    assert refused(pool_max_connections=16)


def test_every_unreadable_override_is_told() -> None:
    wrong = {"work_mem": "6", "shared_buffers": "big", "max_parallel_workers": "two"}
    assert [message for _, message in refused(postgres_settings=wrong)] == [
        'shared_buffers: not a size; write a whole number and kB, MB or GB, such as "80MB"',
        'work_mem: the unit is missing; write "6MB" (kB, MB and GB are known)',
        "max_parallel_workers: not a number; write a whole number",
    ]


def test_the_largest_wal_is_bounded() -> None:
    assert tuned(project.settings(vps_disk="2000GB"))["max_wal_size"] == "4GB"
    assert tuned(project.settings(vps_disk="1GB"))["max_wal_size"] == "256MB"
    assert parse_size("4GB") == 4 * GB
