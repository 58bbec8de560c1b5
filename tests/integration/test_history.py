"""What was done is remembered, what serves is told, and neither can be doubted."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from koprogo_deploy import journal, remote
from tests.integration.rig import ROOT, Rig, end

FILE = "/opt/koprogo/journal.jsonl"
KOPROGO = str(Path(sys.executable).with_name("koprogo"))


def koprogo(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [KOPROGO, *arguments, "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout)


def lines(rig: Rig) -> list[dict[str, Any]]:
    return remote.journal_of(rig.environment).entries


def test_a_run_that_changes_nothing_writes_nothing(rig: Rig) -> None:
    before = lines(rig)
    rig.converge()
    assert lines(rig) == before


def test_a_deploy_is_written_down_with_who_why_what_and_how_long(rig: Rig) -> None:
    before = rig.manifest()["id"]
    run = rig.converge(frontend_memory="40MB", reason="more room, it's needed")
    assert f"head {remote.journal_of(rig.environment).head}" in run.output
    line, manifest = lines(rig)[-1], rig.manifest()
    assert (line["outcome"], line["run"], line["before"]) == ("deployed", "full", before)
    assert line["release"] == line["serves"] == manifest["id"]
    assert (line["images"], line["settings"]) == (manifest["images"], manifest["settings"])
    assert (line["by"], line["why"]) == (manifest["by"], "more room, it's needed")
    assert line["revision"] == manifest["revision"]
    assert line["migrations"]["count"] == int(rig.sql("SELECT count(*) FROM _sqlx_migrations"))
    assert line["migrations"]["head"] == rig.sql("SELECT max(version) FROM _sqlx_migrations")
    assert line["smoke"]["passed"]
    took = {step["name"]: step["seconds"] for step in line["steps"]}
    assert took["Verify | Run the smoke tests"] > 0.5
    assert sum(took.values()) <= line["seconds"]
    assert rig.on_host(f"stat -c '%a %U' {FILE}").split() == ["600", "root"]
    code, found = koprogo("status", "sandbox")
    assert (code, found["problems"], found["release"]) == (0, [], manifest["id"])
    assert found["since"]["why"] == "more room, it's needed"


def test_a_failed_run_says_at_which_step_and_status_says_that_the_site_is_well(rig: Rig) -> None:
    fault = {"STANDIN_FAULTS": "crash_loop", "TEST_RUN": str(time.time_ns())}
    run = rig.deploy(backend_environment=fault, backend_start_timeout="15s")
    assert run.code == 1
    line = lines(rig)[-1]
    assert line["outcome"] == "failed"
    assert line["step"] == "Migrate | Start the backend unrouted and verify its migrations"
    assert line["release"] != line["serves"] == rig.manifest()["id"]
    code, found = koprogo("status", "sandbox")
    assert (code, found["problems"]) == (0, [])
    assert any("ended as: failed at Migrate" in note for note in found["notes"])
    rig.converge()


def test_status_names_what_is_not_well_and_a_deploy_that_is_running(rig: Rig) -> None:
    name = f"koprogo-frontend-{rig.manifest()['colours']['frontend']}-1"
    rig.on_host(f"docker stop -t 1 {name}")
    try:
        code, found = koprogo("status", "sandbox")
        assert code == 1
        assert any("frontend" in problem for problem in found["problems"])
        outside = [problem for problem in found["problems"] if "from outside" in problem]
        assert len(outside) == 1, "a page; the API's health is as it was"
        process = rig.start(deploy="verify")
        assert process.stdout
        for told in process.stdout:
            if "Run the smoke tests" in told:
                break
        _, found = koprogo("status", "sandbox")
        end(process)
        assert found["running"].startswith(rig.manifest()["by"])
    finally:
        rig.on_host(f"docker start {name}")
        rig.wait_until_healthy()
    assert koprogo("status", "sandbox")[0] == 0


def test_a_journal_that_somebody_changed_is_broken_and_a_torn_one_is_not(rig: Rig) -> None:
    rig.on_host(f"cp -p {FILE} {FILE}.kept")
    try:
        last = len(lines(rig))
        rig.on_host(f"sed -i '{last - 1}s/root/nobody/' {FILE}")
        code, found = koprogo("history", "sandbox")
        assert (code, found["intact"]) == (1, False)
        assert f"line {last} does not follow line {last - 1}" in found["broken"][0]
        assert koprogo("status", "sandbox")[0] == 1
        rig.on_host(f'cp -p {FILE}.kept {FILE}; printf \'{{"prev":"12\' >> {FILE}')
        code, found = koprogo("history", "sandbox")
        assert (code, found["intact"], found["torn"]) == (0, True, [last + 1])
        remote.write_down(rig.environment, "gate", passed=True)
        code, found = koprogo("history", "sandbox", "--limit", "1")
        assert (code, found["intact"], found["torn"]) == (0, True, [last + 1])
        assert (found["entries"][0]["kind"], found["entries"][0]["torn"]) == ("gate", True)
    finally:
        rig.on_host(f"cp -p {FILE}.kept {FILE}")
    head = remote.journal_of(rig.environment).head
    try:
        assert koprogo("history", "sandbox", "--head", head)[0] == 0
        rig.on_host(f"sed -i '$d' {FILE}")
        code, found = koprogo("history", "sandbox", "--head", head)
        assert (code, found["intact"]) == (1, True), "the chain holds, and the end is gone"
        [gone] = found["missing"]
        assert head[:16] in gone
    finally:
        rig.on_host(f"mv {FILE}.kept {FILE}")
    assert remote.journal_of(rig.environment).head != journal.FIRST
