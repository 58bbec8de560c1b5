"""A plan is carried out as it was made, or not at all; what it interrupts is what it says."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy import remote
from tests.integration.rig import ROOT, Rig
from tests.integration.traffic import QUICK, Traffic, where

KOPROGO = str(Path(sys.executable).with_name("koprogo"))
PAGE = "/opt/koprogo/traefik/dynamic/restart.yaml"


def koprogo(*arguments: str, **data: Any) -> subprocess.CompletedProcess[str]:
    values = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in data.items()]
    options = [part for value in values for part in ("--data", value)]
    return subprocess.run(
        [KOPROGO, "plan", "sandbox", *arguments, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextlib.contextmanager
def under_traffic(rig: Rig) -> Iterator[Traffic]:
    """Quick reads and writes while the block is executed; every answer has come after it."""
    with Traffic(where(rig.environment), QUICK) as traffic:
        yield traffic
    print(traffic.summary)
    assert traffic.accounted(rig.sql) == []
    traffic.clean(rig.sql, rig.on_host)


def last_line(rig: Rig) -> dict[str, Any]:
    return remote.journal_of(rig.environment).runs[-1]


def test_exit_codes_tell_whether_something_would_change(rig: Rig) -> None:
    files, started = rig.files(), rig.started()
    same = koprogo("--exit-code")
    assert (same.returncode, "nothing to do" in same.stdout) == (0, True), same.stdout
    other = koprogo("--exit-code", "--json", frontend_memory="40MB")
    assert other.returncode == 2, other.stderr
    plan = json.loads(other.stdout)
    assert (plan["nothing"], plan["live"]) == (False, rig.manifest()["id"])
    shown = koprogo("--json", frontend_memory="40MB")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    wrong = koprogo("--exit-code", frontend_memory="40")
    assert (wrong.returncode, "the unit is missing" in wrong.stderr) == (1, True)
    assert rig.touched(files) == {}, "a plan touches nothing"
    assert rig.started() == started


def test_a_plan_is_carried_out_as_it_was_made_and_only_once(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    data: dict[str, Any] = {"frontend_memory": "40MB"}
    told = koprogo("--out", str(file), **data)
    assert told.returncode == 0, told.stderr
    plan = json.loads(file.read_text())
    before = rig.started()
    run = rig.converge(plan=str(file), **data)
    after = rig.started()
    assert {s for s in after if after[s] != before[s]} == {"frontend"}, run.output
    assert f"frontend switches to {plan['release']['colours']['frontend']}" in run.output
    assert rig.manifest()["hash"] == plan["release"]["hash"]
    assert last_line(rig)["plan"]["kind"] == plan["duration"]["kind"]

    again = rig.deploy(plan=str(file), **data)
    assert again.code == 1, again.output
    assert "the host changed since: serving release: " in again.output
    assert "Starting operation: Host" not in again.output
    assert rig.started() == after
    rig.converge()


def test_a_checkout_that_renders_something_else_is_refused(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    told = koprogo("--out", str(file), frontend_memory="40MB")
    assert told.returncode == 0, told.stdout + told.stderr
    files, started = rig.files(), rig.started()
    run = rig.deploy(plan=str(file), frontend_memory="41MB")
    assert run.code == 1, run.output
    assert "this checkout: renders compose.yaml otherwise" in run.output
    assert rig.touched(files) == {}
    assert rig.started() == started


def test_a_container_that_somebody_else_stopped_makes_it_stale(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    told = koprogo("--out", str(file), frontend_memory="40MB")
    assert told.returncode == 0, told.stdout + told.stderr
    (name,) = (n for n in rig.containers() if n.startswith("backend"))
    rig.on_host(f"docker stop -t 5 koprogo-{name}-1")
    try:
        run = rig.deploy(plan=str(file), frontend_memory="40MB")
        assert run.code == 1, run.output
        assert f"the host changed since: containers: {name}: " in run.output
        assert "serving -> " in run.output
    finally:
        rig.on_host(f"docker start koprogo-{name}-1")
        rig.wait_until_healthy()


def test_a_file_that_is_no_plan_is_refused_before_a_host_is_touched(
    rig: Rig, tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    file.write_text("{}")
    run = rig.deploy(plan=str(file))
    assert (run.code, "is no plan of this version" in run.output) == (2, True), run.output
    assert "Connecting to hosts" not in run.output


def test_a_postgres_setting_under_load_costs_only_503_with_retry_after(rig: Rig) -> None:
    for data in ({"postgres_settings": {"work_mem": "6MB"}}, {}):
        with under_traffic(rig) as traffic:
            run = rig.converge(**data)
        assert traffic.lost_beside_the_page == []
        told = len(traffic.told_to_wait)
        assert 10 < told < traffic.kinds["right"], "it was noticed"
        measured = last_line(rig)["interrupted"]
        print(f"{traffic.interrupted:.1f} s from outside, {measured} on the host")
        assert measured["postgres"] < 15
        assert abs(measured["postgres"] - traffic.interrupted) < 3
        assert "503 with Retry-After for" in run.output
        assert rig.on_host(f"ls {PAGE} 2>/dev/null || true") == ""
        wanted = "6MB" if data else "4MB"
        assert rig.sql("SHOW work_mem;") == wanted
    assert "measured here" in koprogo(postgres_settings={"work_mem": "6MB"}).stdout


@pytest.mark.slow
def test_nothing_about_them_changed_so_neither_is_touched(rig: Rig) -> None:
    before = rig.started()
    with under_traffic(rig) as traffic:
        rig.converge(backend_memory="120MB")
    after = rig.started()
    assert {s for s in after if after[s] != before[s]} == {"backend"}
    assert traffic.lost == []
    assert "interrupted" not in last_line(rig)
    rig.converge()


def test_a_page_by_hand_stays_and_a_failed_restart_takes_its_own_away(rig: Rig) -> None:
    hand = "/opt/koprogo/traefik/dynamic/maintenance.yaml"
    switched = [KOPROGO, "maintenance", "on", "sandbox"]
    assert subprocess.run(switched, cwd=ROOT, check=False).returncode == 0
    page = rig.on_host(f"cat {hand}")
    try:
        release = rig.manifest()["id"]
        # The machine has no huge pages, so Postgres does not start.
        run = rig.deploy(postgres_settings={"huge_pages": "on"})
        assert run.code == 1, run.output
        assert "postgres did not come up" in run.output
        assert f"Postgres is started again as in release {release}" in run.output
        assert rig.on_host(f"ls {PAGE} 2>/dev/null || true") == ""
        assert rig.on_host(f"cat {hand}") == page
        rig.wait_until_healthy()
        assert rig.sql("SHOW huge_pages;") == "off"
        again = rig.deploy(postgres_settings={"huge_pages": "on"})
        assert "this very release was taken back: Postgres did not come up" in again.output
        rig.converge()
        assert rig.on_host(f"cat {hand}") == page
    finally:
        rig.on_host(f"rm -f {hand}")
    assert rig.leftovers() == []


@pytest.mark.slow
def test_how_long_traefik_is_away_is_measured(rig: Rig) -> None:
    for data in ({"traefik_memory": "88MB"}, {}):
        with under_traffic(rig) as traffic:
            run = rig.converge(**data)
        measured = last_line(rig)["interrupted"]["traefik"]
        print(f"{traffic.interrupted:.1f} s from outside, {measured} on the host")
        assert 0 < measured < 15
        assert "nothing answered for" in run.output
        assert not {"4xx", "5xx", "wrong body"} & traffic.kinds.keys(), "nothing answers wrongly"
