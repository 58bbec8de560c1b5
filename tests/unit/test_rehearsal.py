"""Rehearsals: what is pending, how the copy is migrated, what locks and columns say of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy import database, on_host, rehearsal
from koprogo_deploy.cli.releases import _rehearsed
from koprogo_deploy.on_host import rehearse
from koprogo_deploy.rehearsal import Rehearsed
from tests import project

BASE = project.settings()
INDEXES = list(database.INDEXES)


# --- what is pending -----------------------------------------------------------------------------


def test_the_sets_are_compared_not_the_newest() -> None:
    applied = {"1": True, "3": True}
    assert rehearsal.pending(applied, {"1", "2", "3"}) == ["2"], "a back-dated one"
    assert rehearsal.pending(applied, {"1", "3"}) == []
    assert rehearsal.pending(applied, {"1", "3", "5", "4"}) == ["4", "5"]


def test_an_empty_database_has_nothing_to_rehearse() -> None:
    assert rehearsal.pending({}, {"1", "2"}) == []


# --- how the new image runs on the copy ----------------------------------------------------------


def options(command: list[str], name: str) -> list[str]:
    return [command[i + 1] for i, word in enumerate(command) if word == name]


def test_it_runs_as_confined_as_the_real_one_and_cannot_reach_the_real_data() -> None:
    settings = project.settings(backend_environment={"GREETING": "a$b"}, backend_memory="130MB")
    definition = project.release(settings).definitions["backend"]
    command = rehearsal.run_command(definition, "/opt/koprogo")
    assert command[:3] == ["docker", "run", "-d"]
    assert options(command, "--network") == ["koprogo-scratch"], "and no other one"
    assert options(command, "--memory") == options(command, "--memory-swap") == ["130MB"]
    assert options(command, "--cap-drop") == ["ALL"]
    assert options(command, "--user") == ["1000:1000"]
    assert "--read-only" in command
    volumes = options(command, "--volume")
    assert not any(volume.startswith("uploads") for volume in volumes)
    assert any(tmp.startswith("/app/uploads:") for tmp in options(command, "--tmpfs"))
    names = {volume.split(":")[1] for volume in volumes}
    assert "/run/koprogo" in names
    secret = "/run/secrets/database_password"
    assert secret in names
    assert f"/opt/koprogo/data/scratch/backend/database_password:{secret}:ro" in volumes, "its own"
    assert not any("/opt/koprogo/secrets" in volume for volume in volumes), "none of the real ones"
    assert all(volume.endswith(":ro") for volume in volumes)
    assert "GREETING=a$b" in options(command, "--env"), "as Compose reads it"
    image = definition["image"]
    assert command[command.index(image) + 1 :] == ["/run/koprogo/start.sh", "/app/koprogo-api"]
    assert options(command, "--entrypoint") == ["/bin/sh"]
    secrets = [value for value in project.SECRETS.values.values() if value in str(command)]
    assert secrets == []


# --- locks ---------------------------------------------------------------------------------------


def test_a_lock_is_as_long_as_one_transaction_held_it_at_most() -> None:
    lines = [
        "100.000|3/1|buildings|AccessExclusiveLock",
        "100.000|3/1|units|ShareLock",
        "100.500|3/1|buildings|AccessExclusiveLock",
        "101.000|3/1|buildings|AccessExclusiveLock",
        "",
        "105.000|3/2|buildings|AccessExclusiveLock",
        "105.200|3/2|buildings|AccessExclusiveLock",
    ]
    assert rehearse.longest(lines) == [
        {"table": "buildings", "mode": "AccessExclusiveLock", "seconds": 1.1},
        {"table": "units", "mode": "ShareLock", "seconds": 0.1},
    ]
    assert rehearse.longest([]) == []


def seen(**changes: Any) -> Rehearsed:
    locks = [{"table": "buildings", "mode": "AccessExclusiveLock", "seconds": 1.5}]
    times = {"server": 2.0, "copy": 0.5, "start": 3.0}
    return Rehearsed(
        **{"fault": "", "reason": "", "seconds": times, "locks": locks, "migrations": {"2": 1.4}}
        | changes
    )


def test_a_long_lock_is_warned_of_and_a_short_one_is_said() -> None:
    lines, warnings = rehearsal.told(seen(), 1.0)
    assert lines == [
        "rehearsed on a copy: copied in 0.5 s, migrated in 1.40 s, answered 3.0 s after its start"
    ]
    assert warnings == ["buildings locked for 1.5 s (AccessExclusive: readers and writers wait)"]
    lines, warnings = rehearsal.told(seen(), 2.0)
    assert lines[1] == "buildings locked for 1.5 s (AccessExclusive: readers and writers wait)"
    assert warnings == []
    share = {"table": "units", "mode": "ShareLock", "seconds": 0.1}
    assert (
        "units locked for 0.1 s (Share: writers wait)" in rehearsal.told(seen(locks=[share]), 1)[0]
    )


def test_rows_written_in_a_long_transaction_are_warned_of_and_refuse_nothing() -> None:
    rows = {"table": "expenses", "mode": "RowExclusiveLock", "seconds": 40.0}
    lines, warnings = rehearsal.told(seen(locks=[rows]), 1)
    assert "no lock of 0.1 s or more" in lines[1], "of the whole table"
    assert warnings == [
        "rows of expenses written in one transaction of 40 s (who writes the same rows waits)"
    ]
    short = {**rows, "seconds": 0.1}  # of every migration that writes a row at all
    assert rehearsal.told(seen(locks=[short]), 1) == (lines, [])
    assert judged(0.5, locks=[rows]).fault == ""


def test_no_lock_and_unknown_locks_are_not_the_same() -> None:
    assert "no lock of 0.1 s or more" in rehearsal.told(seen(locks=[]), 1)[0][1]
    lines, warnings = rehearsal.told(seen(locks=None), 1)
    assert len(lines) == 1
    assert warnings == ["its locks could not be watched to the end"]


def test_how_much_the_database_grew_is_kept() -> None:
    assert judged(grown=5).grown == rehearsal.noted(judged(grown=5))["grown"] == 5
    assert judged().grown == 0


# --- the verdict ---------------------------------------------------------------------------------


def answer(**changes: Any) -> dict[str, Any]:
    columns = {"owners.phone": ["varchar(20)", False, False]}
    return {
        "fault": "",
        "reason": "",
        "seconds": {"server": 2.0, "copy": 0.5, "start": 3.0},
        "locks": [{"table": "owners", "mode": "AccessExclusiveLock", "seconds": 0.6}],
        "found": "1\tt\n2\tt\n" + json.dumps({"indexes": INDEXES}),
        "executions": {"1": 9_000_000_000, "2": 1_400_000_000},
        "columns": [columns, columns],
        "failures": [],
        "log": [],
        **changes,
    }


def judged(limit: float | None = None, **changes: Any) -> Rehearsed:
    return rehearsal.judge(answer(**changes), ["2"], {"1", "2"}, limit)


def test_a_rehearsal_that_passed() -> None:
    found = judged()
    assert (found.fault, found.reason) == ("", "")
    assert found.migrations == {"2": 1.4}, "those that were pending"
    assert (found.migrating, found.longest) == (1.4, 0.6)
    assert rehearsal.noted(found)["passed"]
    json.dumps(rehearsal.noted(found))


def test_what_is_missing_on_the_copy_is_the_releases_fault() -> None:
    schema = json.dumps({"indexes": INDEXES})
    found = judged(found=f"1\tt\n{schema}")
    assert found.fault == "release"
    assert found.reason == "1 migration(s) of the image not applied: 2 …"
    assert judged(found='1\tt\n2\tt\n{"indexes": []}').fault == "release"
    failed = judged(failures=["/owners: 500, not 200"])
    assert (failed.fault, failed.reason) == ("release", "/owners: 500, not 200")
    assert not rehearsal.noted(failed)["passed"]


def test_a_rehearsal_that_could_not_be_ended_is_judged_by_its_own_reason() -> None:
    broken = {"fault": "host", "reason": "no room", "seconds": {}, "locks": [], "log": []}
    found = rehearsal.judge(broken, ["2"], {"1", "2"}, 0.1)
    assert (found.fault, found.reason, found.migrations) == ("host", "no room", {})


def test_a_lock_beyond_the_limit_is_refused_and_one_at_it_is_not() -> None:
    assert judged(0.6).fault == ""
    found = judged(0.5)
    assert found.fault == "release"
    assert found.reason.startswith("owners locked for 0.6 s (AccessExclusive: readers and writers")
    assert "migration_lock_limit is 0.5 s" in found.reason


def test_a_limit_is_not_kept_by_locks_that_nobody_watched() -> None:
    found = judged(0.5, locks=None)
    assert found.fault == "host", "no fault of the release either"
    assert "could not be watched" in found.reason
    assert "migration_lock_limit (0.5 s)" in found.reason
    assert not rehearsal.noted(found)["passed"]
    without = judged(locks=None)
    assert without.fault == ""
    assert rehearsal.told(without, 9)[1] == ["its locks could not be watched to the end"]
    assert "not watched" in _rehearsed(rehearsal.noted(without))


def test_what_a_migration_takes_away_is_named() -> None:
    before = {
        "owners.phone": ["varchar(20)", False, False],
        "owners.email": ["varchar(255)", False, False],
        "owners.name": ["text", True, False],
        "tags.id": ["uuid", True, True],
        "tags.name": ["text", False, False],
    }
    after = {
        "owners.telephone": ["varchar(20)", False, False],
        "owners.email": ["text", True, False],
        "owners.name": ["text", True, False],
        "owners.must": ["text", True, False],
        "owners.may": ["text", False, False],
        "owners.has_default": ["text", True, True],
        "labels.id": ["uuid", True, False],
    }
    assert rehearsal.contracted(before, after) == [
        "table tags is gone",
        "column owners.email is text, and was varchar(255)",
        "column owners.email must have a value now",
        "column owners.phone is gone",
        "new column owners.must must have a value, and has no default",
    ]
    assert rehearsal.contracted(before, before) == []
    assert "more than add" in rehearsal.told(seen(contracted=["table tags is gone"]), 9)[1][0]


# --- the host's program --------------------------------------------------------------------------


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker of ours: what is asked of it is written down; the copy's server is well."""
    (tmp_path / "docker").write_text(
        'echo "$*" >> "$CALLS"\n'
        'case "$*" in *OOMKilled*) echo "${OOM:-false}" ;; *pg_isready*) exit "${READY:-0}" ;; esac'
    )
    (tmp_path / "docker").write_text("#!/bin/sh\n" + (tmp_path / "docker").read_text())
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def test_a_copy_that_fills_the_disk_goes_before_what_serves_has_no_room(
    docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearse, "ROOM_INTERVAL", 0.01)
    roomy = rehearse.Room(str(tmp_path), 1)
    time.sleep(0.05)
    roomy.end()
    assert (roomy.reason, docker.exists()) == ("", False)
    full = rehearse.Room(str(tmp_path), 1 << 60)
    deadline = time.monotonic() + 10
    while not docker.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    full.end()
    assert re.match(r"migrating the copy filled the disk: \d+ MB were left, and ", full.reason)
    assert docker.read_text().splitlines() == [
        "rm -f -v koprogo-rehearsal-1",
        "rm -f -v koprogo-scratch-1",
    ]


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("OOM", "true", "the copy's server had too little memory for it"),
        ("READY", "2", "the copy's server does not answer: docker: exit code 2"),
    ],
)
def test_a_release_is_not_to_blame_for_the_copys_server(
    docker: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    rehearse.bears()
    monkeypatch.setenv(variable, value)
    with pytest.raises(rehearse.Failed, match=re.escape(told)):
        rehearse.bears()


def test_an_earlier_rehearsal_is_ended_and_somebody_elses_process_is_not(tmp_path: Path) -> None:
    mark = tmp_path / "rehearsal"
    rehearse.end_earlier(mark)  # there is none
    text = on_host.source("rehearse")
    waits = f"{text}\n".replace('if __name__ == "__main__":\n    main()', "time.sleep(60)")
    for argument, ends in ((waits, True), ("import time; time.sleep(60)", False)):
        process = subprocess.Popen([sys.executable, "-c", argument])
        try:
            mark.write_text(f"{process.pid}\n")
            time.sleep(0.3)
            if ends:
                # It is our child: without being waited for it would stay as a zombie.
                import threading

                threading.Thread(target=process.wait).start()
            rehearse.end_earlier(mark)
            time.sleep(0.1)
            assert (process.poll() is not None) == ends
        finally:
            process.kill()
            process.wait()
    mark.write_text(f"{os.getpid()}\n")
    rehearse.end_earlier(mark)  # a number that is another's by now


def test_its_command_runs_it_and_holds_the_text_alone() -> None:
    command = on_host.command("rehearse")
    assert command.startswith("sudo -n python3 -c ")
    done = subprocess.run(["sh", "-n"], input=command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("program", ["ask", "rehearse"])
def test_what_runs_on_the_host_needs_the_standard_library_alone(program: str) -> None:
    script = f"import sys; sys.modules['koprogo_deploy'] = None\n{on_host.source(program)}"
    script = script.replace('if __name__ == "__main__":\n    main()', "")
    script = script.replace("from __future__ import annotations\n", "")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
