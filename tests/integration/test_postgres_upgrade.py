"""A major version of Postgres up and back, the data with it; and what goes wrong on the way.

The box begins on Debian 12's Postgres 15, with a database of its own; group data's is 17.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy import remote
from tests.integration import images
from tests.integration.rig import ROOT, Rig, Run, Watch, end
from tests.integration.test_interruptions import FRONTEND, interrupted
from tests.integration.traffic import SLOW_RELEASE, Traffic, told, where

pytestmark = pytest.mark.slow

KOPROGO = str(Path(sys.executable).with_name("koprogo"))
VOLUME = "/var/lib/docker/volumes/koprogo_postgres_data"
STATE = "/opt/koprogo/data/upgrade.json"
PAGES = "/opt/koprogo/traefik/dynamic"
CHANGE = "Starting operation: Upgrade | Change over"
SETTLED = 7.0  # seconds, longer than any request of the traffic takes
# KoproGo writes its superadmin at each start; smoke tests log in.
AT_STARTS = {"public.users", "public.refresh_tokens"}
# In scratch servers it restores, in the real one it fails: only there is our configuration.
FAILS = """cat > /usr/local/bin/pg_restore <<'END'
#!/bin/sh
[ ! -e /etc/postgresql/postgresql.conf ] || { echo 'as a test wants it' >&2; exit 1; }
exec /usr/lib/postgresql/17/bin/pg_restore "$@"
END
chmod 755 /usr/local/bin/pg_restore"""


@dataclass(frozen=True)
class Box:
    """The rig, and the values that ask for the old and for the new Postgres."""

    rig: Rig
    old: dict[str, Any]
    new: dict[str, Any]

    def upgrade(self, *arguments: str, **data: Any) -> Run:
        """One run of the deploy; with the new Postgres in group data."""
        return self.rig.deploy(*arguments, deploy="postgres_upgrade", **{**self.new, **data})

    @property
    def version(self) -> str:
        """Of the server that serves."""
        return self.rig.sql("SHOW server_version;").partition(".")[0]


def wipe(rig: Rig) -> None:
    """No database, no cluster, no upload: the next deploy begins with empty ones."""
    rig.on_host(
        "docker ps -aq --filter label=com.docker.compose.project=koprogo "
        "--filter name=postgres --filter name=backend | xargs -r docker rm -f; "
        f"docker volume rm koprogo_postgres_data; rm -f {STATE} {PAGES}/maintenance.yaml; "
        "rm -f /opt/koprogo/candidate; rm -rf /var/lib/docker/volumes/koprogo_uploads/_data/*"
    )


@pytest.fixture(scope="module")
def box(rig: Rig) -> Iterator[Box]:
    image = images.old_postgres(rig.docker, rig.sandbox)
    new: dict[str, Any] = {"backend_environment": SLOW_RELEASE}
    old = {**new, "postgres_image": image, "postgres_major": 15}
    wipe(rig)
    try:
        rig.converge(**old)
        yield Box(rig, old, new)
    finally:
        wipe(rig)
        rig.converge()


def tables(rig: Rig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(rig.on_host("/opt/koprogo/bin/koprogo-data hash"))
    return found


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Tables that differ, but for what a start of KoproGo and a login write."""
    assert before["public.users"]["rows"] == after["public.users"]["rows"]
    return {n for n in {*before, *after} if before.get(n) != after.get(n)} - AT_STARTS


def line(rig: Rig) -> dict[str, Any]:
    return remote.journal_of(rig.environment).runs[-1]


def koprogo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KOPROGO, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def notes() -> list[str]:
    found: list[str] = json.loads(koprogo("status", "sandbox", "--json").stdout)["notes"]
    return found


def as_before(box: Box, before: dict[str, Any]) -> None:
    """The old Postgres serves with its data; nothing of the new one is left."""
    rig = box.rig
    rig.wait_for_site(within=20)
    assert box.version == "15"
    assert changed(before, tables(rig)) == set()
    assert rig.on_host(f"ls {VOLUME}").split() == ["_data"]
    assert rig.on_host(f"ls {PAGES}").split() == ["dynamic.yaml"]
    assert rig.on_host(f"ls {STATE} 2>/dev/null; true") == ""
    assert rig.leftovers() == []
    # Releases that never served push out the oldest ones, as those of failed deploys do.
    assert {*rig.deploy("--dry", **box.old).would_change} <= {"Settle | Let the release count"}


def test_a_deploy_with_the_new_major_is_refused_and_says_the_command(box: Box) -> None:
    assert box.version == "15"
    started = box.rig.started()
    run = box.rig.deploy(**box.new)
    assert run.code == 1, run.output
    assert "the data is of Postgres 15, the image of 17" in run.output
    assert "pyinfra inventories/sandbox.py deploys/postgres_upgrade.py takes it along" in run.output
    planned = koprogo("plan", "sandbox")
    assert planned.returncode == 1
    assert "deploys/postgres_upgrade.py" in " ".join(planned.stdout.split())
    tag = box.rig.deploy(postgres_image=box.old["postgres_image"])
    assert (tag.code, "is of 15 by its tag" in tag.output) == (2, True), tag.output
    elsewhere = box.rig.deploy(upgrade="back", **box.old)
    assert (elsewhere.code, "only postgres_upgrade.py takes it" in elsewhere.output) == (2, True)
    dry = box.upgrade("--dry")
    assert dry.code == 0, dry.output
    assert "Upgrade | Change over, under the maintenance page" in dry.would_change
    assert box.rig.started() == started


def test_what_would_not_work_is_found_while_the_site_serves(box: Box) -> None:
    rig, before, started = box.rig, tables(box.rig), box.rig.started()
    with Watch(rig) as watch:
        back = box.upgrade(upgrade="back")
        more = box.upgrade(backend_log_level="error")
        unknown = box.upgrade(postgres_settings={"vacuum_defer_cleanup_age": "0"})
        rig.sql("CREATE DATABASE of_a_test;")
        further = box.upgrade()
        rig.sql("DROP DATABASE of_a_test;")
    assert [run.code for run in (back, more, unknown, further)] == [1, 1, 1, 1]
    assert "no cluster of before an upgrade is kept here" in back.output
    assert "Postgres alone, and group data changes backend as well" in more.output
    assert 'unrecognized configuration parameter "vacuum_defer_cleanup_age"' in unknown.output
    assert "further databases, which would stay behind: of_a_test" in further.output
    assert watch.failures == []
    assert rig.started() == started
    as_before(box, before)


@pytest.mark.parametrize("fault", ["restore", "smoke", "killed"])
def test_one_that_fails_in_the_midst_leaves_the_old_one_serving(box: Box, fault: str) -> None:
    rig, before = box.rig, tables(box.rig)
    if fault == "killed":
        run = killed_on_the_host(box)
    elif fault == "restore":
        run = box.upgrade(postgres_image=rig.image(rig.environment.settings.postgres_image, FAILS))
    else:
        # The server says 4MB, and the smoke tests ask for what is written.
        run = box.upgrade(postgres_settings={"work_mem": "4096kB"})
    assert run.code == 1, run.output
    assert "Traceback" not in run.output
    if fault == "restore":
        assert "as a test wants it. Postgres 15 serves again, as before" in run.output
    if fault == "smoke":
        assert "the smoke tests fail on Postgres 17: test_postgres_settings" in run.output
        assert "Postgres 15 serves again" in run.output
        assert "it does not" not in run.output
    assert line(rig)["outcome"] == "failed"
    as_before(box, before)


def killed_on_the_host(box: Box) -> Run:
    """An upgrade whose program on the host is killed when the new Postgres has come up."""
    process = box.rig.start(deploy="postgres_upgrade", **box.new)
    pattern = "^[^ ]*python3 -I [^ ]*koprogo-data upgrade change"
    try:
        box.rig.on_host(
            f"until [ -e {STATE} ] && [ -e {VOLUME}/koprogo_before_*_15 ]; do sleep 0.1; done; "
            f"sleep 1; pkill -9 -f '{pattern}'",
            within=120,
        )
        output, _ = process.communicate(timeout=120)
    finally:
        end(process)
    return Run(process.returncode, output)


def test_up_under_traffic_and_nothing_is_lost(box: Box) -> None:
    rig = box.rig
    with Traffic(where(rig.environment)) as traffic:
        time.sleep(SETTLED)
        run = box.upgrade(reason="a test")
        time.sleep(2)
    try:
        assert run.code == 0, run.output
        told_line = line(rig)
        waits = [each.ended for each in traffic.told_to_wait]
        print(told(traffic, waited=len(waits), seconds=max(waits) - min(waits)))
        print(json.dumps({name: told_line[name] for name in ("rehearsed", "upgrade", "seconds")}))
        assert traffic.lost_beside_the_page == []
        assert len(waits) > 10
        assert traffic.accounted(rig.sql) == []
        assert traffic.uploaded(rig.environment) == []
        assert traffic.acknowledged.count > 50
        assert box.version == "17"
        assert told_line["outcome"] == "deployed"
        assert rig.on_host(f"ls {PAGES}").split() == ["dynamic.yaml"]
        assert rig.leftovers() == []
        assert rig.deploy("--dry", **box.new).would_change == []
        assert any("the Postgres 15 that served until" in each for each in notes())
    finally:
        traffic.clean(rig.sql, rig.on_host)


def test_back_says_what_it_loses_and_then_a_deploy_is_refused(box: Box) -> None:
    rig, started = box.rig, box.rig.started()
    first = "SELECT min(name) FROM buildings"
    rig.sql(f"UPDATE buildings SET name = name || ' ' WHERE name = ({first});")
    refused = box.upgrade(upgrade="back")
    assert refused.code == 1, refused.output
    assert "leaves behind what was written since" in refused.output
    assert "--data upgrade=back_anyway" in refused.output
    assert rig.started() == started
    run = box.upgrade(upgrade="back_anyway")
    assert run.code == 0, run.output
    assert re.search("written since .* UTC, and not in it: .*buildings", run.output)
    assert box.version == "15"
    assert rig.sql("SELECT count(*) FROM buildings WHERE name LIKE '% '") == "0"
    assert any("the Postgres 17 that served until" in each for each in notes())
    assert rig.deploy("--dry", **box.old).would_change == []
    assert rig.converge(**box.old).changed == []
    assert rig.deploy(**box.new).code == 1


def test_a_run_that_is_killed_is_ended_by_the_next_one(box: Box) -> None:
    rig, before = box.rig, tables(box.rig)
    process = rig.start(deploy="postgres_upgrade", **box.new)
    assert process.stdout
    for text in process.stdout:
        if CHANGE in text:
            break
    rig.on_host(f"until [ -e {STATE} ]; do sleep 0.1; done")
    end(process)
    process.communicate(timeout=30)
    refused = rig.deploy(**box.old)
    assert refused.code == 1
    assert "an upgrade of Postgres is under way, or was cut" in refused.output
    run = box.upgrade()
    assert run.code == 0, run.output
    assert "an earlier run was cut before it was verified; this one ends it" in run.output
    assert box.version == "17"
    assert changed(before, tables(rig)) == set()
    assert rig.on_host(f"ls {PAGES}").split() == ["dynamic.yaml"]
    assert rig.leftovers() == []
    assert box.upgrade().changed == []


def test_the_old_ones_stay_until_they_are_told_to_go(box: Box) -> None:
    rig = box.rig
    assert len(rig.on_host(f"ls -d {VOLUME}/koprogo_before_*/").split()) == 2
    # A deploy was killed before its switch: what it left is none of this run's business.
    interrupted(rig, {**box.new, "frontend_memory": "40MB"}, "killed", FRONTEND, 0.0)
    containers = {name: found["Id"] for name, found in rig.containers().items()}
    run = box.upgrade(upgrade="drop_old")
    assert run.code == 0, run.output
    assert {name: found["Id"] for name, found in rig.containers().items()} == containers
    assert "candidate" in rig.leftovers()
    rig.converge(**box.new)
    assert "MB freed" in run.output
    assert rig.on_host(f"ls {VOLUME}").split() == ["_data"]
    assert not any("that served until" in each for each in notes())
    assert rig.deploy("--dry", **box.new).would_change == []
