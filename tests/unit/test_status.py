"""Whether all is well is decided from what was seen, and what is not is named."""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import subprocess
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from koprogo_deploy import journal, maintenance, status
from koprogo_deploy.cli import releases
from koprogo_deploy.facts.stack import Container, StackState
from koprogo_deploy.front import Front
from koprogo_deploy.journal import Journal
from koprogo_deploy.problems import Refusal
from koprogo_deploy.render import container_names
from koprogo_deploy.screen import Screen
from tests import project

SETTINGS = project.settings()
RELEASE = project.release(SETTINGS)
CLOCK = 1_767_225_600
STARTED = "2025-12-31T23:00:00.123456789Z"
QUIET = Journal([{"kind": "maintenance", "at": "2026-01-01T00:00:00+00:00"}], [], [], "h", ("h",))


def manifest(**more: Any) -> dict[str, Any]:
    return {
        "id": "r2",
        "made": "2025-12-31T22:59:00+00:00",
        "by": "anna@laptop",
        "specs": RELEASE.specs,
        "colours": RELEASE.colours,
        "images": RELEASE.images,
        "dynamic": "d2",
        "requested": {s: SETTINGS.image(s) for s in RELEASE.images},
        **more,
    }


def stack(**changes: Any) -> StackState:
    containers = {
        name: Container("id", name, RELEASE.specs[service], "running", "", STARTED)
        for service, name in container_names(RELEASE.colours).items()
    }
    values = {"docker": True, "current": manifest(), "dynamic": "d2", "containers": containers}
    return StackState(**{**values, **changes})


def now(**changes: Any) -> status.Now:
    values = {"clock": CLOCK, "since": CLOCK - 60, "disk_size": 100, "disk_free": 50}
    return status.Now(**{**values, "database": True, "failed": [], **changes})


def run(**values: Any) -> dict[str, Any]:
    line = {
        "kind": "run",
        "at": "2026-01-01T00:00:00+00:00",
        "by": "bert",
        "run": "full",
        "seconds": 9,
    }
    return {**line, "outcome": "deployed", **values}


def chain(*entries: dict[str, Any], broken: tuple[str, ...] = ()) -> Journal:
    return Journal(list(entries), list(broken), [], journal.FIRST)


def with_container(name: str, **changes: Any) -> dict[str, Container]:
    containers = stack().containers
    return {**containers, name: replace(containers[name], **changes)}


def without(name: str) -> dict[str, Container]:
    return {k: v for k, v in stack().containers.items() if k != name}


def test_a_serving_release_is_well() -> None:
    found = status.report(stack(), now(), QUIET)
    assert (found["well"], found["problems"], found["notes"]) == (True, [], [])
    assert found["release"] == "r2"
    assert found["services"]["backend"]["up"] == 3600
    assert found["since"]["by"] == "anna@laptop"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"docker": False}, "the Docker Engine does not answer"),
        ({"current": None}, "nothing is deployed"),
        (
            {"current": None, "unreadable": True},
            "current/manifest.json is empty or cut short, so nobody can say what serves; it goes "
            "on serving",
        ),
        ({"dynamic": "other"}, "Traefik's routes are not those of release r2"),
        ({"containers": without("postgres")}, "postgres: has no container"),
        (
            {"containers": with_container("backend-blue", health="unhealthy")},
            "backend-blue: is running, unhealthy",
        ),
        ({"containers": with_container("traefik", status="exited")}, "traefik: is exited"),
        (
            {"containers": with_container("frontend-blue", spec="x")},
            "frontend-blue: runs, and not as the release says",
        ),
        (
            {"candidate": manifest(id="r3", dynamic="d3"), "dynamic": "d3"},
            "release r3 serves and does not count yet: the run was cut; run it again",
        ),
    ],
)
def test_what_is_not_well_is_named(changes: dict[str, Any], told: str) -> None:
    assert status.problems(stack(**changes), now(), QUIET) == [told]


def test_what_serves_and_would_not_start_again_is_not_well() -> None:
    knows = stack(migrations={"r2": ["0001_first.sql", "0002_second.sql"]})
    migrated = replace(now(), applied=["0001", "0002", "0003"])
    found = status.report(knows, migrated, QUIET)
    assert found["problems"] == [
        "the database has 1 migration(s) that release r2 lacks (0003): it serves, and would not "
        "start again, as after a reboot"
    ]
    [advice] = found["advice"]
    assert advice.endswith("deploys/rollback.py --data release=r2 says what that would lose")
    fits = [replace(now(), applied=["0001", "0002"]), now()]  # nobody could say
    assert [status.problems(knows, each, QUIET) for each in fits] == [[], []]


def test_each_problem_comes_with_what_to_do_in_a_line() -> None:
    ill = stack(containers=with_container("backend-blue", health="unhealthy"), restarting=True)
    found = status.report(
        ill, now(disk_free=10), chain(broken=("line 3 …",)), environment="staging"
    )
    assert len(found["advice"]) == len(found["problems"]) == 4
    assert all(line and "\n" not in line for line in found["advice"])
    by = dict(zip(found["problems"], found["advice"], strict=True))
    assert by["backend-blue: is running, unhealthy"] == (
        "koprogo ssh staging, sudo docker logs koprogo-backend-blue-1; then "
        "pyinfra inventories/staging.py deploys/full.py brings it up"
    )
    page = "the page of a deploy that restarted Postgres is still up: everybody gets 503"
    assert "this takes it away: pyinfra inventories/staging.py" in by[page]
    running = status.problems(stack(restarting=True), now(running="anna"), QUIET)
    assert running == [], "a deploy is at it"


def test_disk_and_journal_are_looked_at_too() -> None:
    found = status.problems(stack(), now(disk_free=10), chain(broken=("line 3 …",)))
    assert found == ["the journal is broken: line 3 …", "the disk is 90% full"]


@pytest.mark.parametrize(
    ("rows", "disk"),
    [
        (("a 100 50 50 50% /", "b 100 99 1 99% /var"), (100, 1, "/var")),
        (("a 100 90 10 90% /", "b 100 50 50 50% /srv/my data"), (100, 10, "/")),
        (("a 100 50 50 50% /", "b 9 9 0 100% /srv/my data"), (9, 0, "/srv/my data")),
        (("a 100 50 50 50% /", "a 100 50 50 50% /"), (100, 50, "/")),
    ],
)
def test_the_fullest_disk_counts(
    rows: tuple[str, ...], disk: tuple[int, int, str], tmp_path: Path
) -> None:
    said = " ".join(f"'{row}'" for row in ("head", *rows))
    (tmp_path / "df").write_text(f"#!/bin/sh\nprintf '%s\\n' {said}; exit 1\n")
    (tmp_path / "df").chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", status.look_command(str(tmp_path))],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = status.parse(done.stdout.splitlines())
    assert (found.disk_size, found.disk_free, found.disk) == disk
    full = status.problems(stack(), now(disk_free=1, disk="/var"), QUIET)
    assert full == ["the disk at /var is 99% full"]


def test_a_backup_that_holds_the_lock_is_not_called_a_deploy() -> None:
    running = now(running="a backup of the timer since 2026-01-01 03:30:00 UTC")
    [note, *_] = status.notes(stack(), running, QUIET)
    assert note == "a backup of the timer since 2026-01-01 03:30:00 UTC is running"


def test_a_deploy_that_is_running_excuses_what_it_is_doing() -> None:
    switched = stack(candidate=manifest(id="r3", dynamic="d3"), dynamic="d3")
    running = now(running="anna@laptop since 2026-01-01 00:00:00 UTC")
    assert status.problems(switched, running, QUIET) == []
    assert status.notes(switched, running, QUIET)[0].startswith("a deploy is running: anna@laptop")


def test_the_last_run_is_a_note_when_it_did_not_end_well() -> None:
    bad = run(outcome="failed", step="Migrate | x", reason="no room")
    assert status.notes(stack(), now(), chain(run(), bad)) == [
        "the last run (2026-01-01 00:00 UTC) ended as: failed at Migrate | x: no room"
    ]
    assert status.notes(stack(), now(), chain(bad, run())) == []


def test_since_when_and_by_whom_is_what_the_journal_says_of_the_serving_release() -> None:
    lines = chain(
        run(serves="r1"), run(serves="r2", why="go", by="carl"), run(serves="r2", outcome="done")
    )
    found = status.since(stack(), now(), lines)
    assert found == {"at": "2026-01-01T00:00:00+00:00", "by": "carl", "why": "go"}


def test_the_look_reads_releases_marks_and_lock(tmp_path: Path) -> None:
    for name in ("r1", "r2"):
        (tmp_path / "releases" / name).mkdir(parents=True)
        text = json.dumps({"id": name, "made": "then", "by": "anna@laptop", "z": 1}, indent=1)
        (tmp_path / "releases" / name / "manifest.json").write_text(text + "\n")
    (tmp_path / "releases/r1/bad").write_text("rolled back by x\n")
    (tmp_path / "current").symlink_to("releases/r2")
    script = status.look_command(str(tmp_path))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    found = status.parse(done.stdout.splitlines())
    assert [(kept.id, kept.by, kept.bad) for kept in found.kept] == [
        ("r1", "anna@laptop", "rolled back by x"),
        ("r2", "anna@laptop", ""),
    ]
    assert found.since > 0
    assert found.disk_size > found.disk_free > 0
    answer = b'0001\tt\n0002\tt\n{"trust": {"guard": true}}\n'
    asked = status.parse([f"database\t{base64.b64encode(answer).decode()}"])
    assert (asked.database, asked.applied, asked.trust) == (
        True,
        ["0001", "0002"],
        {"guard": True},
    )


@pytest.mark.parametrize("line", ["what", "disk", "disk\t", "disk\t\t", "clock\tnow", "kept\ta"])
def test_an_answer_with_a_hole_in_it_is_refused_and_not_taken_for_well(line: str) -> None:
    with pytest.raises(Refusal, match="its answer cannot be read"):
        status.parse([line])


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3700, "1 h 1 min"), (200_000, "2 d 7 h")],
)
def test_durations(seconds: float, told: str) -> None:
    assert status.duration(seconds) == told


def test_both_tables_say_what_matters_in_words() -> None:
    console = Console(record=True, width=120, file=io.StringIO())
    gate = {"kind": "gate", "at": "2026-01-01T00:00:00+00:00", "by": "dora"}
    rehearsal = {
        "seconds": {"copy": 0.52},
        "migrations": {"1": 1.5},
        "locks": [{"table": "units", "mode": "ShareLock", "seconds": 1.4}],
    }
    first = run(smoke={"tests": "53 passed"}, why="[b]go", rehearsal=rehearsal, back_after=0.42)
    first["cannot_restart"] = "it would not start again"
    lines = chain(first, gate, broken=("line 9 …",))
    releases.show_history(console, lines, 2)
    releases.show_status(console, "KoproGo", status.report(stack(), now(), lines))
    text = console.export_text()
    words = " ".join(text.split())
    assert "rehearsed: copied in 0.5 s, migrated in 1.5 s, units locked for 1.4 s" in words
    assert "served again after 0.4 s" in words
    assert "it would not start again" in words
    for told in ("deployed", "53 passed", "[b]go", "gate", "line 9 …", "not well", "anna@laptop"):
        assert told in text, told


# --- from outside, and the system under the site -------------------------------------------------

SITE, API = (
    Front("k.be", "/", "192.0.2.1", days=60.0),
    Front("api.k.be", "/h", "192.0.2.1", days=60.0),
)


def told(*fronts: Front, stack_: StackState | None = None, **changes: Any) -> dict[str, Any]:
    return status.report(stack_ or stack(), now(**changes), QUIET, fronts=fronts)


def test_a_site_that_answers_from_outside_is_well() -> None:
    assert told(SITE, API)["well"]


@pytest.mark.parametrize(
    "problem", ["no connection to 192.0.2.1 port 443: refused", "/ answers 502, not 200"]
)
def test_a_site_that_is_silent_outside_is_not_well_however_its_containers_are(problem: str) -> None:
    found = told(SITE, replace(API, problem=problem))
    assert not found["well"]
    assert found["problems"] == [f"from outside, api.k.be: {problem}"]


def test_a_certificate_that_is_refused_is_told_with_the_setting_for_a_test_ca() -> None:
    refused = replace(SITE, problem="its certificate is refused: unable to get local issuer")
    [advice] = told(refused, API)["advice"]
    assert advice.endswith("of your own signed it: ca_certificate in group_data/production.py")


def test_a_name_without_an_address_is_told_with_what_mends_it() -> None:
    nowhere = Front("k.be", "/", problem="the name has no address (unknown)")
    [advice] = told(nowhere, API)["advice"]
    assert "DNS" in advice


def test_a_record_that_leads_nowhere_is_noted_each_time_and_no_outage() -> None:
    found = told(replace(SITE, dead=("2001:db8::1",)), API)
    assert found["well"]
    [note] = found["notes"]
    assert "its AAAA record leads nowhere. Take it out" in note
    silent = status.unreachable("refused", [replace(SITE, dead=("2001:db8::1",))], "production")
    assert note in silent["notes"]


def test_a_certificates_end_is_noted_in_time_and_then_a_problem() -> None:
    soon, sooner = replace(SITE, days=20.0), replace(SITE, days=6.9)
    assert told(soon, API)["well"]
    assert told(soon, API)["notes"] == ["the certificate of k.be ends in 20.0 days"]
    found = told(sooner, API)
    assert found["problems"] == ["the certificate of k.be ends in 6.9 days"]
    assert found["notes"] == []


def test_the_page_of_a_maintenance_is_told_once() -> None:
    paged = replace(SITE, page=True, problem="/ answers 503: the maintenance page")
    on = stack(maintenance=page("back at ten"))
    assert len(told(paged, API, stack_=on)["problems"]) == 1
    assert told(paged, API)["problems"] == [
        "from outside, k.be: / answers 503: the maintenance page"
    ]


def test_a_database_that_is_silent_behind_a_running_container_is_not_well() -> None:
    found = told(SITE, API, database=False)
    assert found["problems"] == [
        "the database does not answer within 20 s, though its container runs"
    ]


def test_a_database_that_gives_an_error_says_which_and_what_of_it_would_act_is_spelled() -> None:
    refused = "FATAL:  the database system is in recovery mode \x1b[2J"
    assert told(SITE, API, database=False, refused=refused)["problems"] == [
        "the database gives an error, though its container runs: FATAL:  the database system is in "
        "recovery mode \\x1b[2J"
    ]


@pytest.mark.parametrize(
    ("docker", "refused"),
    [
        ("exit 124", ""),
        ("exit 1", "exit code 1"),
        ("printf 'ERROR:  no\\tsuch\\nLINE 1: x\\n  ^\\n' >&2; exit 3", "ERROR:  no such"),
        ("echo 'no such container' >&2; exit 1", "no such container"),
        (r"echo 'ERROR:  a\\nb\\c' >&2; exit 3", r"ERROR:  a\nb\c"),
        ("echo half of it; echo 'psql: error: gone' >&2; exit 2", "psql: error: gone"),
    ],
)
def test_a_query_that_fails_is_told_from_one_that_takes_too_long(
    docker: str, refused: str, tmp_path: Path
) -> None:
    (tmp_path / "docker").write_text(f'#!/bin/sh\ncase "$*" in *psql*) {docker} ;; esac\n')
    (tmp_path / "docker").chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", status.look_command(str(tmp_path))],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = status.parse(done.stdout.splitlines())
    assert (found.database, found.refused) == (False, refused)
    assert [each.name for each in tmp_path.iterdir()] == ["docker"], "nothing is left there"


def test_failed_units_are_told_and_a_systemd_that_is_silent_is_not_without_any() -> None:
    assert told(failed=["x.service", "y.timer"])["problems"] == [
        "failed units of the system: x.service, y.timer"
    ]
    assert "systemd does not answer" in told(failed=None)["problems"][0]


DRILL = "koprogo-drill.service"


@pytest.mark.parametrize(
    ("outcome", "seconds", "known"),
    [
        ("failed", -90, True),  # written down, and then it tidied up
        ("failed", -7 * 86400, False),  # of the week before
        ("done", 3600, True),  # somebody ran another one since
        ("done", -90, False),
    ],
)
def test_a_failed_drill_is_left_to_the_journal_only_where_that_tells_it(
    outcome: str, seconds: int, known: bool
) -> None:
    at = datetime.fromtimestamp(CLOCK - 3600 + seconds, UTC).isoformat()
    lines = chain({"kind": "drill", "at": at, "outcome": outcome})
    failed = now(failed=[DRILL], ended={DRILL: CLOCK - 3600})
    told = status.host_troubles(failed, lines, "production")
    assert [trouble.what for trouble in told] == (
        [] if known else [f"failed units of the system: {DRILL}"]
    )


def test_routes_that_no_release_has_are_told() -> None:
    ours = ["dynamic.yaml", "maintenance.yaml", "restart.yaml"]
    assert status.problems(stack(), now(routes=ours), QUIET) == []
    [told] = status.problems(stack(), now(routes=[*ours, "in/zz\x1b.toml"]), QUIET)
    assert told == "Traefik reads routes that no release has, from in/zz\\x1b.toml"
    load = [*ours, "load-client.yaml"]
    assert status.problems(stack(), now(routes=load, exempt=True), QUIET) == []
    [told] = status.problems(stack(), now(routes=load), QUIET)
    assert told.startswith("an address is exempt from the rate limits, and no load test is under")


@pytest.mark.parametrize("held", [True, False])
def test_the_look_finds_each_file_of_routes_and_who_holds_the_load_test(
    held: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "traefik" / "dynamic"
    (folder / "in").mkdir(parents=True)
    for name in ("dynamic.yaml", ".new", "in/other.toml", "a\nb\t.yml"):
        (folder / name).write_text("")
    (folder / "load-client.yaml").symlink_to("dynamic.yaml")
    lock = tmp_path / "load"
    monkeypatch.setattr(status, "LOAD_LOCK", str(lock))
    monkeypatch.setattr(status, "EXEMPTION", "of-no-unit")
    with lock.open("w") as file:
        if held:
            fcntl.flock(file, fcntl.LOCK_EX)
        command = ["sh", "-c", status.look_command(str(tmp_path))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = status.parse(done.stdout.splitlines())
    assert found.routes == ["a?b?.yml", "dynamic.yaml", "in/other.toml", "load-client.yaml"]
    assert found.exempt == held


def test_a_failed_backup_of_which_nothing_was_written_down_is_told() -> None:
    for ended in ({}, {DRILL: CLOCK}):
        assert status.host_troubles(now(failed=[DRILL], ended=ended), QUIET, "production")


def test_a_release_that_counts_has_a_line_in_the_journal() -> None:
    found = status.report(stack(), now(), journal.read(b""))
    assert found["problems"] == ["release r2 counts, and the journal is empty"]


def test_a_reboot_restarts_and_kills_are_noted() -> None:
    found = told(reboot="kernel 2 is installed, and 1 runs", again={"traefik": 2, "x": 0}, killed=1)
    assert found["well"]
    first, second, third = found["notes"]
    assert first == "a reboot is pending: kernel 2 is installed, and 1 runs"
    assert second.endswith("traefik 2 ×")
    assert third.startswith("the kernel killed for want of memory, 1 ×")


def test_a_host_that_cannot_be_asked_is_not_well_and_the_site_is_told_all_the_same() -> None:
    found = status.unreachable("Connection refused", [SITE, API], "production")
    assert (found["well"], len(found["problems"])) == (False, 1)
    stream = io.StringIO()
    releases.show_status(Screen(file=stream, width=200), "KoproGo", found)
    text = stream.getvalue()
    assert "the host cannot be asked: Connection refused" in text
    assert "k.be/ answers, certificate for 60 days more" in text


def test_the_look_says_what_the_database_units_kernel_and_engine_say(tmp_path: Path) -> None:
    answered = '0001\\tt\\n0002\\tt\\n{"trust": {"guard": true}}\\n'
    answers = {
        "docker": f"""case "$*" in
  *psql*koprogo_db) grep -q json_build_object && printf '{answered}' ;;
  "ps -aq"*) echo id ;;
  inspect*) echo traefik=3 ;;
esac""",
        "systemctl": """case "$*" in
  *StateChangeTimestamp*) echo "Thu 2026-01-01 00:00:00 $TZ" ;;
  *) echo 'koprogo-backup.service loaded failed failed A'; echo 'b.timer loaded failed B' ;;
esac""",
        "journalctl": "echo 'oom-kill:constraint=CONSTRAINT_MEMCG'; echo other",
    }
    for name, script in answers.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "current").symlink_to("releases/r2")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def look() -> status.Now:
        command = ["sh", "-c", status.look_command(str(tmp_path))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return status.parse(done.stdout.splitlines())

    found = look()
    assert (found.database, found.applied) == (True, ["0001", "0002"])
    assert found.failed == ["koprogo-backup.service", "b.timer"]
    assert found.ended == {"koprogo-backup.service": CLOCK}
    assert (found.again, found.killed) == ({"traefik": 3}, 1)
    for name in ("docker", "systemctl"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
    silent = look()
    assert (silent.database, silent.applied, silent.failed) == (False, [], None)


# --- a restore or a rollback with its data that was cut ------------------------------------------

FULL, OFF = "deploys/full.py", "maintenance off"


def page(message: str) -> str:
    wanted = maintenance.Maintenance("2026-01-01T00:00:00+00:00", "anna", message, 30, ())
    return json.dumps(asdict(wanted))


@pytest.mark.parametrize(
    ("changes", "ends"),
    [
        (
            {"returning": {"release": "r1"}, "maintenance": page(maintenance.RETURNING)},
            "deploys/rollback.py --data release=r1 --data restore_dump=true",
        ),
        # Marked as bad, and gone back to nevertheless.
        (
            {"returning": {"release": "r1"}, "marked": {"r1": "bad"}},
            "release=r1 --data restore_dump=true --data retry_bad_release=true",
        ),
        # Everything else is done: the release that it went back to serves.
        (
            {"maintenance": page(maintenance.RETURNING)},
            "deploys/rollback.py --data release=r2 --data restore_dump=true",
        ),
        (
            {"restoring": {"coming": "koprogo_restored"}},
            "deploys/restore.py --data backup=drop_old, which drops nothing then",
        ),
    ],
)
def test_what_was_cut_in_the_midst_of_the_data_is_named_with_what_ends_it(
    changes: dict[str, Any], ends: str
) -> None:
    ill = with_container("backend-blue", status="exited")
    found = status.report(stack(containers=ill, dynamic="d1", **changes), now(), QUIET)
    [told] = [each for each in found["problems"] if " was cut: the data is in between" in each]
    by = dict(zip(found["problems"], found["advice"], strict=True))
    assert ends in by[told]
    assert by["backend-blue: is exited"].endswith(f"{by[told].partition(': ')[2]} brings it up")
    said = " ".join(found["advice"])
    assert FULL not in said, "it would begin on data that is in between"
    assert OFF not in said


def test_a_restore_of_which_the_page_alone_is_left_is_over_without_it() -> None:
    found = status.report(stack(maintenance=page(maintenance.RESTORING)), now(), QUIET)
    assert found["advice"][-1] == f"this ends it: koprogo {OFF} production"


def test_a_restore_that_is_at_work_was_not_cut() -> None:
    changes = {"maintenance": page(maintenance.RESTORING), "restoring": {"coming": "x"}}
    found = status.report(stack(**changes), now(running="anna"), QUIET)
    [told] = found["problems"]
    assert told.startswith("maintenance is on since")
    assert found["advice"] == ["it goes when that ends"]


def test_a_page_that_was_put_up_by_hand_is_taken_away_by_hand() -> None:
    found = status.report(stack(maintenance=page("back at ten")), now(), QUIET)
    assert found["advice"] == ["to let everybody in: koprogo maintenance off production"]


def test_a_database_that_a_rollback_left_is_told_though_no_uploads_lie_beside_it(
    tmp_path: Path,
) -> None:
    docker = tmp_path / "docker"
    answered = json.dumps({"trust": {"guard": True}})
    docker.write_text(
        "#!/bin/sh\n"
        f"case \"$*\" in *psql*koprogo_db) echo '{answered}' ;; "
        "*-l*) echo koprogo_before_20260101t000000 ;; esac"
    )
    docker.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", status.look_command(str(tmp_path))],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = status.parse(done.stdout.splitlines())
    assert found.replaced == ["koprogo_before_20260101t000000"]
    [told] = status.notes(stack(), found, QUIET)
    assert "koprogo_before_20260101t000000" in told
    assert "--data backup=drop_old" in told


def test_a_guard_that_is_gone_or_a_second_superuser_is_not_well() -> None:
    well = {"guard": True, "shadows": [], "powers": []}
    assert status.report(stack(), now(trust=well), QUIET, guarded=True)["well"]
    gone = status.report(stack(), now(trust={**well, "guard": False}), QUIET, guarded=True)
    assert not gone["well"]
    assert "the guard of the superadmin's password is gone" in gone["problems"][0]
    assert "deploys/full.py" in gone["advice"][0]
    power = {**well, "powers": ["koprogo is superuser"]}
    [told] = status.report(stack(), now(trust=power), QUIET)["problems"]
    assert told == "Postgres: koprogo is superuser, which only postgres should be"
    # A deploy that is under way may be about to put it there.
    assert status.problems(stack(), now(trust=power, running="anna"), QUIET) == []
