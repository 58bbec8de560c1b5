"""The data can be brought back: backups that were read back, drills that refuse, restores that fit.

The storage is a real SSH server in a container beside the box, or a directory in the box.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy import maintenance, remote
from koprogo_deploy.data.host import DATA_LOCK
from koprogo_deploy.operations import lock, restore
from koprogo_deploy.render import container_names
from sandbox.client import Docker
from sandbox.state import Sandbox
from tests.integration.rig import ENVIRONMENT, PYINFRA, ROOT, Rig, Watch, instead_of

DATA = "/opt/koprogo/bin/koprogo-data"
LOCAL = "/opt/koprogo/backups"
VOLUME = "/var/lib/docker/volumes/koprogo_uploads"
KOPROGO = str(Path(sys.executable).with_name("koprogo"))
# The largest pack: most of it is the upload of `mine`, which every backup has.
PACK = f"$(find {LOCAL}/data -type f -printf '%s %p\\n' | sort -n | tail -n 1 | cut -d' ' -f2)"


def koprogo(*arguments: str) -> tuple[int, Any]:
    done = subprocess.run(
        [KOPROGO, *arguments, "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def newest(rig: Rig, kind: str) -> dict[str, Any]:
    """The newest line of the journal, which has to be of this kind; the chain holds."""
    journal = remote.journal_of(rig.environment)
    assert journal.broken == []
    assert journal.entries[-1]["kind"] == kind
    return journal.entries[-1]


def tables(rig: Rig, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(rig.on_host(f"{DATA} hash {' '.join(options)}"))
    return found


def uploads(rig: Rig) -> list[str]:
    found = rig.on_host(f"cd {VOLUME}/_data && find . -type f -exec sha256sum {{}} + | sort")
    return found.splitlines()


def back_up(rig: Rig, **data: Any) -> dict[str, Any]:
    run = rig.deploy(deploy="backup", **data)
    assert run.code == 0, run.output[-3000:]
    line = newest(rig, "backup")
    assert line["outcome"] == "done"
    return line


def drill(rig: Rig) -> tuple[bool, dict[str, Any]]:
    """As its timer starts it; whether it passed, and the line it wrote."""
    rig.on_host("systemctl start koprogo-drill.service", check=False, within=200)
    passed = rig.on_host("systemctl show -P Result koprogo-drill.service").strip() == "success"
    return passed, newest(rig, "drill")


def nothing_left(rig: Rig) -> None:
    found = rig.on_host(
        f"docker ps -a --format '{{{{.Names}}}}'; docker network ls --format '{{{{.Name}}}}';"
        f"docker volume ls -q; ls {VOLUME}"
    ).split()
    names = ("scratch", "restored")
    assert [each for each in found if each == "backup" or any(n in each for n in names)] == []


@pytest.fixture(scope="module")
def mine(rig: Rig) -> Iterator[Rig]:
    """The box without anybody's earlier backups: their password may have been another one."""
    rig.on_host(f"rm -rf {LOCAL} /opt/koprogo/data/cache")
    rig.on_host(f"mkdir -p {VOLUME}/_data/é; head -c 300000 /dev/urandom > '{VOLUME}/_data/é/a b'")
    rig.on_host(f"chown -R 1000:1000 {VOLUME}/_data/é; {DATA} backup --by the-tests")
    yield rig
    rig.on_host(f"rm -rf {VOLUME}/_data/é {LOCAL} /opt/koprogo/data/cache; {DATA} drop-old")
    rig.converge()


# --- made, read back, proven ---------------------------------------------------------------------


def test_a_backup_is_read_back_written_down_and_listed(mine: Rig) -> None:
    line = back_up(mine)
    assert line["rows"] == sum(table["rows"] for table in tables(mine).values())
    assert (line["uploads"], line["release"]) == (len(uploads(mine)), mine.manifest()["id"])
    code, [*_, listed] = koprogo("backups", "sandbox")
    assert (code, listed["id"], listed["read_back"]) == (0, line["backup"], True)
    assert listed["drilled"] is None
    nothing_left(mine)
    # Encrypted, and by nobody but root to be opened.
    assert mine.on_host(f"stat -c '%a %U' {LOCAL} /opt/koprogo/data/backup/*").split() == [
        *("700", "root"),
        *("400", "root"),
    ]
    assert mine.on_host(f"grep -rl koprogo {LOCAL} | wc -l").strip() == "0"


@pytest.mark.slow
def test_the_list_says_who_holds_it_up(mine: Rig) -> None:
    lock, holder = DATA_LOCK, "a drill of the timer since 2026-01-01 04:30:00 UTC"
    held = f"echo {holder} > {lock}.holder; exec 9>>{lock}; flock 9; sleep 60; rm -f {lock}.holder"
    mine.on_host(f"nohup sh -c '{held}' >/dev/null 2>&1 & echo $! > /run/held; sleep 0.5")
    try:
        done = subprocess.run(
            [KOPROGO, "backups", "sandbox"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        said = " ".join((done.stdout + done.stderr).split())
        assert f"{holder} holds {lock}; waited 30 s" in said
        assert "koprogo ssh" not in said
    finally:
        mine.on_host(
            f"pkill -P $(cat /run/held); kill $(cat /run/held); rm -f {lock}.holder", check=False
        )


def test_every_backup_of_the_last_days_is_kept(mine: Rig) -> None:
    first, second = back_up(mine), back_up(mine)
    listed = {each["id"] for each in koprogo("backups", "sandbox")[1]}
    assert {first["backup"], second["backup"]} <= listed


def test_the_drill_restores_it_beside_and_compares_everything(mine: Rig) -> None:
    passed, line = drill(mine)
    assert passed, line
    assert line["outcome"] == "done"
    code, [*_, listed] = koprogo("backups", "sandbox")
    assert (code, listed["id"], listed["drilled"]) == (0, line["backup"], line["at"])
    code, status = koprogo("status", "sandbox")
    assert (code, status["problems"]) == (0, [])
    assert status["data"]["drill"]["outcome"] == "done"
    assert any("lost with it" in note for note in status["notes"])
    nothing_left(mine)


def test_both_are_made_on_time_within_the_budget_s_line(mine: Rig) -> None:
    timers = mine.on_host("systemctl list-timers --all --no-legend 'koprogo-*'")
    assert "koprogo-backup.timer" in timers
    assert "koprogo-drill.timer" in timers
    shown = mine.on_host(
        "systemctl show -P Persistent -P RandomizedDelayUSec koprogo-backup.timer;"
        "systemctl show -P MemoryMax -P Nice koprogo-backup.service"
    ).split()
    assert sorted(shown) == sorted(["yes", "10min", str(64 * 2**20), "15"])
    before = len(remote.journal_of(mine.environment).entries)
    mine.on_host("systemctl start koprogo-backup.service", within=200)
    line = newest(mine, "backup")
    assert (line["outcome"], line["by"], line["line"]) == ("done", "the timer", before + 1)


# As code in the backend would: a link until it sees that its file is linked, then a directory.
RACE = """cd /app/uploads; mkdir zz-sub; ln -s /var/lib/docker zz; echo x > zz-sub/canary
ln -s /etc zl; mkfifo zp; printf x > "$(printf 'z\\377\\n\\033[31m')"
while [ "$(stat -c %h zz-sub/canary)" -lt 2 ]; do :; done
rm zz; mkdir -p zz/poc.d; echo planted > zz/poc.txt"""


def test_links_in_the_uploads_lead_nowhere_and_are_told(mine: Rig) -> None:
    """By the timer's unit, which is confined as well."""
    backend = f"koprogo-{container_names(mine.manifest()['colours'])['backend']}-1"
    try:
        mine.on_host(f"docker exec -d -u 1000 {backend} sh -c {shlex.quote(RACE)}; sleep 1")
        mine.on_host("systemctl start koprogo-backup.service", within=200)
        assert "planted" in mine.on_host(f"cat {VOLUME}/_data/zz/poc.txt"), "the race was run"
        assert mine.on_host("ls -d /var/lib/docker/poc.* 2>/dev/null; true") == ""
        line = newest(mine, "backup")
        assert line["outcome"] == "done"
        [*_, told] = line["warnings"]
        assert told.startswith("left out of the uploads, 3: zl (a symbolic link); zp (a pipe); zz")
        assert koprogo("backups", "sandbox")[1][-1]["warnings"] == line["warnings"]
        assert f"the newest backup: {told}" in koprogo("status", "sandbox")[1]["notes"]
        nothing_left(mine)
    finally:
        mine.on_host(f"rm -rf {VOLUME}/_data/z*; rm -rf /var/lib/docker/poc.*")
    exposed = mine.on_host(
        "systemd-analyze security --no-pager koprogo-backup.service koprogo-drill.service"
    )
    scores = re.findall(r"^koprogo-\w+\.service +([0-9.]+) ", exposed, re.MULTILINE)
    assert len(scores) == 2, exposed
    # Each point that is left has its reason in the unit's template.
    assert all(float(each) <= 3.3 for each in scores), exposed


def test_a_backup_waits_while_a_deploy_runs(mine: Rig) -> None:
    held = f"exec 9>>{lock.PATH}; flock 9; sleep 3"
    mine.on_host(
        f"nohup sh -c '{held}' >/dev/null 2>&1 & sleep 0.5; "
        f"systemctl start --no-block koprogo-backup.service"
    )
    time.sleep(1)
    assert mine.on_host("systemctl is-active koprogo-backup.service", check=False).strip() == (
        "activating"
    )
    assert "backup" not in mine.on_host(f"ls {VOLUME}").split()
    deadline = time.monotonic() + 60
    while mine.on_host("systemctl is-active koprogo-backup.service", check=False).strip() != (
        "inactive"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert newest(mine, "backup")["outcome"] == "done"


def test_a_backup_is_made_behind_a_page_that_does_not_let_this_machine_pass(mine: Rig) -> None:
    settings = mine.environment.settings
    page = maintenance.Maintenance("2026-01-01T00:00:00+00:00", "a test", "back at ten", 30, ())
    mine.on_host(maintenance.on_command(settings, page), stdin=maintenance.render(page))
    try:
        assert back_up(mine)["outcome"] == "done"
        verify = mine.deploy(deploy="verify")
        assert verify.code == 1
        assert "This machine does not, so the smoke tests would fail" in verify.output
    finally:
        mine.on_host(maintenance.off_command(settings))


@pytest.mark.slow
def test_a_deploy_waits_for_a_drill_and_says_for_what(mine: Rig) -> None:
    holder = "a drill of the timer since 2026-01-01 04:30:00 UTC"
    held = (
        f"echo {holder} > {lock.PATH}.holder; exec 9>>{lock.PATH}; flock 9; sleep %d; "
        f"rm -f {lock.PATH}.holder"
    )
    start = "nohup sh -c '%s' >/dev/null 2>&1 & sleep 0.5"
    mine.on_host(start % (held % 6))
    began = time.monotonic()
    run = mine.deploy(lock_wait="1s")
    assert run.code == 0, run.output
    assert time.monotonic() - began > 5
    assert f"{holder} is running: waiting for it to end, 600 s at most" in run.output
    mine.on_host(start % (held % 10))
    began = time.monotonic()
    run = mine.deploy(lock_wait="1s", backup_wait="2s")
    assert run.code == 1
    assert f"{holder} is still running on sandbox after 2 s. Nothing was touched" in run.output
    mine.on_host(f"flock -w 20 {lock.PATH} true")


@pytest.mark.slow
def test_a_deploy_need_not_wait_until_the_storage_has_the_backup(mine: Rig) -> None:
    """As soon as all of it is on the stage, the database may change."""
    slow = 'case "$*" in *" backup "*) sleep 12 ;; esac; exec /usr/bin/restic "$@"'
    with instead_of(mine, "restic", slow):
        mine.on_host("systemctl start --no-block koprogo-backup.service")
        deadline = time.monotonic() + 30
        while not mine.on_host("pgrep -f '[r]estic .* backup '; true").strip():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        run = mine.deploy(lock_wait="1s")
        assert run.code == 0, run.output
        assert "waiting for it to end" not in run.output
        state = "systemctl is-active koprogo-backup.service"
        assert mine.on_host(state, check=False).strip() == "activating"
        while mine.on_host(state, check=False).strip() == "activating":
            assert time.monotonic() < deadline + 60
            time.sleep(0.5)
    assert newest(mine, "backup")["outcome"] == "done"
    nothing_left(mine)


# --- refused by the drill ------------------------------------------------------------------------

# Of the backup itself: not that the release does not fit it, or does not come up.
UNREADABLE = "restic: |is damaged: |ends before its end|does not restore: "
DAMAGE = {
    "truncated": (f"truncate -s -100 {PACK}", UNREADABLE),
    "bit-flipped": (
        f"f={PACK}; chmod u+w $f; python3 -c 'import sys; f = open(sys.argv[1], "
        '"r+b"); n = f.seek(0, 2) // 2; f.seek(n); b = f.read(1); f.seek(n); '
        "f.write(bytes([b[0] ^ 1]))' $f",
        UNREADABLE,
    ),
    "wrong key": (
        "f=/opt/koprogo/data/backup/password; tr 0-9 1-90 < $f > $f.new; mv $f.new $f",
        "another BACKUP_PASSWORD",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_drill_refuses_a_damaged_backup_and_status_says_so(mine: Rig, damage: str) -> None:
    kept = "/opt/koprogo/data/kept"
    mine.on_host(
        f"rm -rf {kept}; mkdir {kept} && cp -a {LOCAL} /opt/koprogo/data/backup/password {kept}/"
    )
    command, told = DAMAGE[damage]
    try:
        mine.on_host(command)
        passed, line = drill(mine)
        assert not passed
        assert line["outcome"] == "failed"
        assert re.search(told, line["reason"]), line["reason"]
        code, status = koprogo("status", "sandbox")
        assert code == 1
        assert any("newest drill" in problem for problem in status["problems"])
        nothing_left(mine)
    finally:
        mine.on_host(
            f"rm -rf {LOCAL}; mv {kept}/backups {LOCAL}; "
            f"cp -a --remove-destination {kept}/password /opt/koprogo/data/backup/; rm -rf {kept}"
        )
    assert drill(mine)[0]
    assert koprogo("status", "sandbox")[0] == 0


@pytest.mark.faults
def test_a_backup_that_finds_no_room_fails_cleanly_and_leaves_room(mine: Rig) -> None:
    small = "/mnt/small"
    mine.on_host(f"mkdir -p {small} && mount -t tmpfs -o size=24m tmpfs {small}")
    try:
        place: dict[str, Any] = {"backup_repository": f"{small}/repository"}
        place["backup_timeout"] = "60s"  # restic was once seen to hang here
        mine.converge(**place)
        back_up(mine, **place)
        used = int(mine.on_host(f"du -sk {small} | cut -f1"))
        mine.on_host(f"head -c 40000000 /dev/urandom > {VOLUME}/_data/é/big")
        run = mine.deploy(deploy="backup", **place)
        assert run.code == 1
        told = r"the backup needs up to \d+ MB in /mnt/small/repository, .*: \d+ MB are\. Nothing"
        assert re.search(told, run.output), run.output[-3000:]
        nothing_left(mine)
        # Its time says that it is in the repository already, which it is not.
        mine.on_host(f"touch -d '2 days ago' {VOLUME}/_data/é/big")
        with Watch(mine) as watch:
            run = mine.deploy(deploy="backup", **place)
        assert run.code == 1
        assert "no space left" in run.output
        assert watch.failures == []
        assert newest(mine, "backup")["outcome"] == "failed"
        assert koprogo("status", "sandbox")[0] == 1
        nothing_left(mine)
        assert int(mine.on_host(f"du -sk {small} | cut -f1")) < used + 4000
        mine.on_host(f"rm {VOLUME}/_data/é/big")
        back_up(mine, **place)
    finally:
        mine.on_host(f"rm -f {VOLUME}/_data/é/big; umount -l {small}; rmdir {small}")
        mine.converge()


def test_a_stage_without_room_is_refused_with_the_numbers(mine: Rig) -> None:
    # A directory of 1 MB where the dump would go, in a namespace of the command's own.
    mine.on_host("mkdir -p /mnt/tiny && mount -t tmpfs -o size=1m tmpfs /mnt/tiny")
    try:
        done = mine.on_host(f"{DATA} dump /mnt/tiny/x.dump 2>&1", check=False)
        assert "needs up to" in done
        assert "Nothing was written" in done
        assert mine.on_host("ls /mnt/tiny") == ""
    finally:
        mine.on_host("umount /mnt/tiny; rmdir /mnt/tiny")


def test_a_run_that_is_killed_is_written_down_by_its_unit(mine: Rig) -> None:
    mine.on_host("systemctl start --no-block koprogo-drill.service; sleep 1.5")
    mine.on_host("systemctl kill -s KILL koprogo-drill.service")
    deadline = time.monotonic() + 30
    while "ended: signal" not in newest_reason(mine):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    state = "systemctl is-active koprogo-drill.service"
    while mine.on_host(state, check=False).strip() == "deactivating":  # it cleans up after that
        assert time.monotonic() < deadline
        time.sleep(0.5)
    nothing_left(mine)
    assert drill(mine)[0]


@pytest.mark.slow
def test_a_prune_that_was_killed_does_not_lock_later_backups_out(mine: Rig) -> None:
    """Its lock is exclusive, and stays: restic dies before it can take it away."""
    killed = 'case "$*" in *" forget "*) /usr/bin/restic "$@" & sleep 0.1; while :; do '
    killed += f"ls -A {LOCAL}/locks | grep -qv tmp && kill -KILL $! && exit 137; done ;; esac; "
    with instead_of(mine, "restic", killed + 'exec /usr/bin/restic "$@"'):
        run = mine.deploy(deploy="backup")
    assert run.code == 1, run.output[-3000:]
    assert newest(mine, "backup")["outcome"] == "failed"
    assert mine.on_host(f"ls -A {LOCAL}/locks").split(), "nothing is locked"
    back_up(mine)
    assert mine.on_host(f"ls -A {LOCAL}/locks").split() == []


def newest_reason(rig: Rig) -> str:
    return str(remote.journal_of(rig.environment).entries[-1].get("reason", ""))


# --- brought back --------------------------------------------------------------------------------


def test_a_backup_is_restored_while_the_site_is_up_and_taken_back(mine: Rig) -> None:
    before, files = tables(mine), uploads(mine)
    made = back_up(mine)
    lost = (
        "INSERT INTO refresh_tokens (id, user_id, token, expires_at, revoked, created_at) SELECT "
    )
    lost += "gen_random_uuid(), id, 'since', now(), false, now() FROM users LIMIT 1; "
    mine.sql(f"{lost} DELETE FROM expenses WHERE id IN (SELECT id FROM expenses LIMIT 3);")
    mine.on_host(f"rm '{VOLUME}/_data/é/a b'; echo later > {VOLUME}/_data/é/later")
    after = tables(mine)
    assert after != before
    run = mine.deploy(deploy="restore", backup=made["backup"], reason="a try")
    assert run.code == 0, run.output[-4000:]
    assert "expenses -3" in run.output
    assert "refresh_tokens +1" in run.output
    found = tables(mine)
    # KoproGo writes its superadmin anew at each start.
    assert {n for n in before if before[n] != found[n]} <= {"public.users", "public.refresh_tokens"}
    assert before["public.users"]["rows"] == found["public.users"]["rows"]
    assert uploads(mine) == files
    line = newest(mine, "run")
    assert (line["run"], line["outcome"], line["why"]) == ("restore", "done", "a try")
    assert line["restore"]["backup"] == made["backup"]
    assert mine.on_host("ls /opt/koprogo/traefik/dynamic").split() == ["dynamic.yaml"]

    none = mine.deploy(deploy="restore", backup="koprogo_before_1t1")
    assert none.code == 1
    told = r"no koprogo_before_1t1 is kept here; what served before restores: (\w+)"
    kept = re.search(told, none.output)
    assert kept, none.output[-3000:]
    back = mine.deploy(deploy="restore", backup=kept[1])
    assert back.code == 0, back.output[-4000:]
    assert tables(mine)["public.expenses"] == after["public.expenses"]
    assert not any(name.endswith("a b") for name in uploads(mine))
    dropped = mine.deploy(deploy="restore", backup="drop_old")
    assert dropped.code == 0, dropped.output[-4000:]
    assert mine.sql("SELECT count(*) FROM pg_database WHERE datname ~ 'before|restored'") == "0"
    assert mine.on_host(f"ls {VOLUME}").split() == ["_data"]
    again = mine.deploy(deploy="restore", backup=made["backup"])
    assert again.code == 0, again.output[-4000:]


@pytest.mark.faults
def test_a_live_database_that_cannot_be_read_is_replaced(mine: Rig) -> None:
    made = back_up(mine)
    before = tables(mine)["public.expenses"]
    # Its file is not there.
    mine.sql(
        "CREATE TABLE damaged AS SELECT 1; SET allow_system_table_mods = on; "
        "UPDATE pg_class SET relfilenode = 4000000000 WHERE relname = 'damaged'"
    )
    assert "could not open file" in mine.on_host(f"{DATA} hash 2>&1", check=False)
    run = mine.deploy(deploy="restore", backup=made["backup"])
    assert run.code == 0, run.output[-4000:]
    assert "what was written since cannot be counted: " in run.output
    assert tables(mine)["public.expenses"] == before
    dropped = mine.deploy(deploy="restore", backup="drop_old")
    assert dropped.code == 0, dropped.output[-4000:]


def test_a_backup_that_does_not_fit_or_is_not_there_touches_nothing(mine: Rig) -> None:
    before = mine.started()
    run = mine.deploy(deploy="restore", backup="0000")
    assert run.code == 1
    assert "no backup is '0000'; there are: " in run.output
    none = mine.deploy(deploy="restore")
    assert none.code == 2
    assert "koprogo backups <environment> lists them" in none.output
    elsewhere = mine.deploy(backup="latest")
    assert elsewhere.code == 2
    lacking = "sed -i '/20250103000003/d' /opt/koprogo/current/migrations.txt"
    kept = mine.on_host("cat /opt/koprogo/current/migrations.txt")
    mine.on_host(lacking)
    try:
        run = mine.deploy(deploy="restore", backup="latest")
        assert run.code == 1
        assert "does not fit the backup: the database has 1 migration(s) that the image lacks" in (
            run.output
        )
    finally:
        mine.on_host("cat > /opt/koprogo/current/migrations.txt", stdin=kept)
    assert mine.started() == before
    nothing_left(mine)
    assert mine.sql("SELECT count(*) FROM pg_database WHERE datname ~ 'restored'") == "0"


def test_a_host_that_holds_data_is_not_recovered(mine: Rig) -> None:
    before, serving, data = mine.started(), mine.manifest()["id"], tables(mine)
    run = mine.deploy(deploy="recover", backup="latest")
    assert run.code == 1
    assert re.search(r"\b23 buildings\b.* 3 organizations\b.* and \d+ uploads \(", run.output)
    assert "Nothing was touched" in run.output
    assert "deploys/restore.py brings a backup in place of what is there" in run.output
    assert "Starting operation: Host" not in run.output
    assert (mine.started(), mine.manifest()["id"]) == (before, serving)
    assert tables(mine) == data
    asked = mine.deploy("--dry", deploy="recover", backup="latest", over_data=True)
    assert asked.code == 0, asked.output
    other: dict[str, Any] = {"over_data": True, "backend_log_level": "error"}
    refused = mine.deploy(deploy="recover", backup="latest", **other)
    assert refused.code == 1, refused.output
    assert f"release {serving} serves here, and group data asks for another one" in refused.output
    assert "deploys/full.py first, or deploys/restore.py" in refused.output
    assert "Starting operation: Host" not in refused.output
    assert (mine.started(), mine.manifest()["id"]) == (before, serving)
    elsewhere = mine.deploy(over_data=True)
    assert elsewhere.code == 2
    assert "only deploys/recover.py takes it" in elsewhere.output


@pytest.mark.slow
def test_it_is_recovered_over_its_data_if_that_is_meant_and_what_it_held_stays(mine: Rig) -> None:
    made = back_up(mine)
    before, files = tables(mine), uploads(mine)
    mine.sql("DELETE FROM expenses WHERE id IN (SELECT id FROM expenses LIMIT 3);")
    mine.on_host(f"rm '{VOLUME}/_data/é/a b'")
    after = tables(mine)
    run = mine.deploy(deploy="recover", backup=made["backup"], over_data=True)
    assert run.code == 0, run.output[-4000:]
    assert "over_data: what it holds stays beside what is restored" in run.output
    assert "expenses -3" in run.output
    found = tables(mine)
    assert {n for n in before if before[n] != found[n]} <= {"public.users", "public.refresh_tokens"}
    assert uploads(mine) == files
    assert newest(mine, "run")["run"] == "recover"
    back = mine.deploy(deploy="restore", backup="before")
    assert back.code == 0, back.output[-4000:]
    assert tables(mine)["public.expenses"] == after["public.expenses"]
    again = mine.deploy(deploy="restore", backup="before")
    assert again.code == 0, again.output[-4000:]
    assert uploads(mine) == files
    mine.on_host(f"{DATA} drop-old")


@pytest.mark.slow
def test_data_of_which_no_server_answers_is_set_aside_by_hand_and_then_recovered(mine: Rig) -> None:
    made, volumes = back_up(mine), "/var/lib/docker/volumes"
    before, files = tables(mine), uploads(mine)
    mine.on_host("docker rm -f koprogo-postgres-1")
    try:
        for data in ({}, {"over_data": True}):
            run = mine.deploy(deploy="recover", backup=made["backup"], **data)
            assert run.code == 1, run.output
            assert "a data directory of Postgres 17, of which no server answers" in run.output
            assert "deploys/full.py starts Postgres on it" in run.output
            assert restore.SET_ASIDE in " ".join(run.output.split())
            assert "--data over_data" not in run.output
        mine.on_host(restore.SET_ASIDE)
        run = mine.deploy(deploy="recover", backup=made["backup"])
        assert run.code == 0, run.output[-4000:]
        found = tables(mine)
        changed = {name for name in before if before[name] != found[name]}
        assert changed <= {"public.users", "public.refresh_tokens"}
        assert uploads(mine) == files
        assert mine.on_host(f"cat {volumes}/koprogo_postgres_data/set_aside/PG_VERSION") == "17\n"
    finally:
        mine.on_host(f"rm -rf {volumes}/koprogo_*/set_aside")
        mine.converge()


@pytest.mark.faults
def test_a_swap_that_is_cut_is_ended_by_the_next_run(mine: Rig) -> None:
    made = back_up(mine)
    mine.on_host(f"{DATA} prepare {made['backup']}")
    # The databases are renamed, the uploads are not, and the backend does not run.
    cut = f"""import sys; sys.path.insert(0, '/opt/koprogo/data/lib')
from pathlib import Path
from koprogo_deploy.data import host, live
config = host.read_config(Path('/opt/koprogo'))
stopped = live.backends()
live._remember(config, old='koprogo_before_20000101t000000', coming=live.NEW, stopped=stopped)
host.run('docker', 'stop', *stopped)
host.sql(host.POSTGRES, live.swap_sql('koprogo_before_20000101t000000', live.NEW), 'postgres')
print(live.{"NEW"})"""
    mine.on_host("python3 -", stdin=cut)
    run = mine.deploy(deploy="restore", backup="drop_old")
    assert run.code == 1
    assert "what served before it is kept as koprogo_before_20000101t000000" in run.output
    assert "Nothing was dropped" in run.output
    mine.wait_until_healthy()
    assert mine.sql("SELECT count(*) FROM pg_database WHERE datname ~ 'before'") == "1"
    run = mine.deploy(deploy="restore", backup="drop_old")
    assert run.code == 0, run.output[-4000:]
    assert mine.on_host(f"ls {VOLUME}").split() == ["_data"]
    assert {n: t["rows"] for n, t in tables(mine).items() if "expenses" in n} == {
        "public.expenses": int(mine.sql("SELECT count(*) FROM expenses"))
    }
    assert mine.on_host("ls /opt/koprogo/data").split() == [
        "backup",
        "cache",
        "lib",
        "settings.json",
        "tmp",
    ]


@pytest.mark.faults
def test_a_swap_that_was_cut_before_its_rename_is_not_made_later(mine: Rig) -> None:
    """Killed while the backend stopped; then a deploy had the site up again, and people wrote."""
    made = back_up(mine)
    mine.on_host(f"{DATA} prepare {made['backup']}")
    stops_nothing = 'case "$*" in stop*) exec sleep 5 ;; esac; exec /usr/bin/docker "$@"'
    cut = "until test -e /opt/koprogo/data/restore.json; do sleep 0.1; done; kill -KILL $swap"
    with instead_of(mine, "docker", stops_nothing):
        mine.on_host(f"{DATA} swap >/dev/null 2>&1 & swap=$!; {cut}")
    refused = mine.deploy(deploy="backup")
    assert refused.code == 1
    assert (
        "this ends it: pyinfra inventories/sandbox.py deploys/restore.py --data backup=drop_old"
        in (refused.output)
    )
    mine.sql("DELETE FROM expenses WHERE id IN (SELECT id FROM expenses LIMIT 1);")
    written = tables(mine)["public.expenses"]
    with Watch(mine) as watch:
        run = mine.deploy(deploy="restore", backup="drop_old")
    assert run.code == 1
    assert "cut before anything was renamed is forgotten" in run.output
    assert watch.failures == []
    assert tables(mine)["public.expenses"] == written
    run = mine.deploy(deploy="restore", backup="drop_old")
    assert run.code == 0, run.output[-4000:]
    assert tables(mine)["public.expenses"] == written
    assert mine.on_host(f"ls {VOLUME}").split() == ["_data"]


# --- off the host --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Store:
    """An SSH server in a container beside the box, as storage elsewhere is."""

    docker: Docker
    name: str
    address: str
    values: dict[str, Any]


@pytest.fixture(scope="module")
def store(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    docker, name = rig.docker, f"{rig.sandbox.prefix}-store"
    key = tmp_path_factory.mktemp("store") / "backup_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    docker.call("rm", "--force", name, check=False)
    public = key.with_suffix(".pub").read_text().strip()
    script = (
        "ssh-keygen -A >/dev/null; useradd -m -s /usr/sbin/nologin store; usermod -p '*' store; "
        "cd /home/store; install -d -m 700 -o store .ssh; "
        f"echo '{public}' > .ssh/authorized_keys; chown store .ssh/authorized_keys; "
        "mkdir -p /run/sshd; "
        "exec /usr/sbin/sshd -D -e -o 'ForceCommand=internal-sftp'"
    )
    [image] = [each["Config"]["Image"] for each in docker.inspect("container", rig.sandbox.vps)]
    docker.call(
        *("run", "--detach", "--name", name, "--label", rig.sandbox.label),
        *("--network", rig.sandbox.network, "--entrypoint", "sh", image, "-c", script),
    )
    try:
        [found] = docker.inspect("container", name)
        [network] = found["NetworkSettings"]["Networks"].values()
        address = network["IPAddress"]
        deadline = time.monotonic() + 20
        host_key = ""
        while not host_key:
            assert time.monotonic() < deadline
            done = docker.call(
                "exec", name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub", check=False
            )
            host_key = " ".join(done.stdout.split()[:2])
            time.sleep(0.2)
        values = {
            "backup_repository": f"sftp:store@{address}:/home/store/koprogo",
            "backup_ssh_key": str(key),
            "backup_host_key": host_key,
        }
        yield Store(docker, name, address, values)
    finally:
        docker.call("rm", "--force", "--volumes", name, check=False)


@pytest.mark.slow
def test_backups_lie_elsewhere_over_sftp(mine: Rig, store: Store) -> None:
    try:
        mine.converge(**store.values)
        line = back_up(mine, **store.values)
        assert line["repository"].startswith("sftp:store@")
        passed, proven = drill(mine)
        assert passed, proven
        assert proven["backup"] == line["backup"]
        secrets = mine.on_host("stat -c '%a %U %n' /opt/koprogo/data/backup/*").splitlines()
        assert [each.rpartition("/")[2] for each in secrets] == [
            "known_hosts",
            "password",
            "ssh_key",
        ]
        assert all(each.startswith("400 root ") for each in secrets)
        # A server with another key is not the storage.
        known = mine.environment.settings.model_copy(update=store.values).backup_host_key or ""
        other = known[:-4] + ("AAAA" if known[-4:] != "AAAA" else "BBBB")
        mine.converge(**{**store.values, "backup_host_key": other})
        refused = mine.deploy(deploy="backup", **{**store.values, "backup_host_key": other})
        assert refused.code == 1
        assert re.search(
            "Host key verification failed|key the one of backup_host_key", refused.output
        )
    finally:
        mine.converge()
    assert mine.on_host("ls /opt/koprogo/data/backup").split() == ["password"]


def test_secrets_of_backups_are_seen_nowhere(mine: Rig) -> None:
    password = mine.environment.secrets["BACKUP_PASSWORD"]
    run = mine.deploy("-vv", deploy="backup")
    assert run.code == 0
    assert password not in run.output
    found = mine.on_host("grep -rslF -f - /var/log /run/log /opt/koprogo; true", stdin=password)
    assert found.split() == ["/opt/koprogo/data/backup/password"]


@pytest.mark.slow
def test_an_empty_vps_comes_back_from_elsewhere_by_one_command(
    mine: Rig, store: Store, tmp_path: Path
) -> None:
    """A new box from a new checkout, and nothing else but the repository and the secrets file."""
    try:
        mine.converge(**store.values)
        back_up(mine, **store.values)
        before, files = tables(mine), uploads(mine)
    finally:
        mine.converge()
    other = Elsewhere(tmp_path / "project")
    try:
        other.call(sys.executable, "-m", "sandbox", "up")
        network = Sandbox(other.root).network
        store.docker.call("network", "connect", network, store.name)
        [found] = store.docker.inspect("container", store.name)
        address = found["NetworkSettings"]["Networks"][network]["IPAddress"]
        values = {**store.values, "backup_repository": f"sftp:store@{address}:/home/store/koprogo"}
        data = [word for k, v in values.items() for word in ("--data", f"{k}={v}")]
        began = time.monotonic()
        recover = ("inventories/sandbox.py", "deploys/recover.py", "-y", "--data", "backup=latest")
        said = other.call(PYINFRA, *recover, *data)
        print(f"an empty VPS serves the backup after {time.monotonic() - began:.0f} s")
        assert f"{len(before)} tables" in said
        there = json.loads(other.on_host(f"{DATA} hash"))
        # KoproGo writes its superadmin anew at each start; the smoke tests log in.
        changed = {name for name in before if before[name] != there[name]}
        assert changed <= {"public.users", "public.refresh_tokens"}
        listing = f"cd {VOLUME}/_data && find . -type f -exec sha256sum {{}} + | sort"
        assert other.on_host(listing).splitlines() == files
    finally:
        network = Sandbox(other.root).network
        store.docker.call("network", "disconnect", "--force", network, store.name, check=False)
        other.call(sys.executable, "-m", "sandbox", "down")


class Elsewhere:
    """Another checkout of this project, with a sandbox of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        left_out = shutil.ignore_patterns(".venv", ".sandbox", ".git", "results", "__pycache__")
        shutil.copytree(ROOT, root, symlinks=True, ignore=left_out)

    def call(self, *command: str) -> str:
        environment = {**ENVIRONMENT, "PYTHONPATH": str(self.root)}
        environment.pop("KOPROGO_SANDBOX_ROOT", None)
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        return done.stdout + done.stderr

    def on_host(self, script: str) -> str:
        return self.call(KOPROGO, "ssh", "sandbox", f"sudo -n sh -c {shlex.quote(script)}")
