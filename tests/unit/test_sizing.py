"""`auto` in group data: sizes that follow the machine, proven on each."""

from __future__ import annotations

from pathlib import Path

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
    assert (settings.backend_workers, settings.pool_max_connections) == (4, 8)


def test_a_bigger_machine_gets_bigger_ones_by_itself() -> None:
    settings = project.settings(vps_memory="8GB", vps_vcpus=4)
    assert settings.postgres_memory == 2 * GB
    assert settings.backend_memory == 512 * MB
    assert (settings.backend_workers, settings.pool_max_connections) == (16, 32)
    assert budget.budget(settings).fits


def test_what_is_written_stands() -> None:
    settings = project.settings(vps_memory="8GB", vps_vcpus=4, postgres_memory="600MB")
    assert settings.postgres_memory == 600 * MB


def test_auto_is_no_size_where_no_rule_is() -> None:
    with pytest.raises(ValueError, match="not a size"):
        project.settings(traefik_memory="auto")


# By vCPUs, whole GB of RAM that the defaults need at least; with 1 GB less they are refused.
SMALLEST = {1: 2, 2: 3, 3: 3, 4: 3, 6: 4, 8: 5, 12: 6, 16: 8}


def fits(ram: int, vcpus: int) -> bool:
    """Whether the defaults fit so many GB."""
    values = DEFAULTS | {"vps_memory": f"{ram}GB", "vps_vcpus": vcpus}
    return budget.budget(Settings.model_validate(sizing.resolve(values))).fits


@pytest.mark.parametrize(("vcpus", "ram"), SMALLEST.items())
def test_the_smallest_machine_that_the_defaults_fit(vcpus: int, ram: int) -> None:
    assert fits(ram, vcpus)
    assert not fits(ram - 1, vcpus)


def test_two_vcpus_with_two_gigabytes_are_refused_and_told_by_how_much(tmp_path: Path) -> None:
    told = project.Project.make(tmp_path).refusal(vps_vcpus=2)
    assert "needs 2 144 MB and the machine has 2 048 MB: 96 MB too much" in told
    assert "lower postgres_memory or another limit, or take a bigger VPS" in told


@given(ram=some.integers(min_value=2, max_value=64), vcpus=some.integers(min_value=1, max_value=16))
def test_a_machine_that_fits_is_tuned_and_one_with_more_memory_fits_too(
    ram: int, vcpus: int
) -> None:
    values = DEFAULTS | {"vps_memory": f"{ram}GB", "vps_vcpus": vcpus}
    settings = Settings.model_validate(sizing.resolve(values))
    if fits(ram, vcpus):
        tuning.tune(settings)  # a machine that the budget fits is never refused by its defaults
        assert fits(ram + 1, vcpus)


DEFAULTS = project.values()
