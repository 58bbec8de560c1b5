"""One changed setting touches one service, and the site answers all the while."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy.units import parse_size
from tests.integration.rig import ROOT, Rig, Watch


def test_the_plan_says_which_service_and_why(rig: Rig) -> None:
    koprogo = str(Path(sys.executable).with_name("koprogo"))
    done = subprocess.run(
        [koprogo, "plan", "sandbox", "--data", "frontend_memory=40MB"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    actions = dict(re.findall(r"^(traefik|postgres|backend|frontend) +(\w+)", done.stdout, re.M))
    assert actions == {
        "traefik": "keep",
        "postgres": "keep",
        "backend": "keep",
        "frontend": "switch",
    }
    assert "mem_limit: 32MB -> 40MB" in done.stdout


def test_changed_frontend_limit_and_back(rig: Rig) -> None:
    usual = rig.environment.settings.frontend_memory
    for data, limit in (({"frontend_memory": "40MB"}, parse_size("40MB")), ({}, usual)):
        before = rig.started()
        with Watch(rig) as watch:
            run = rig.converge(**data)
        after = rig.started()
        assert {s for s in after if after[s] != before[s]} == {"frontend"}, run.output
        assert kernel_limit(rig, "frontend") == limit
        assert watch.failures == []
        assert watch.answered > 50
    assert rig.leftovers() == []


@pytest.mark.slow  # one after the other; test_plan.py has both under traffic
@pytest.mark.parametrize(
    ("service", "data"),
    [
        ("postgres", {"postgres_settings": {"work_mem": "6MB"}}),
        ("backend", {"backend_memory": "120MB"}),
    ],
)
def test_changed_setting_touches_its_service_alone(
    rig: Rig, service: str, data: dict[str, Any]
) -> None:
    for values in (data, {}):
        before = rig.started()
        with Watch(rig) as watch:
            run = rig.converge(**values)
        after = rig.started()
        assert {s for s in after if after[s] != before[s]} == {service}, run.output
        # While Postgres restarts, and only then, everybody gets the page.
        told_to_wait = [failure for failure in watch.failures if ": 503 " in failure]
        assert watch.failures == (told_to_wait if service == "postgres" else [])
        if service == "postgres":
            wanted = "6MB" if values else "4MB"
            assert rig.sql("SHOW work_mem;") == wanted
        else:
            wanted = str(values.get("backend_memory", "128MB"))
            assert kernel_limit(rig, "backend") == parse_size(wanted)
    assert rig.leftovers() == []


def kernel_limit(rig: Rig, service: str) -> int:
    """The memory limit as the kernel has it."""
    (found,) = (c for name, c in rig.containers().items() if name.startswith(service))
    file = f"/proc/{found['State']['Pid']}/cgroup"
    text = rig.on_host(
        f"c=$(sed -n 's/^[0-9]*:[^:]*memory[^:]*://p;s/^0:://p' {file} | head -n 1); "
        "cat /sys/fs/cgroup/memory$c/memory.limit_in_bytes 2>/dev/null || "
        "cat /sys/fs/cgroup$c/memory.max"
    )
    return int(text)
