"""A release that does not work: the deploy says so, and the old one serves all the while."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import Any

import pytest

from koprogo_deploy import remote
from tests.integration.rig import Rig, Watch, said

RECORDED = "29990101000000"  # no image has it
NOW = time.time_ns()  # a release of its own each time: one that failed stays marked


@pytest.mark.parametrize(
    "fault",
    ["crash_loop", pytest.param("never_healthy", marks=pytest.mark.slow), "migration_fails"],
)
def test_backend_that_does_not_come_up_is_not_switched_to_nor_tried_again(
    rig: Rig, fault: str
) -> None:
    release, started = rig.manifest()["id"], rig.started()
    colour = rig.manifest()["colours"]["backend"]
    faults = {"STANDIN_FAULTS": fault, "TEST_RUN": str(NOW)}
    with Watch(rig) as watch:
        run = rig.deploy(backend_environment=faults, backend_start_timeout="15s")
        failed = run.output
        serving, line = rig.manifest()["id"], remote.journal_of(rig.environment).runs[-1]
        mark = rig.on_host(f"cat /opt/koprogo/releases/{line['release']}/bad")
        again = rig.deploy(backend_environment=faults, backend_start_timeout="15s")
        good = rig.converge()
    assert run.code == 1, failed
    assert "Traceback" not in failed
    other = "green" if colour == "blue" else "blue"
    assert f"backend-{other} did not come up: " in failed
    assert re.search(r"Last lines of its log:\n(.*\] {5,}\S.*\n)+", failed), failed
    assert serving == release
    assert (line["outcome"], line["serves"]) == ("failed", release)
    assert line["reason"].startswith(f"backend-{other} did not come up: ")
    assert mark.startswith("not routed ")
    assert mark.endswith("its new backend did not come up\n")
    assert again.code == 1, again.output
    assert f"this very release was {mark.strip()}. Change something" in again.output
    assert "--data retry_bad_release=true" in again.output
    assert "Starting operation: Release" not in again.output, "nothing was touched"
    assert watch.failures == []
    assert rig.started() == started
    assert good.changed == ["Settle | Let the release count"]
    assert rig.leftovers() == []


@pytest.mark.slow
def test_a_traefik_that_ends_at_once_is_the_old_one_again_and_its_release_marked(rig: Rig) -> None:
    """Its process starts and ends: nothing answers until the one before is back."""
    before = rig.manifest()
    script = "printf '#!/bin/sh\\necho no such option >&2; exit 1\\n' > /usr/local/bin/traefik"
    image = rig.image(rig.environment.settings.traefik_image, script)
    broken: dict[str, Any] = {
        "traefik_image": image,
        "rate_limit_burst": 400 + NOW % 10000,
        "frontend_memory": "41MB",
    }
    with Watch(rig) as watch:
        run = rig.deploy(**broken)
    assert run.code == 1, run.output
    assert "Traceback" not in run.output
    assert "traefik did not come up: " in run.output
    assert "no such option" in run.output, "what it logged is shown"
    assert "Starting operation: Cut over | Switch" not in run.output, "no route was touched"
    away = [float(re.split("at | s:", told)[1]) for told in watch.failures]
    print(f"nothing answered for {max(away) - min(away):.1f} s")
    assert max(away) - min(away) < 20
    rig.wait_for_site(within=10)
    traefik = rig.containers()["traefik"]["Config"]["Labels"]["koprogo.spec"]
    assert traefik == before["specs"]["traefik"]
    assert rig.routed()["id"] == rig.manifest()["id"] == before["id"]
    line = remote.journal_of(rig.environment).runs[-1]
    assert (line["outcome"], line["serves"]) == ("failed", before["id"])
    assert line["reason"].startswith("traefik did not come up: ")
    mark = rig.on_host(f"cat /opt/koprogo/releases/{line['release']}/bad")
    assert mark.endswith(": Traefik did not come up\n")
    assert rig.deploy(**broken).code == 1, "and nothing tries it again"
    assert rig.deploy(deploy="verify").code == 0
    rig.converge()
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
    said(process, "Starting operation: Release | Push the release")
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert "Interrupted" in output
    assert "Traceback" not in output
    rig.converge()
    assert rig.leftovers() == []
    assert rig.deploy("--dry").would_change == []
