"""Pending migrations: rehearsed on a copy, the data dumped, what serves looked after."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy import remote, status
from koprogo_deploy.outside import Outside
from tests.integration.rig import ENVIRONMENT, ROOT, Rig, Watch, end

KOPROGO = str(Path(sys.executable).with_name("koprogo"))
VERSION = 29990101000000  # no image of group data's has it
NEVER = "Starting operation: Migrate | Start the backend"
SLOW = """
CREATE TABLE of_a_test (id int);
ALTER TABLE buildings ADD COLUMN of_a_test int;
SELECT pg_sleep({seconds});
"""
UNDO = f"""
DROP TABLE IF EXISTS of_a_test;
ALTER TABLE buildings DROP COLUMN IF EXISTS of_a_test;
DO $$ BEGIN
  IF EXISTS (SELECT FROM information_schema.columns WHERE column_name = 'telephone') THEN
    ALTER TABLE owners RENAME COLUMN telephone TO phone;
  END IF;
END $$;
DELETE FROM _sqlx_migrations WHERE version = {VERSION};
"""


@pytest.fixture
def migrating(rig: Rig) -> Iterator[Rig]:
    """The rig; whatever a test migrates, group data's release serves its own schema in the end."""
    rig.converge()
    yield rig
    rig.sql(UNDO)
    rig.converge()


def line(rig: Rig) -> dict[str, Any]:
    return remote.journal_of(rig.environment).runs[-1]


def dumps(rig: Rig) -> list[str]:
    return rig.on_host("ls /opt/koprogo/dumps 2>/dev/null; true").split()


def applied(rig: Rig) -> bool:
    return rig.sql(f"SELECT count(*) FROM _sqlx_migrations WHERE version = {VERSION}") == "1"


def mark(rig: Rig, release: str) -> str:
    return rig.on_host(f"cat /opt/koprogo/releases/{release}/bad 2>/dev/null; true").strip()


def building(organization: str, name: str) -> dict[str, Any]:
    return {
        "organization_id": organization,
        "name": name,
        "address": "Rue Neuve 1",
        "city": "Bruxelles",
        "postal_code": "1000",
        "country": "Belgique",
        "total_units": 1,
    }


def create_building(rig: Rig) -> None:
    with Outside(rig.environment.settings) as outside:
        login = outside.login("admin@small.be", rig.environment.secrets["SEED_PASSWORD"]).json()
        answer = outside.api.post(
            "/buildings",
            headers={"Authorization": f"Bearer {login['token']}"},
            json=building(login["user"]["organization_id"], "Since the dump"),
        )
    assert answer.status_code == 201, answer.text


class Visitors:
    """They write all the while, from the host itself: its address does not pass by the page."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.answers: list[tuple[int, str, str]] = []  # number, status, Retry-After
        self._thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        settings = self.rig.environment.settings
        with Outside(settings) as outside:
            login = outside.login(
                "admin@small.be", self.rig.environment.secrets["SEED_PASSWORD"]
            ).json()
        name = settings.api_domain
        body = json.dumps(building(login["user"]["organization_id"], "Visitor NUMBER"))
        said = self.rig.on_host(
            f"""rm -f /tmp/visitors.end; n=0
while [ ! -e /tmp/visitors.end ]; do
  n=$((n + 1)); printf '%s\t' $n
  printf %s {shlex.quote(body)} | sed "s/NUMBER/$n/" | curl -sk -m 40 -o /dev/null \
    -w '%{{http_code}}\t%header{{retry-after}}\n' --resolve {name}:443:127.0.0.1 --data @- \
    -H 'Authorization: Bearer {login["token"]}' -H 'Content-Type: application/json' \
    https://{name}/api/v1/buildings
  sleep 0.05
done""",
            within=400,
        )
        for line in said.splitlines():
            number, status, after = line.split("\t")
            self.answers.append((int(number), status, after))

    def __enter__(self) -> Visitors:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(1)
        self.rig.on_host("touch /tmp/visitors.end")
        self._thread.join()

    def closed(self) -> list[int]:
        """Those that got the maintenance page; every other one was taken."""
        assert {status for _, status, _ in self.answers} == {"201", "503"}
        assert {after for _, status, after in self.answers if status == "503"} == {"30"}
        return [number for number, status, _ in self.answers if status == "503"]

    def lost(self, since: int = 0) -> list[int]:
        """Acknowledged writes of this number and later that are not there."""
        there = set(self.rig.sql("SELECT name FROM buildings").splitlines())
        taken = (number for number, status, _ in self.answers if status == "201")
        return [n for n in taken if n > since and f"Visitor {n}" not in there]


def test_it_is_rehearsed_and_dumped_then_applied_and_the_way_back_says_what_it_loses(
    migrating: Rig,
) -> None:
    rig, before = migrating, migrating.manifest()["id"]
    image = rig.migrating_image(VERSION, SLOW.format(seconds=1.5))
    with Watch(rig) as watch:
        run = rig.deploy(backend_image=image)
    assert run.code == 0, run.output
    assert watch.failures == []
    assert applied(rig)
    assert rig.leftovers() == []
    release = rig.manifest()["id"]

    told = line(rig)
    seen = told["rehearsal"]
    assert seen["passed"]
    assert seen["seconds"]["copy"] > 0
    assert 1.5 <= seen["migrations"][str(VERSION)] < 5
    locks = {(lock["table"], lock["mode"]): lock["seconds"] for lock in seen["locks"]}
    assert 1.2 <= locks["buildings", "AccessExclusiveLock"] <= 2.5
    assert not any(table == "of_a_test" for table, _ in locks), "nobody uses it yet"
    assert re.search(r"buildings locked for [12][\d.]* s \(AccessExclusive: readers", run.output)
    assert (told["unrouted_backend"], told["serving_backend"]) == ("passed", "passed")
    assert told["dump"]["before"] == before

    assert {f"{release}.dump", f"{release}.json"} <= set(dumps(rig))
    file = f"/opt/koprogo/dumps/{release}.dump"
    assert rig.on_host(f"stat -c '%a %U' {file} /opt/koprogo/dumps").split() == [
        *("600", "root"),
        *("700", "root"),
    ]
    assert rig.on_host(f"sha256sum < {file}").split()[0] == told["dump"]["sha256"]
    print(json.dumps({"rehearsal": seen, "dump": told["dump"]}))

    create_building(rig)
    started = rig.started()
    back = rig.deploy(deploy="rollback")
    assert back.code == 1, back.output
    assert "There are two ways: (1) deploy an image that has these migrations" in back.output
    assert f"rollback.py --data release={before} --data restore_dump=true" in back.output
    assert re.search(
        r"Lost would be, since then: buildings 1 new; .*refresh_tokens \d+ new", back.output
    )
    assert rig.started() == started
    rig.sql("DELETE FROM buildings WHERE name = 'Since the dump';")


@pytest.mark.slow
def test_back_over_a_migration_with_the_data_of_before_it(migrating: Rig) -> None:
    rig, before = migrating, migrating.manifest()["id"]
    image = rig.migrating_image(VERSION, SLOW.format(seconds=0))
    rig.converge(backend_image=image)
    left = rig.manifest()["id"]
    create_building(rig)
    with Visitors(rig) as visitors:
        run = rig.deploy(deploy="rollback", release=before, restore_dump=True, reason="a test")
    try:
        assert run.code == 0, run.output
        closed = visitors.closed()
        assert closed == list(range(closed[0], closed[-1] + 1)), "closed once, until verified"
        assert visitors.answers[-1][0] > closed[-1], "and open again"
        assert visitors.lost(since=closed[0]) == []
        assert re.search(r"Lost would be, since then: buildings \d+ new", run.output)
        now = rig.manifest()
        assert before in (now["id"], now.get("again"))
        assert not applied(rig)
        assert rig.sql("SELECT count(*) FROM buildings WHERE name = 'Since the dump'") == "0"
        assert mark(rig, left).startswith("rolled back by ")
        assert rig.leftovers() == []
        kept = line(rig)["returned"]["kept"]
        there = rig.sql("SELECT datname FROM pg_database").split()
        assert kept in there, "what served is not lost"
        assert rig.converge().changed == []
        assert "maintenance" not in rig.on_host("ls /opt/koprogo/traefik/dynamic")
        assert "return.json" not in rig.on_host("ls /opt/koprogo/data")
        assert kept in " ".join(koprogo_status(rig)["notes"]), "no uploads lie beside it"
    finally:
        rig.sql("DELETE FROM buildings WHERE name LIKE 'Visitor %';")
        rig.on_host("/opt/koprogo/bin/koprogo-data drop-old")


def koprogo_status(rig: Rig) -> dict[str, Any]:
    done = subprocess.run(
        [KOPROGO, "status", "sandbox", "--json"],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_one_that_is_cut_is_told_and_ended_by_itself_alone(migrating: Rig) -> None:
    rig, before = migrating, migrating.manifest()["id"]
    rig.converge(backend_image=rig.migrating_image(VERSION, SLOW.format(seconds=0)))
    left = rig.manifest()["id"]
    process = rig.start(deploy="rollback", release=before, restore_dump=True)
    deadline = time.monotonic() + 120
    while "return.json" not in rig.on_host("ls /opt/koprogo/data"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    end(process)
    process.communicate(timeout=60)
    deadline = time.monotonic() + 60  # what it began on the host goes on to its end
    while applied(rig):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    to = json.loads(rig.on_host("cat /opt/koprogo/data/return.json"))["release"]
    ends = f"deploys/rollback.py --data release={to} --data restore_dump=true"
    found = koprogo_status(rig)
    advice = " ".join(found["advice"])
    assert ends in advice
    assert "full.py" not in advice
    assert "maintenance off" not in advice
    for other in ({"deploy": "full"}, {"deploy": "rollback", "release": left}):
        refused = rig.deploy(**other)
        assert refused.code == 1, refused.output
        assert ends in refused.output
        assert "Nothing was touched" in refused.output
    run = rig.deploy(deploy="rollback", release=to, restore_dump=True)
    try:
        assert run.code == 0, run.output
        assert rig.manifest()["id"] == to
        assert not applied(rig)
        assert rig.on_host("ls /opt/koprogo/traefik/dynamic").split() == ["dynamic.yaml"]
        assert "return.json" not in rig.on_host("ls /opt/koprogo/data")
        assert rig.converge().changed in ([], ["Settle | Let the release count"])
    finally:
        rig.on_host("/opt/koprogo/bin/koprogo-data drop-old")


@pytest.mark.slow
def test_back_with_the_data_to_a_release_that_does_not_work_puts_all_back(migrating: Rig) -> None:
    rig = migrating
    broken = {"STANDIN_FAULTS": "errors_percent=100", "TEST_RUN": str(time.time_ns())}
    assert rig.deploy(backend_environment=broken).code == 1
    bad = line(rig)["release"]
    rig.converge(backend_image=rig.migrating_image(VERSION, SLOW.format(seconds=0)))
    serving, there = rig.manifest()["id"], "SELECT count(*) FROM buildings WHERE name = '{}'"
    create_building(rig)
    with Visitors(rig) as visitors:
        run = rig.deploy(deploy="rollback", release=bad, restore_dump=True, retry_bad_release=True)
    assert run.code == 1, run.output
    assert visitors.closed() != []
    assert visitors.lost() == []
    assert "the data of before the rollback serves again" in run.output
    assert "it does not" not in run.output
    rig.wait_for_site(within=20)
    assert applied(rig)
    assert rig.sql(there.format("Since the dump")) == "1"
    assert rig.manifest()["id"] == serving
    assert "maintenance" not in rig.on_host("ls /opt/koprogo/traefik/dynamic")
    assert rig.deploy(deploy="verify").code == 0
    rig.sql("DELETE FROM buildings WHERE name = 'Since the dump';")
    rig.sql("DELETE FROM buildings WHERE name LIKE 'Visitor %';")
    rig.on_host("/opt/koprogo/bin/koprogo-data discard")


@pytest.mark.slow
def test_where_its_smoke_tests_fail_the_data_comes_back_before_anybody_does(migrating: Rig) -> None:
    rig = migrating
    rig.converge(backend_environment={"TEST_RUN": str(time.time_ns())})
    before = rig.manifest()["id"]
    rig.converge(backend_image=rig.migrating_image(VERSION, SLOW.format(seconds=0)))
    serving = rig.manifest()["id"]
    other = {"work_mem": "4096kB"}  # asked for, and the server says 4MB
    with Visitors(rig) as visitors:
        run = rig.deploy(
            deploy="rollback", release=before, restore_dump=True, postgres_settings=other
        )
    assert run.code == 1, run.output
    assert "Starting operation: Verify" in run.output
    assert "the data of before the rollback serves again" in run.output
    closed = visitors.closed()
    assert closed == list(range(closed[0], closed[-1] + 1))
    assert visitors.answers[-1][0] > closed[-1], "open again"
    assert visitors.lost() == []
    assert applied(rig)
    assert rig.routed()["id"] == rig.manifest()["id"] == serving
    assert rig.on_host("ls /opt/koprogo/traefik/dynamic").split() == ["dynamic.yaml"]
    assert "return.json" not in rig.on_host("ls /opt/koprogo/data")
    assert rig.deploy(deploy="verify").code == 0
    rig.sql("DELETE FROM buildings WHERE name LIKE 'Visitor %';")
    rig.on_host("/opt/koprogo/bin/koprogo-data discard")


def test_one_that_fails_on_a_copy_never_touches_the_real_database(migrating: Rig) -> None:
    rig, before, started = migrating, migrating.manifest()["id"], migrating.started()
    kept, image = dumps(rig), rig.migrating_image(VERSION, "SELECT 1 / 0;")
    with Watch(rig) as watch:
        run = rig.deploy(backend_image=image)
    assert run.code == 1, run.output
    assert watch.failures == []
    assert "do not pass on a copy of the database: it ended with exit code 101" in run.output
    assert "division by zero" in run.output, "what the backend logged is shown"
    assert "The real database was not touched" in run.output
    assert NEVER not in run.output
    assert not applied(rig)
    assert (rig.manifest()["id"], rig.started(), dumps(rig)) == (before, started, kept)
    assert rig.leftovers() == []
    told = line(rig)
    assert (told["outcome"], told["rehearsal"]["passed"]) == ("failed", False)
    assert mark(rig, told["release"]).startswith("not routed ")
    again = rig.deploy(backend_image=image)
    assert again.code == 1, again.output
    assert "this very release was not routed " in again.output
    assert "Starting operation: Rehearse" not in again.output


@pytest.mark.slow
def test_a_lock_beyond_the_limit_is_refused(migrating: Rig) -> None:
    rig, image = migrating, migrating.migrating_image(VERSION, SLOW.format(seconds=1))
    run = rig.deploy(backend_image=image, migration_lock_limit="500ms")
    assert run.code == 1, run.output
    assert re.search(
        r"buildings locked for [01][\d.]* s .* migration_lock_limit is 0\.5 s", run.output
    )
    assert not applied(rig)
    assert rig.leftovers() == []


def contracting_image(rig: Rig) -> str:
    """Renames a column (contract): the image knows it, one that serves does not."""
    at = "/app/koprogo_standin"
    script = f"""sed -i 's/"phone"/"telephone"/' {at}/lists.py; rm {at}/__pycache__/lists.*"""
    rename = "ALTER TABLE owners RENAME COLUMN phone TO telephone;"
    return rig.migrating_image(VERSION, rename, script)


@pytest.mark.slow
def test_one_that_breaks_what_serves_is_not_switched_to_and_forward_is_the_way_out(
    migrating: Rig,
) -> None:
    rig, before = migrating, migrating.manifest()["id"]
    image = contracting_image(rig)
    run = rig.deploy(backend_image=image)
    assert run.code == 1, run.output
    assert "column owners.phone is gone" in run.output, "the rehearsal warns of it"
    assert f"broke {before}, which serves: /owners: 500" in run.output
    assert "was not routed" in run.output
    assert applied(rig)
    assert rig.manifest()["id"] == before
    assert "its migration breaks" in mark(rig, line(rig)["release"])
    assert f"that release {before} lacks ({VERSION})" in line(rig)["cannot_restart"]
    assert line(rig)["cannot_restart"] in run.output
    env = rig.environment
    [trouble] = status.problems(remote.stack(env), remote.now(env), remote.journal_of(env))
    assert f"that release {before} lacks ({VERSION})" in trouble
    forward = rig.deploy(backend_image=image, retry_bad_release=True)
    assert forward.code == 0, forward.output
    assert rig.manifest()["requested"]["backend"] == image
    assert rig.leftovers() == []


@pytest.mark.slow
def test_what_a_migration_broke_is_mended_by_its_dump(migrating: Rig) -> None:
    rig, before = migrating, migrating.manifest()["id"]
    assert rig.deploy(backend_image=contracting_image(rig)).code == 1
    told = rig.deploy(deploy="rollback", release=before)
    assert told.code == 1, told.output
    assert f"--data release={before} --data restore_dump=true" in told.output
    run = rig.deploy(deploy="rollback", release=before, restore_dump=True)
    try:
        assert run.code == 0, run.output
        assert not applied(rig)
        assert rig.manifest()["id"] == before
        assert rig.deploy(deploy="verify").code == 0
        # The new colour, stopped for its log, goes.
        assert rig.converge().changed in ([], ["Settle | Let the release count"])
        assert rig.leftovers() == []
    finally:
        rig.on_host("/opt/koprogo/bin/koprogo-data drop-old")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "cut"])
def test_what_a_killed_rehearsal_leaves_is_removed_by_the_next_run(
    migrating: Rig, how: str
) -> None:
    rig, image = migrating, migrating.migrating_image(VERSION, SLOW.format(seconds=20))
    rig.hang_up()
    with Watch(rig) as watch:
        process = rig.start(backend_image=image)
        deadline = time.monotonic() + 60
        while "koprogo-rehearsal-1" not in rig.on_host("docker ps --format '{{.Names}}'"):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        if how == "killed":
            end(process)
        else:
            rig.hang_up()
            rig.cut_ssh()
        process.communicate(timeout=60)
        run = rig.converge()
    assert watch.failures == []
    assert "an earlier run was cut while it rehearsed" in run.output
    assert not applied(rig)
    assert rig.leftovers() == []


@pytest.mark.slow
def test_no_room_for_a_copy_is_refused_with_the_numbers(migrating: Rig) -> None:
    rig, image = migrating, migrating.migrating_image(VERSION, SLOW.format(seconds=0))
    assert rig.deploy(deploy="release", backend_image=image).code == 0
    free = int(rig.on_host("df -PB1 /opt | awk 'NR==2 {print $4}'"))
    rig.on_host(f"fallocate -l {free - 600 * 1024**2} /opt/full")
    try:
        run = rig.deploy(deploy="migrate")
    finally:
        rig.on_host("rm -f /opt/full")
    assert run.code == 1, run.output
    assert re.search(r"no room to rehearse them: \d+ MB free, and \d+ MB needed: ", run.output)
    assert not applied(rig)
