"""`auto` in group data: sizes that follow the machine, proven on each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from koprogo_deploy import budget, sizing, tuning
from koprogo_deploy.settings import Settings
from koprogo_deploy.units import GB, MB
from tests import project


def test_the_smallest_machine_gets_the_figures_that_were_measured() -> None:
    settings = project.settings()
    assert settings.postgres_memory == 512 * MB
    assert settings.backend_memory == 128 * MB
    assert settings.page_cache_memory == 192 * MB
    assert (settings.backend_workers, settings.pool_max_connections) == (1, 8)


def test_a_bigger_machine_gets_bigger_ones_by_itself() -> None:
    settings = project.settings(vps_memory="8GB", vps_vcpus=4)
    assert settings.postgres_memory == 2 * GB
    assert settings.backend_memory == 512 * MB
    assert (settings.backend_workers, settings.pool_max_connections) == (4, 32)
    assert budget.budget(settings).fits


def test_what_is_written_stands() -> None:
    settings = project.settings(vps_memory="8GB", vps_vcpus=4, postgres_memory="600MB")
    assert settings.postgres_memory == 600 * MB


def test_auto_is_no_size_where_no_rule_is() -> None:
    with pytest.raises(ValueError, match="not a size"):
        project.settings(traefik_memory="auto")


@given(ram=some.integers(min_value=2, max_value=64), vcpus=some.integers(min_value=1, max_value=16))
def test_on_every_machine_the_tuning_is_safe_and_the_budget_right_or_refused(
    ram: int, vcpus: int
) -> None:
    values = DEFAULTS | {"vps_memory": f"{ram}GB", "vps_vcpus": vcpus}
    settings = Settings.model_validate(sizing.resolve(values))
    proven = budget.budget(settings)
    assert proven.fits == (sum(line.size for line in proven.lines) <= ram * GB)
    if proven.fits:
        tuning.tune(settings)  # a machine that the budget fits is never refused by its defaults


DEFAULTS = project.values()
