"""The memory budget: every line counted, every service bounded, the culprit named."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as some

from koprogo_deploy import budget
from koprogo_deploy.budget import Budget, Line
from koprogo_deploy.settings import SERVICES, SWITCHED
from koprogo_deploy.units import GB, MB, show_size
from tests import project

MEGABYTES = some.integers(min_value=1, max_value=64 * 1024)


@pytest.mark.parametrize("environment", ["production", "sandbox"])
def test_the_defaults_fit_a_vps_of_two_gigabytes(environment: str) -> None:
    proven = budget.budget(project.settings(environment))
    assert proven.ram == 2 * GB
    assert proven.fits
    assert budget.overrun(proven) == ""


def test_every_service_is_counted_and_a_switched_one_twice() -> None:
    settings = project.settings()
    lines = budget.budget(settings).lines
    assert [line.name for line in lines if line.kind == "limit"] == list(SERVICES)
    assert [line.name for line in lines if line.kind == "switch"] == [
        f"{service}, second colour" for service in SWITCHED
    ]
    for line in lines:
        if line.kind != "reserve":
            assert line.size == settings.memory(line.name.partition(",")[0])


@given(MEGABYTES, MEGABYTES, MEGABYTES, MEGABYTES)
def test_the_total_is_the_sum_whatever_the_limits_are(
    traefik: int, backend: int, frontend: int, ram: int
) -> None:
    base = project_settings
    settings = base.model_copy(
        update={
            "traefik_memory": traefik * MB,
            "backend_memory": backend * MB,
            "frontend_memory": frontend * MB,
            "vps_memory": ram * MB,
        }
    )
    proven = budget.budget(settings)
    fixed = base.postgres_memory + sum(x.size for x in proven.lines if x.kind == "reserve")
    assert proven.total == fixed + (traefik + 2 * backend + 2 * frontend) * MB
    assert proven.fits == (proven.total <= proven.ram) == (budget.overrun(proven) == "")
    assert budget.against(proven, proven.total).fits
    assert not budget.against(proven, proven.total - 1).fits


project_settings = project.settings()


def test_an_overrun_says_how_much_and_names_the_largest_service() -> None:
    proven = Budget((Line("small", MB, "limit", ""), Line("big", 3 * MB, "limit", "")), 2 * MB)
    assert budget.overrun(proven) == (
        "needs 4 MB and the machine has 2 MB: 2 MB too much. The largest line is big (3 MB)"
    )


def test_what_the_kernel_really_gives_is_what_counts() -> None:
    proven = budget.budget(project.settings())
    assert not budget.against(proven, 1 * GB).fits


@pytest.mark.parametrize("environment", ["production", "sandbox"])
def test_no_service_of_ours_runs_without_a_limit(environment: str) -> None:
    compose = project.release(project.settings(environment)).files["compose.yaml"]
    assert budget.unlimited(yaml.safe_load(compose)) == []


def test_a_service_without_a_limit_or_with_swap_on_top_is_an_error() -> None:
    compose: dict[str, object] = {
        "services": {
            "bounded": {"mem_limit": "80MB", "memswap_limit": "80MB"},
            "free": {"image": "x"},
            "swapping": {"mem_limit": "80MB"},
            "more-swap": {"mem_limit": "80MB", "memswap_limit": "160MB"},
            "zero": {"mem_limit": 0, "memswap_limit": 0},
        }
    }
    assert budget.unlimited(compose) == ["free", "swapping", "more-swap", "zero"]
    assert budget.unlimited({}) == []


def test_limits_reach_compose_as_they_were_written() -> None:
    settings = project.settings(traefik_memory="81MB")
    compose = yaml.safe_load(project.release(settings).files["compose.yaml"])
    assert compose["services"]["traefik"]["mem_limit"] == show_size(81 * MB) == "81MB"
