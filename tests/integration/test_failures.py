"""A release that does not work: the deploy says so, and the old one serves all the while."""

from __future__ import annotations

import os
import re
import signal

import pytest

from tests.integration.rig import Rig, Watch

RECORDED = "29990101000000"  # no image has it


@pytest.mark.parametrize(
    "fault",
    ["crash_loop", pytest.param("never_healthy", marks=pytest.mark.slow), "migration_fails"],
)
def test_backend_that_does_not_come_up_is_not_switched_to(rig: Rig, fault: str) -> None:
    release, started = rig.manifest()["id"], rig.started()
    colour = rig.manifest()["colours"]["backend"]
    with Watch(rig) as watch:
        run = rig.deploy(backend_environment={"STANDIN_FAULTS": fault}, backend_start_timeout="15s")
        failed = run.output
        serving = rig.manifest()["id"]
        good = rig.converge()
    assert run.code == 1, failed
    assert "Traceback" not in failed
    other = "green" if colour == "blue" else "blue"
    assert f"backend-{other} did not come up: " in failed
    assert re.search(r"Last lines of its log:\n(.*\] {5,}\S.*\n)+", failed), failed
    assert serving == release
    assert watch.failures == []
    assert rig.started() == started
    assert good.changed == ["Release | Push the release", "Settle | Let the release count"]
    assert rig.leftovers() == []


def test_image_without_an_applied_migration_is_refused(rig: Rig) -> None:
    started = rig.started()
    rig.sql(
        "INSERT INTO _sqlx_migrations VALUES "
        f"({RECORDED}, 'from a newer image', now(), true, '\\x00', 0);"
    )
    try:
        run = rig.deploy(backend_log_level="error")
        assert run.code == 1, run.output
        assert f"the database has 1 migration(s) that the image lacks ({RECORDED})" in run.output
        assert "Traceback" not in run.output
        assert rig.started() == started
    finally:
        rig.sql(f"DELETE FROM _sqlx_migrations WHERE version = {RECORDED};")
        rig.converge()
    assert rig.started() == started
    assert rig.leftovers() == []


def test_interrupt_ends_with_130_and_the_next_run_converges(rig: Rig) -> None:
    process = rig.start(frontend_memory="40MB")
    assert process.stdout
    for line in process.stdout:
        if "Starting operation: Release | Push the release" in line:
            break
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert "Interrupted" in output
    assert "Traceback" not in output
    rig.converge()
    assert rig.leftovers() == []
    assert rig.deploy("--dry").would_change == []
