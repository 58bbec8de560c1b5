"""What the benchmarks change: exactly one thing, of the files that a deploy renders."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from bench import overhead, scale, tuning
from bench.box import Box
from bench.figures import Failed
from koprogo_deploy.runs.model import Endpoint, Latency
from tests.project import settings

GOLDEN = Path(__file__).parents[1] / "golden" / "sandbox"
DYNAMIC = (GOLDEN / "traefik" / "dynamic.yaml").read_text()
STATIC = (GOLDEN / "traefik" / "traefik.yaml").read_text()


def middlewares(changed: Any) -> list[str]:
    found: list[str] = changed["http"]["routers"][overhead.ROUTER].get("middlewares", [])
    return found


def test_a_middleware_is_taken_off_the_loads_route_alone() -> None:
    before = yaml.safe_load(DYNAMIC)
    changed = overhead.edited(DYNAMIC, overhead.without("compress"))
    assert changed is not None
    assert middlewares(changed) == [m for m in middlewares(before) if m != "compress"]
    changed["http"]["routers"][overhead.ROUTER] = before["http"]["routers"][overhead.ROUTER]
    assert changed == before, "nothing else"


def test_all_can_go() -> None:
    changed = overhead.edited(DYNAMIC, overhead.without("headers", "compress", "retry"))
    assert middlewares(changed) == []


def test_a_middleware_that_is_not_there_is_no_measurement() -> None:
    with pytest.raises(Failed, match="no middleware sticky"):
        overhead.edited(DYNAMIC, overhead.without("sticky"))


def test_the_rate_limit_counts_and_lets_all_pass() -> None:
    changed = overhead.edited(DYNAMIC, overhead.rate_limited)
    assert changed is not None
    assert "rate-limit" in middlewares(changed)
    limit = changed["http"]["middlewares"]["rate-limit"]["rateLimit"]
    assert (limit["average"], limit["burst"]) == (overhead.NO_LIMIT, overhead.NO_LIMIT)
    assert "sourceCriterion" in limit, "counted by client, as it is for everybody"


def test_access_log_and_metrics_are_those_of_the_proxys_own_file() -> None:
    asked = settings("sandbox")
    box = cast(Box, SimpleNamespace(environment=SimpleNamespace(settings=asked)))
    logging = yaml.safe_load(overhead.with_access_log(box, STATIC))
    counting = yaml.safe_load(overhead.without_metrics(box, STATIC))
    assert "accessLog" in logging
    assert "accessLog" not in yaml.safe_load(STATIC)
    assert {*yaml.safe_load(STATIC)} - {*counting} == {"metrics"}


def test_the_originals_postgres_is_postgres_own_with_its_settings_on_top() -> None:
    class Asked:
        environment = SimpleNamespace(settings=settings("sandbox"))

        def postgres_defaults(self, names: list[str]) -> dict[str, str]:
            return dict.fromkeys(names, "default")

    box = cast(Box, Asked())
    assert tuning.postgres_values(box, "ours") == {}
    original = tuning.postgres_values(box, "original")
    default = tuning.postgres_values(box, "default")
    assert original.keys() == default.keys()
    assert original["shared_buffers"] == "256MB"
    assert default["shared_buffers"] == "128MB", "as initdb writes it"
    assert original["jit"] == default["jit"] == "default"
    assert not {"hba_file", "listen_addresses", "password_encryption"} & original.keys()


def measured(p50: float) -> Any:
    endpoint = Endpoint(name="GET /units", writes=False, latency=Latency(p50=p50, p99=3 * p50))
    run = SimpleNamespace(generator=SimpleNamespace(valid=True))
    return SimpleNamespace(phase=SimpleNamespace(endpoints=[endpoint]), run=run)


def test_how_much_slower_a_list_is() -> None:
    units = next(listed for listed in scale.LISTS if listed.table == "units")
    small, large = [measured(2), measured(2), measured(9)], [measured(5)]
    assert scale.growth(small, large, units) == 2.5
    assert scale.growth(small, [], units) is None
