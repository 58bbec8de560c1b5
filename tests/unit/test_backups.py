"""Backups: what is decided without a host, from the settings to what a damaged one is called."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pytest
from pydantic import ValidationError
from pyinfra.api.exceptions import OperationError
from rich.console import Console

from koprogo_deploy import backups, journal, machine, maintenance, status
from koprogo_deploy.cli import backups as listing
from koprogo_deploy.command_line import as_written
from koprogo_deploy.data import backup, confined, dump, hashes, live, main, repository, tree
from koprogo_deploy.data.host import CLIENTS, MB, RUN, Config, Failed
from koprogo_deploy.data.host import lock as data_lock
from koprogo_deploy.door import ROOT
from koprogo_deploy.facts.stack import Container, StackState, Uploads
from koprogo_deploy.journal import Journal
from koprogo_deploy.operations import restore, verify
from koprogo_deploy.secrets import Secrets
from koprogo_deploy.settings import Contradictions
from tests import project

SETTINGS = project.settings()
KEY = project.KEY
SFTP: dict[str, Any] = {
    "backup_repository": "sftp:store@storage.example.be:/backups/koprogo",
    "backup_ssh_key": "backup_key",
    "backup_host_key": KEY,
}
S3: dict[str, Any] = {"backup_repository": "s3:https://s3.example.be/bucket"}
CONFIG = Config(Path("/opt/koprogo"), "production", 192 * MB, {"repository": "/backups"})
HOUR, DAY = 3600, 86400


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        "/srv/backups",
        "sftp:u123@u123.storage.example.be:koprogo",
        "sftp://u123@storage.example.be:23/koprogo",
        "s3:https://s3.example.be/bucket/koprogo",
        "s3:https://10.0.0.7:9000/bucket",
    ],
)
def test_places_that_restic_knows(place: str) -> None:
    keys = {k: v for k, v in SFTP.items() if k != "backup_repository"}
    settings = project.settings(backup_repository=place, **keys)
    assert backups.place(settings) == place
    assert backups.off_site(settings) != place.startswith("/")


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("backup_repository", "backups", "is no place for backups; write"),
        ("backup_repository", "/", "is no directory for backups"),
        ("backup_repository", "sftp:storage:/x", "is no place for backups"),
        ("backup_repository", "s3:bucket", "is no place for backups"),
        ("backup_repository", "s3:https://key:secret@host/bucket", "is no place for backups"),
        ("backup_schedule", ["3:30"], "is no time of day; write"),
        ("backup_schedule", ["24:00"], "is no time of day"),
        ("backup_schedule", [], "at least 1 item"),
        ("backup_drill_schedule", "04:30", "is no day and time; write"),
        ("backup_drill_schedule", "Sunday 04:30", "is no day and time"),
        ("backup_host_key", "SHA256:abc", "not the key of an SSH server; write"),
        ("backup_keep_daily", 0, "greater than or equal to 1"),
    ],
)
def test_what_is_wrong_is_said(setting: str, value: object, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        project.settings("production", **{setting: value})


def test_sftp_needs_a_key_and_to_know_the_storage() -> None:
    with pytest.raises(ValidationError) as refused:
        project.settings(backup_repository=SFTP["backup_repository"])
    [error] = refused.value.errors()
    cause = error["ctx"]["error"]
    assert isinstance(cause, Contradictions)
    assert [field for field, _ in cause.problems] == ["backup_ssh_key", "backup_host_key"]


def test_backups_are_no_part_of_a_release() -> None:
    other = project.settings(**SFTP, backup_schedule=["01:00"], backup_keep_daily=3)
    assert other.of_release == SETTINGS.of_release


def test_s3_needs_the_storage_s_own_keys_and_restic_gets_them() -> None:
    settings = project.settings(**S3)
    problems = backups.missing_secrets(settings, project.SECRETS)
    assert [p.what.split()[0] for p in problems] == ["BACKUP_S3_ACCESS_KEY", "BACKUP_S3_SECRET_KEY"]
    kept = Secrets(
        {**project.SECRETS.values, "BACKUP_S3_ACCESS_KEY": "AK", "BACKUP_S3_SECRET_KEY": "/+"}
    )
    assert backups.missing_secrets(settings, kept) == []
    assert backups.missing_secrets(SETTINGS, project.SECRETS) == []
    [keys] = [f for f in machine.backup_secrets(settings, kept, "") if f.path.endswith("s3.json")]
    assert json.loads(keys.content) == {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "/+"}


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("sftp:a@host.be:/x", "host.be"),
        ("sftp://a@host.be/x", "host.be"),
        ("sftp://a@host.be:22/x", "host.be"),
        ("sftp://a@host.be:2222//x", "[host.be]:2222"),
    ],
)
def test_the_storage_is_known_by_name_and_port(place: str, name: str) -> None:
    settings = project.settings(**{**SFTP, "backup_repository": place})
    assert backups.known_host(settings) == f"{name} {KEY}\n"
    assert backups.known_host(SETTINGS) == ""


# --- on the host ---------------------------------------------------------------------------------


def test_only_root_reads_what_opens_the_repository_and_only_what_is_needed() -> None:
    here = machine.backup_secrets(SETTINGS, project.SECRETS, "")
    assert [file.path.rpartition("/")[2] for file in here] == ["password"]
    there = machine.backup_secrets(project.settings(**SFTP), project.SECRETS, "the key\n")
    assert [f.path.rpartition("/")[2] for f in there] == ["password", "ssh_key", "known_hosts"]
    assert {file.mode for file in there} == {"400"}
    looked_at = machine.compared(SETTINGS)["files"]
    assert {file.path for file in there} <= set(looked_at)


def test_units_are_on_time_bounded_and_catch_up() -> None:
    settings = project.settings(
        backup_schedule=["03:30", "15:30"], backup_drill_schedule="Mon 05:00"
    )
    units = {file.path.rpartition("/")[2]: file.content for file in machine.backup_units(settings)}
    assert set(units) == {
        f"koprogo-{k}.{s}" for k in ("backup", "drill") for s in ("service", "timer")
    }
    timer = units["koprogo-backup.timer"]
    assert "OnCalendar=*-*-* 03:30:00\nOnCalendar=*-*-* 15:30:00\n" in timer
    assert "Persistent=true" in timer
    assert "OnCalendar=Mon *-*-* 05:00:00\n" in units["koprogo-drill.timer"]
    assert f"MemoryMax={CLIENTS}\nMemorySwapMax=0" in units["koprogo-drill.service"]
    for path in machine.compared(settings)["files"]:
        units.pop(path.rpartition("/")[2], None)
    assert units == {}


def test_restic_is_bounded_and_no_secret_is_in_its_arguments(tmp_path: Path) -> None:
    config = Config(tmp_path, "production", 192 * MB, {"repository": SFTP["backup_repository"]})
    secrets = tmp_path / repository.SECRETS
    secrets.mkdir(parents=True)
    (secrets / "s3.json").write_text('{"AWS_SECRET_ACCESS_KEY": "hidden"}')
    variables = repository.environment(config)
    assert variables["RESTIC_PASSWORD_FILE"] == str(secrets / "password")
    assert variables["AWS_SECRET_ACCESS_KEY"] == "hidden"
    assert int(variables["GOMEMLIMIT"]) < config.scratch_memory == 192 * MB - CLIENTS
    assert variables["TMPDIR"].startswith(str(tmp_path))
    words = repository.command(config, "backup", "/x")
    assert "hidden" not in " ".join(words)
    [ssh] = [word for word in words if word.startswith("sftp.command=ssh ")]
    assert ssh.endswith(" -p 22 store@storage.example.be -s sftp")
    assert "StrictHostKeyChecking=yes" in ssh
    assert "BatchMode=yes" in ssh
    assert not any(w.startswith("sftp.") for w in repository.command(CONFIG, "snapshots"))


@pytest.mark.parametrize(
    ("code", "said", "told"),
    [
        (12, "Fatal: wrong password", "made with another BACKUP_PASSWORD"),
        (1, "Fatal: wrong password or no key found", "made with another BACKUP_PASSWORD"),
        (10, "Fatal: repository does not exist", "there is no repository at /r"),
        (1, "Is there a repository at the following location?", "there is no repository at /r"),
        (137, "", "out of memory?"),
        (-9, "", "signal 9"),
        (1, "a\nFatal: no space left on device", "restic: a | Fatal: no space left on device"),
        (1, "Fatal: unable to start the sftp session", "key the one of backup_host_key"),
    ],
)
def test_what_restic_s_failures_mean(code: int, said: str, told: str) -> None:
    assert told in str(repository.told("/r", said, code))
    absent = isinstance(repository.told("/r", said, code), repository.NoRepository)
    assert absent == ("no repository" in told)


def test_a_lock_of_a_prune_that_was_killed_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    locked = [True]

    def restic(_config: Config, *words: str) -> str:
        if words[0] == "unlock":
            locked.clear()
        elif locked and "--no-lock" not in words:
            raise repository.told("/r", "unable to create lock: already locked exclusively", 11)
        return ""

    monkeypatch.setattr(repository, "restic", restic)
    assert repository.ensure(CONFIG) is False
    assert not locked


def test_one_made_by_hand_does_not_take_the_place_of_the_night_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(repository, "restic", lambda _config, *words: ran.extend(words))
    rule = {"keep_daily": 7, "keep_weekly": 4, "keep_monthly": 6}
    repository.forget(Config(Path("/"), "production", 0, rule))
    kept = [word for word in ran if word.startswith("--keep-")]
    assert kept == ["--keep-daily=7", "--keep-weekly=4", "--keep-monthly=6", "--keep-within=2d"]


def test_a_repository_is_made_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[str] = []

    def restic(_config: Config, *words: str) -> str:
        ran.append(words[0])
        if words[0] == "cat":
            raise repository.told("/r", "repository does not exist", 10)
        return ""

    monkeypatch.setattr(repository, "restic", restic)
    place = tmp_path / "deep/backups"
    assert repository.ensure(Config(tmp_path, "production", 0, {"repository": str(place)}))
    assert ran == ["cat", "init"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


# --- restic that does not end ---------------------------------------------------------------------


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A restic that starts a helper and then neither ends nor listens, in a bound of 0.3 s."""
    script = tmp_path / "restic"
    script.write_text(
        f"#!/bin/sh\ntrap '' TERM\nprintf half; echo Fatal: no room >&2\n"
        f"sh -c 'trap \"\" TERM; echo $$ > {tmp_path}/helper; sleep 60' &\n"
        f"echo $$ > {tmp_path}/restic.pid; wait; sleep 60\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(repository, "command", lambda _config, *words: [str(script), *words])
    monkeypatch.setattr(repository, "_GRACE", 0.2)
    (tmp_path / "data").mkdir()
    bounds = {"repository": "/backups", "timeout": 0.3, "list_timeout": 0.2}
    return Config(tmp_path, "production", 192 * MB, bounds)


def alive(pid: int) -> bool:
    """Whether it runs; one that nobody has asked for its end yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] != "Z"


def gone(config: Config) -> bool:
    """Whether restic and its helper are dead, which may take the kernel a moment."""
    pids = [int((config.root / name).read_text()) for name in ("restic.pid", "helper")]
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("backup", "/x"), "restic backup was not done after 0.3 s and was ended.*backup_timeout"),
        (("snapshots",), "restic snapshots was not done after 0.2 s.*backup_list_timeout"),
    ],
)
def test_restic_that_hangs_is_ended_with_all_of_its_group(
    hanging: Config, words: tuple[str, ...], told: str
) -> None:
    began = time.monotonic()
    with pytest.raises(Failed, match=told):
        repository.restic(hanging, *words)
    assert time.monotonic() - began < 5
    assert gone(hanging)


def test_reading_back_that_hangs_is_ended_too(hanging: Config) -> None:
    with pytest.raises(Failed, match=r"restic dump was not done after 0\.3 s"):
        backup.read(hanging, snapshot("ab"))
    assert gone(hanging)


def test_a_backup_that_took_too_long_is_written_down(
    hanging: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(backup, "write_down", lambda *_, **values: lines.append(values))

    def stored(config: Config, _staged: object) -> dict[str, Any]:
        return repository.store(config, Path("/x"), "r")

    monkeypatch.setitem(main._SCHEDULED, "backup", stored)
    with pytest.raises(Failed, match="is /backups full, slow or away"):
        main.scheduled(hanging, "backup", "the timer")
    [line] = lines
    assert line["outcome"] == "failed"
    assert "restic backup was not done after" in line["reason"]


def test_what_works_on_the_data_may_take_longer_than_what_looks() -> None:
    config = Config(Path("/"), "production", 0, {"timeout": 3600, "list_timeout": 300})
    assert {
        repository.bound(config, w) for w in ("backup", "check", "dump", "forget", "prune")
    } == {(3600, "backup_timeout")}
    assert {repository.bound(config, w) for w in ("cat", "init", "snapshots", "unlock")} == {
        (300, "backup_list_timeout")
    }


def test_the_unit_waits_for_a_deploy_and_for_every_bound_within_it() -> None:
    [unit] = [
        f.content
        for f in machine.backup_units(project.settings(backup_timeout="120min"))
        if f.path.endswith("backup.service")
    ]
    assert f"TimeoutStartSec={3 * HOUR + 4 * 2 * HOUR}s" in unit


def snapshot(identity: str, time: str = "2026-11-25T10:00:00.123456789+01:00") -> dict[str, Any]:
    return {
        "id": identity * 8,
        "short_id": identity * 4,
        "time": time,
        "paths": ["/s"],
        "tags": ["koprogo", "release:r1"],
    }


def test_a_backup_is_found_by_the_beginning_of_its_id_or_as_the_latest() -> None:
    there = [snapshot("ab"), snapshot("cd")]
    assert repository.find(there, "latest") is there[1]
    assert repository.find(there, "abab") is there[0]
    with pytest.raises(Failed, match="no backup is 'x'; there are: abababab, cdcdcdcd"):
        repository.find(there, "x")
    with pytest.raises(Failed, match="more than one backup is 'ab'"):
        repository.find([there[0], snapshot("ab")], "ab")
    with pytest.raises(Failed, match="has no backup"):
        repository.find([], "latest")


def test_the_newest_is_the_latest_whatever_the_clock_s_zone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    summer = snapshot("ab", "2026-10-25T02:50:00.123456789+02:00")
    winter = snapshot("cd", "2026-10-25T02:10:00.123456789+01:00")
    said = json.dumps([winter, summer])
    monkeypatch.setattr(repository, "restic", lambda *_: said)
    assert repository.snapshots(CONFIG) == [summer, winter]


def test_the_snapshot_s_id_is_in_restic_s_last_words() -> None:
    said = '{"message_type":"status"}\n{"message_type":"summary","snapshot_id":"ab"}\n'
    assert repository.summary(said)["snapshot_id"] == "ab"
    with pytest.raises(Failed, match="which snapshot"):
        repository.summary('{"message_type":"status"}')


def test_a_repository_on_the_host_has_to_have_room_for_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, place = tmp_path / "stage", tmp_path / "repository"
    (stage / backup.FILES).mkdir(parents=True)
    place.mkdir()
    taken = datetime(2026, 1, 2, 3, 30, tzinfo=UTC)
    for name, hours in (("old", -48), ("while it was taken", -0.1), ("new", 5)):
        (stage / backup.FILES / name).write_bytes(b"x" * 100)
        moment = taken.timestamp() + hours * HOUR
        os.utime(stage / backup.FILES / name, (moment, moment))
    asked: list[tuple[Path, int, int]] = []
    monkeypatch.setattr(dump, "room", lambda at, need, _, stays: asked.append((at, need, stays)))
    config = Config(tmp_path, "production", 0, {"repository": str(place)})
    known: list[dict[str, Any]] = []
    monkeypatch.setattr(repository, "snapshots", lambda _config: known)
    backup.room_for(config, stage, 1000)
    known.append(snapshot("ab", taken.isoformat()))
    backup.room_for(config, stage, 1000)
    assert asked == [(place, 1300, dump.STAYS_FREE), (place, 1200, dump.STAYS_FREE)]
    monkeypatch.undo()
    monkeypatch.setattr(repository, "snapshots", lambda _config: known)
    with pytest.raises(Failed, match=r"the backup needs up to \d+ MB in .*/repository"):
        backup.room_for(config, stage, 1 << 60)


# --- read back -----------------------------------------------------------------------------------

UPLOADS = {"a/één.pdf": b"content", "b": b""}


def digest(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def manifest(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "dump": digest(b"the dump"),
        # As an earlier version made them: with links.
        "uploads": {**{n: digest(c) for n, c in UPLOADS.items()}, "l": {"link": "b"}},
        "migrations": ["1"],
    }
    return values | changes


def archive(
    said: dict[str, Any] | None = None, dump: bytes = b"the dump", **uploads: bytes
) -> bytes:
    """What restic gives for a snapshot."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def put(name: str, content: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid, entry.gid = (
                len(content),
                0o640,
                os.getuid(),
                os.getgid(),
            )
            tar.addfile(entry, io.BytesIO(content))

        put("database.dump", dump)
        put("manifest.json", json.dumps(said or manifest()).encode())
        for name, content in {**UPLOADS, **uploads}.items():
            put(f"uploads/{name}", content)
        entry = tarfile.TarInfo("uploads/l")
        entry.type, entry.linkname, entry.uid, entry.gid = (
            tarfile.SYMTYPE,
            "b",
            os.getuid(),
            os.getgid(),
        )
        tar.addfile(entry)
    return buffer.getvalue()


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The content of the one snapshot in the repository; tests put it in."""
    content: list[bytes] = []

    @contextlib.contextmanager
    def reader(_config: Config, _snapshot: dict[str, Any]) -> Iterator[IO[bytes]]:
        yield io.BytesIO(content[-1])

    monkeypatch.setattr(repository, "Reader", reader)
    monkeypatch.setattr(repository, "snapshots", lambda _config: [snapshot("ab")])
    monkeypatch.setattr(repository, "content", lambda *_: json.dumps(manifest()))
    return content


def test_what_was_read_back_is_what_was_written(stored: list[bytes], tmp_path: Path) -> None:
    stored.append(archive())
    (tmp_path / "up").mkdir()
    found, said = backup.fetch(CONFIG, "latest", tmp_path / "d", tmp_path / "up")
    assert (found["short_id"], said) == ("abababab", manifest())
    assert (tmp_path / "d").read_bytes() == b"the dump"
    assert (tmp_path / "up/a/één.pdf").read_bytes() == b"content"
    assert stat.S_IMODE((tmp_path / "up/b").stat().st_mode) == 0o640
    assert not os.path.lexists(tmp_path / "up/l")
    assert hashes.files(tmp_path / "up") == backup.only_files(said["uploads"])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (archive(dump=b"the dumq"), "is damaged: the dump differs"),
        (archive(manifest(dump=digest(b"other"))), "is damaged: the dump differs"),
        (archive(b=b"!"), "is damaged: upload b differs"),
        (archive(more=b""), "is damaged: upload more is not in the manifest"),
        (archive(manifest(uploads={**manifest()["uploads"], "x": {}})), "upload x is missing"),
        (archive()[:1500], "has no manifest"),
        (archive()[:1536], "ends before its end"),
        (archive()[:700], "ends before its end"),
        (archive(None, b"the dump", **{"../../etc/cron.d/x": b"!"}), "which is refused"),
        (archive().replace(b'{"dump"', b'{"dump!'), "manifest is not readable"),
    ],
)
def test_a_damaged_backup_is_refused(
    stored: list[bytes], tmp_path: Path, content: bytes, told: str
) -> None:
    stored.append(content)
    (tmp_path / "up").mkdir()
    with pytest.raises(Failed, match=told):
        backup.fetch(CONFIG, "latest", tmp_path / "d", tmp_path / "up")
    assert not list(tmp_path.parent.rglob("cron.d"))


def entry(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **values: Any) -> Any:
    """An entry of a snapshot, as somebody made it who has the password."""
    made = tarfile.TarInfo(name)
    made.type, made.size = kind, len(content)
    for attribute, value in values.items():
        setattr(made, attribute, value)
    return made, content


def snapshot_of(*entries: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for made, content in entries:
            tar.addfile(made, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "entries",
    [
        [entry("uploads/a", tarfile.SYMTYPE, linkname="{out}"), entry("uploads/a/x", content=b"!")],
        [entry("uploads/a", content=b"x"), entry("uploads/a/x", content=b"!")],
        [entry("uploads/a", tarfile.SYMTYPE, linkname="{out}/x"), entry("uploads/a", content=b"!")],
        [entry("uploads/a", tarfile.LNKTYPE, linkname="{out}/there")],
        [entry("uploads/a", tarfile.CHRTYPE, devmajor=1, devminor=1)],
        [entry("uploads/a", tarfile.BLKTYPE, devmajor=8, devminor=0)],
        [entry("uploads/../x", content=b"!")],
        [entry("uploads//{out}/x", content=b"!")],
        [entry("uploads/a/../../x", content=b"!")],
        [entry("database.dump", tarfile.SYMTYPE, linkname="{out}/there")],
    ],
    ids=range(10),
)
def test_an_entry_that_leads_out_of_the_uploads_is_refused(
    stored: list[bytes], tmp_path: Path, entries: list[Any]
) -> None:
    """A backup that whoever has its password made: root restores it."""
    out, up = tmp_path / "out", tmp_path / "up"
    out.mkdir()
    up.mkdir()
    (out / "there").write_text("of the host")
    for made, _ in entries:
        made.linkname = made.linkname.replace("{out}", str(out))
        made.name = made.name.replace("{out}", str(out))
    stored.append(snapshot_of(*entries))
    with pytest.raises(Failed, match="refused"):
        backup.read(CONFIG, snapshot("ab"), tmp_path / "d", up)
    assert [path.name for path in out.iterdir()] == ["there"]
    assert (out / "there").read_text() == "of the host"
    assert not (tmp_path / "x").exists()
    assert all(path.name == "a" and path.is_file() for path in up.iterdir())


def test_a_backup_gives_no_rights_and_no_owner(stored: list[bytes], tmp_path: Path) -> None:
    stored.append(snapshot_of(entry("uploads/a", content=b"x", mode=0o7755, uid=12345, gid=12345)))
    backup.read(CONFIG, snapshot("ab"), None, tmp_path)
    there = (tmp_path / "a").stat()
    assert stat.S_IMODE(there.st_mode) == 0o755
    assert (there.st_uid, there.st_gid) == (os.getuid(), os.getgid())


def test_an_older_backup_with_pipes_and_links_of_somebody_s_can_be_restored(
    stored: list[bytes], tmp_path: Path
) -> None:
    """They are neither made nor a reason to refuse it: they were put there to that end."""
    link = entry("uploads/l", tarfile.SYMTYPE, linkname="/etc")
    pipe, file = entry("uploads/p", tarfile.FIFOTYPE), entry("uploads/f", content=b"x")
    stored.append(snapshot_of(file, link, pipe))
    found = backup.read(CONFIG, snapshot("ab"), None, tmp_path)
    assert found["uploads"] == {"f": digest(b"x"), "l": {"link": "/etc"}}
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert backup.only_files(found["uploads"]) == {"f": digest(b"x")}


# --- stored while somebody changes the uploads ---------------------------------------------------


class Repository:
    """A repository that reads the stage as restic does, while somebody is at the uploads."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stage, self.volume = root / "stage", root / "volume"
        (self.stage / backup.FILES).mkdir(parents=True)
        self.volume.mkdir()
        (self.stage / backup.DUMP).write_bytes(b"the dump")
        for name in ("honest", "theirs"):
            (self.volume / name).write_text(f"as {name} was")
            os.link(self.volume / name, self.stage / backup.FILES / name)
        self.manifest = {
            "dump": digest(b"the dump"),
            "release": {"id": "r1"},
            "uploads": hashes.files(self.stage / backup.FILES),
        }
        self.kept: dict[str, bytes] = {}
        self.made = 0
        self.attack: Callable[[], object] = lambda: None
        self.unreadable: Callable[[], bool] = lambda: False
        for name in ("store", "discard", "tidy"):
            monkeypatch.setattr(repository, name, getattr(self, name))
        monkeypatch.setattr(repository, "Reader", self.reader)

    def store(self, _config: Config, stage: Path, _release: str) -> dict[str, Any]:
        self.attack()
        files = sorted(p for p in stage.rglob("*") if p.is_file())
        entries = [entry(str(p.relative_to(stage)), content=p.read_bytes()) for p in files]
        self.made += 1
        self.kept[f"s{self.made}"] = snapshot_of(*entries)
        return {"id": f"s{self.made}", "paths": [str(stage)], "added": 0}

    def discard(self, _config: Config, snapshot: str) -> None:
        del self.kept[snapshot]

    def tidy(self, _config: Config) -> None:
        pass

    @contextlib.contextmanager
    def reader(self, _config: Config, snapshot: dict[str, Any]) -> Iterator[IO[bytes]]:
        if self.unreadable():
            raise Failed("restic: invalid PAX record")
        yield io.BytesIO(self.kept[snapshot["id"]])

    def backed_up(self) -> dict[str, Any]:
        """Store it, and read the one snapshot that is left against its own manifest."""
        config = Config(self.stage, "production", 0, {"repository": "s3:https://x/y"})
        stored = backup.stored_whole(config, self.stage, self.manifest, tree.LeftOut())
        assert list(self.kept) == [stored["id"]]
        found = backup.read(config, stored)
        assert backup.differences(found["manifest"], found) == []
        return found


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    return Repository(tmp_path, monkeypatch)


def test_an_upload_that_changes_whenever_it_is_backed_up_costs_no_backup(
    storage: Repository,
) -> None:
    """Its link in the stage is the application's own file."""
    storage.attack = lambda: (storage.volume / "theirs").write_text(f"changed {storage.made}")
    found = storage.backed_up()
    assert found["uploads"]["honest"] == digest(b"as honest was")
    assert found["uploads"]["theirs"] == digest(b"changed 0")
    assert found["manifest"]["warnings"] == []
    assert storage.made == 2


def test_an_attribute_that_cannot_be_given_back_costs_no_backup(storage: Repository) -> None:
    """Such as an extended one called `user.a=b`: restic stores it, and its tar cannot hold it."""
    link = storage.stage / backup.FILES / "theirs"
    storage.unreadable = lambda: link.stat().st_nlink > 1
    assert storage.backed_up()["uploads"]["theirs"] == digest(b"as theirs was")


def test_without_room_for_copies_what_changes_stays_out_and_that_is_told(
    storage: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Failed("no room")

    monkeypatch.setattr(dump, "room", full)
    storage.attack = lambda: (storage.volume / "theirs").write_text(f"changed {storage.made}")
    found = storage.backed_up()
    assert set(found["uploads"]) == {"honest"}
    [warning] = found["manifest"]["warnings"]
    assert "left out of the uploads, 1: theirs (it changed meanwhile, and there is no" in warning


def test_a_storage_that_gives_back_something_else_is_no_upload_s_doing(
    storage: Repository,
) -> None:
    (storage.stage / backup.DUMP).write_bytes(b"the dumq")
    with pytest.raises(Failed, match="does not read back as it was written: the dump differs"):
        storage.backed_up()
    assert (storage.made, storage.kept) == (1, {})
    storage.unreadable = lambda: True
    with pytest.raises(Failed, match="invalid PAX record"):
        storage.backed_up()
    assert storage.kept == {}


GB = 1024 * MB


@pytest.mark.parametrize(
    ("said", "uploads", "need"),
    [
        ({"database": {"bytes": 3 * GB}}, False, 7 * GB),
        ({"database": {"bytes": 3 * GB}}, True, 9 * GB),
        ({}, True, GB + 2 * (2 * GB + 16 * MB) + 2 * GB),
    ],
    ids=["a drill", "a restore", "of an older version"],
)
def test_the_backup_s_own_size_counts_and_not_that_of_what_is_live(
    said: dict[str, Any], uploads: bool, need: int
) -> None:
    """What is live may be empty: that may be why a backup is wanted."""
    held = {"a": {"bytes": 2 * GB, "sha256": "x"}, "l": {"link": "a"}}
    assert backup.needs(manifest(dump={"bytes": GB}, uploads=held, **said), uploads) == need


def test_a_backup_larger_than_the_disk_is_refused_before_it_is_read(
    stored: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = json.dumps(manifest(database={"bytes": 1 << 60}))
    monkeypatch.setattr(repository, "content", lambda *_: large)
    with pytest.raises(
        Failed, match=r"backup abababab, restored, needs up to \d+ MB .* Nothing was"
    ):
        backup.fetch(CONFIG, "latest", tmp_path / "d")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(repository, "content", lambda *_: "{}")
    with pytest.raises(Failed, match="the manifest of backup abababab is not readable"):
        backup.fetch(CONFIG, "latest", tmp_path / "d")


def test_a_backup_without_a_manifest_is_none(stored: list[bytes], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    tarfile.open(fileobj=buffer, mode="w").close()
    stored.append(buffer.getvalue())
    with pytest.raises(Failed, match="abababab has no manifest"):
        backup.fetch(CONFIG, "latest", tmp_path / "d")


def test_the_serving_release_has_to_know_every_migration_of_a_backup(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    (tmp_path / "current/migrations.txt").write_text("1_a.sql\n2_b.sql\n")
    config = Config(tmp_path, "production", 0)
    backup.fits(config, manifest())
    with pytest.raises(Failed, match=r"does not fit the backup: .* 1 migration\(s\) .* \(3\)"):
        backup.fits(config, manifest(migrations=["1", "3"]))


def test_the_first_differences_are_told_and_the_others_counted() -> None:
    assert backup.told(["a", "b"]) == "a; b"
    assert backup.told(list("abcde")) == "a; b; c; and 2 more"


def test_an_id_that_looks_like_a_number_stays_as_it_was_written() -> None:
    line = ["pyinfra", "inventories/x.py", "--data", "backup=01234567", "--data=reason=a=b"]
    assert as_written("backup", line) == "01234567"
    assert as_written("reason", line) == "a=b"
    assert as_written("release", line) is None


# --- recover -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "version", "uploads", "told"),
    [
        ({}, "", (0, 0), []),
        (None, "", (0, 0), []),
        ({"organizations": 0, "users": 0}, "17", (0, 0), []),
        (
            {"organizations": 1, "buildings": 4, "users": 0},
            "17",
            (0, 0),
            ["a database with rows of the application (4 buildings, 1 organizations)"],
        ),
        ({}, "17", (2, 3 * MB), ["2 uploads (3 MB)"]),
        (None, "15", (0, 0), ["a data directory of Postgres 15, of which no server answers"]),
    ],
)
def test_what_a_host_holds_is_in_the_way_of_a_recovery(
    rows: dict[str, int] | None, version: str, uploads: tuple[int, int], told: list[str]
) -> None:
    assert restore.in_the_way(rows, version, uploads) == told


def test_a_recovery_has_nothing_backed_up_before_its_data_is_there() -> None:
    """Else one that fails leaves `latest` to be the empty stack of that night."""
    text = (ROOT / "deploys/recover.py").read_text()
    opens, restores, verifies, schedules = (
        text.index(f"\n{stage}_stage()")
        for stage in ("repository", "restore", "verify", "schedule")
    )
    assert opens < restores < verifies < schedules


@pytest.mark.parametrize(
    ("rows", "uploads", "nothing"),
    [
        ({"organizations": 0, "users": 0}, 0, True),
        ({"organizations": 1, "users": 0}, 0, False),
        ({"organizations": 0, "users": 0}, 2, False),
        (None, 0, False),
    ],
)
def test_the_newest_backup_may_be_of_an_empty_stack(
    rows: dict[str, int] | None, uploads: int, nothing: bool
) -> None:
    assert restore.holds_nothing(rows, uploads) == nothing


def test_then_it_is_not_taken_without_being_named() -> None:
    told = restore.older_told(["aa of 2026-01-01 03:30", "bb of 2026-01-02 03:30"], "cc")
    assert "the newest backup, cc, holds no row of the application" in told
    assert "bb of 2026-01-02 03:30 (koprogo backups). Nothing was restored" in told
    assert told.endswith("--data backup=ID; this one: --data backup=cc")


def test_uploads_are_counted_and_a_host_without_any_has_none() -> None:
    assert Uploads().process(["3\t4096"]) == (3, 4096)
    assert Uploads().default() == (0, 0), "which pyinfra gives where nothing was printed"


# --- restore -------------------------------------------------------------------------------------


def test_the_way_back_from_a_restore_whose_smoke_tests_fail_is_named() -> None:
    assert "no release before this one" in verify.way_back(SETTINGS, restored=False)
    told = verify.way_back(SETTINGS, restored=True)
    assert told.endswith("deploys/restore.py --data backup=before")


def test_what_a_restore_loses_is_counted() -> None:
    restored = {
        "public.a": {"rows": 1, "hash": "x"},
        "public.b": {"rows": 5, "hash": "x"},
        "public.c": {"rows": 1, "hash": "x"},
    }
    now = {
        "public.a": {"rows": 3, "hash": "y"},
        "public.b": {"rows": 5, "hash": "y"},
        "public.c": {"rows": 1, "hash": "x"},
    }
    since = live.rows_since(restored, now)
    assert since == {"public.a": 2, "public.b": 0}
    told = restore.told_since(since)
    assert "a +2" in told
    assert "1 more changed without a row more or less" in told
    assert restore.told_since({}) == "nothing was written since"


def test_a_live_database_that_cannot_be_read_is_restored_over_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def damaged(_container: str) -> dict[str, Any]:
        raise Failed("the tables cannot be read: invalid page in block 7")

    monkeypatch.setattr(hashes, "tables", damaged)
    counted = live.counted_since({"public.a": {"rows": 1, "hash": "x"}})
    assert counted["since"] is None
    told = restore.told_since(counted["since"], counted["uncounted"])
    assert told == (
        "what was written since cannot be counted: the tables cannot be read: "
        "invalid page in block 7"
    )
    monkeypatch.setattr(hashes, "tables", lambda _container: {"public.a": {"rows": 4, "hash": ""}})
    assert live.counted_since({}) == {"since": {"public.a": 4}}


def test_what_served_before_is_asked_for_by_newest_or_by_name() -> None:
    assert restore.swap_words("latest") == restore.swap_words("0a1b2c3d") == "swap"
    assert restore.swap_words("before") == "swap --before"
    name = "koprogo_before_20260102t030405"
    assert restore.swap_words(name) == f"swap --before {name}"
    assert restore.swap_words("koprogo_before_; rm") == "swap --before 'koprogo_before_; rm'"
    parsed = [
        main.parser().parse_args(words.split()).before
        for words in ("swap", "swap --before", f"swap --before {name}")
    ]
    assert parsed == ["", live.NEWEST, name]
    with pytest.raises(OperationError, match=r"backup=koprogo_before_… has an earlier one serve"):
        restore.asked(SETTINGS)


def test_the_swap_is_both_renames_or_none() -> None:
    text = live.swap_sql("koprogo_before_x", live.NEW)
    inside = text[text.index("BEGIN;") : text.index("COMMIT;")]
    assert inside.count("RENAME TO") == 2
    assert (
        text.index("ALLOW_CONNECTIONS false")
        < text.index("pg_terminate_backend")
        < text.index("BEGIN")
    )


def test_the_page_goes_again_whether_the_swap_succeeds_or_not() -> None:
    around, page = restore.under_page(SETTINGS, ("203.0.113.7/32",))
    assert around.count("{}") == 1
    on, off = around.split("{}")
    assert "maintenance.yaml" in on
    assert "rm -f" in off
    assert off.index("failed=$?") < off.index("rm -f") < off.index("exit $failed")
    assert maintenance.RESTORING in page
    assert "203.0.113.7/32" in page


def deployed(
    dynamic: str = "d1", others: str = "running", candidate: bool = True, **more: Any
) -> StackState:
    """A host whose serving backend is blue; a run which was cut left a green one."""
    blue, green = ({"backend": colour, "frontend": "blue"} for colour in ("blue", "green"))
    status = {"backend-blue": "running", "backend-green": others, "frontend-blue": "running"}
    return StackState(
        current={"id": "r1", "colours": blue, "dynamic": "d1"},
        candidate={"id": "r2", "colours": green, "dynamic": "d2"} if candidate else None,
        dynamic=dynamic,
        containers={n: Container("0", n, "", s, "", "") for n, s in status.items()},
        **more,
    )


def test_what_a_cut_run_left_does_not_come_up_on_what_is_restored() -> None:
    let_go, stopped = restore.alone(deployed(), "/opt/koprogo")
    assert let_go == "rm -f /opt/koprogo/candidate"
    assert "koprogo-backend-green-1" in stopped
    assert "blue" not in stopped
    assert "docker rm" not in stopped, "its logs stay"
    assert restore.alone(deployed(others="restarting"), "/")[1:], "one that crashes on and on"
    assert restore.alone(deployed(others="exited"), "/") == ["rm -f //candidate"]
    assert restore.alone(deployed(others="exited", candidate=False), "/") == []
    assert restore.alone(StackState(), "/") == []


def test_what_was_switched_to_counts_before_its_data_is_exchanged() -> None:
    """`koprogo-data` asks `current` which backend serves, and what that knows."""
    counts, stopped = restore.alone(deployed("d2"), "/opt/koprogo")
    assert "ln -sfn releases/r2 current.new" in counts
    assert "koprogo-backend-blue-1" in stopped


# --- written down --------------------------------------------------------------------------------


def line(kind: str, outcome: str, age: int, **values: Any) -> dict[str, Any]:
    moment = datetime.fromtimestamp(CLOCK - age, UTC).isoformat()
    return {"kind": kind, "outcome": outcome, "at": moment, "backup": "abababab", **values}


CLOCK = 1_800_000_000
LONGEST = backups.longest(SETTINGS)
LIVE = StackState(
    current={"id": "r1", "dynamic": "d", "made": "2020-01-01T00:00:00+00:00"}, dynamic="d"
)


def wrong(*lines: dict[str, Any]) -> list[str]:
    entries = [line("run", "done", 90 * DAY), *lines]
    found = Journal(entries, [], [], journal.FIRST)
    troubles = status.data_troubles(LIVE, status.Now(clock=CLOCK), found, "staging", LONGEST)
    assert all("staging" in trouble.do for trouble in troubles), "each says what to do"
    return [trouble.what for trouble in troubles]


def test_how_old_is_too_old_follows_the_schedule() -> None:
    assert LONGEST == {"backup": 30 * HOUR, "drill": 8 * DAY}
    twice = project.settings(backup_schedule=["04:00", "16:00"])
    assert backups.longest(twice)["backup"] == 18 * HOUR


def test_status_is_not_well_while_a_backup_or_drill_is_old_failed_or_was_never_made() -> None:
    good = line("backup", "done", HOUR), line("drill", "done", DAY)
    assert wrong(*good) == []
    assert [w.split(" since")[0] for w in wrong(line("backup", "done", 31 * HOUR), good[1])] == [
        "no backup"
    ]
    assert [w.split(" since")[0] for w in wrong(good[0], line("drill", "done", 9 * DAY))] == [
        "no drill"
    ]
    failed = wrong(*good, line("backup", "failed", 60, reason="no space left"))
    assert len(failed) == 1
    assert failed[0].startswith("the newest backup (")
    assert failed[0].endswith("failed: no space left")
    assert [w.split("; ")[0] for w in wrong()] == [
        "no backup ever was made",
        "no drill ever was made",
    ]
    nothing = Journal([], [], [], "")
    now = status.Now(clock=CLOCK)
    assert status.data_troubles(StackState(), now, nothing, "staging", LONGEST) == []


def test_a_new_host_is_well_until_its_first_backup_is_due() -> None:
    young = Journal([line("run", "deployed", HOUR)], [], [], journal.FIRST)
    now = status.Now(clock=CLOCK)
    assert status.data_troubles(LIVE, now, young, "staging", LONGEST) == []
    assert status.data(young, status.Now(clock=CLOCK)) == {"backup": None, "drill": None}


def test_the_list_says_what_is_proven_and_what_another_host_made() -> None:
    entries = [
        line("backup", "done", 60, rows=7, uploads=2),
        line("drill", "failed", 50),
        line("drill", "done", 40),
    ]
    there = [snapshot("ab"), snapshot("cd"), snapshot("ef", "2099-01-02T03:04:05+01:00")]
    first, second, third = listing.rows(there, Journal(entries, [], [], ""))
    assert (first["read_back"], first["rows"], first["release"]) == (True, 7, "r1")
    assert first["drilled"] == entries[2]["at"]
    assert first["at"].startswith("2026-11-25T09:00:00")
    assert (second["read_back"], second["drilled"]) == (None, None)
    assert third["read_back"] is False, "cut before it was written down"
    [alone] = listing.rows(there[1:2], Journal([], [], [], ""))
    assert alone["read_back"] is None
    out = Console(file=io.StringIO(), width=120)
    listing.show(out, [first, second, third], "/srv/backups")
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "abababab" in text
    assert text.count("by another host") == 1
    assert text.count("not known here: not read back") == 1
    assert "in /srv/backups" in text


def test_a_failure_of_a_timer_s_run_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(backup, "write_down", lambda _c, kind, _by, **v: written.append((kind, v)))

    def fail(_config: Config, _staged: object) -> dict[str, Any]:
        raise Failed("no room")

    monkeypatch.setitem(main._SCHEDULED, "backup", fail)
    with pytest.raises(Failed):
        main.scheduled(CONFIG, "backup", "anna")
    monkeypatch.setitem(main._SCHEDULED, "backup", lambda *_: {"backup": "ab"})
    main.scheduled(CONFIG, "backup", "anna")
    assert [(k, v["outcome"], v.get("reason")) for k, v in written] == [
        ("backup", "failed", "no room"),
        ("backup", "done", None),
    ]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is written to the journal."""
    written: list[dict[str, Any]] = []

    def write_down(_config: Config, kind: str, by: str, **values: Any) -> None:
        written.append({"kind": kind, "by": by, **values})

    monkeypatch.setattr(backup, "write_down", write_down)
    return written


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ("success", None),
        ("exit-code", None),
        ("oom-kill", "out of memory"),
        ("signal", "ended: signal"),
    ],
)
def test_what_was_killed_is_written_down_by_its_unit_before_anything_is_waited_for(
    lines: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    result: str,
    told: str | None,
) -> None:
    monkeypatch.setenv("SERVICE_RESULT", result)
    monkeypatch.delenv(main.INVOCATION, raising=False)
    assert main.main(tmp_path, ["clean", "backup"]) == 1, "there are no settings, nothing to clean"
    assert [told in entry["reason"] for entry in lines] == ([True] if told else [])


def test_a_run_that_never_began_is_written_down_by_its_unit(
    lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Such as one whose ExecStartPre failed: the program itself could not say so."""
    monkeypatch.setenv("SERVICE_RESULT", "exit-code")
    monkeypatch.setenv(main.INVOCATION, "a1")
    main.ended(tmp_path, "backup")
    entry = journal.entry("backup", outcome="failed", reason="no room", unit="a1")
    (tmp_path / journal.FILE).write_text(f"{entry}\n")
    main.ended(tmp_path, "backup")
    main.ended(tmp_path, "drill")
    assert [(each["kind"], each["unit"]) for each in lines] == [("backup", "a1"), ("drill", "a1")]
    assert lines[0]["reason"] == (
        "its unit failed before it began: journalctl -u koprogo-backup says why"
    )


def test_what_nobody_thought_of_is_written_down_and_told(
    lines: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def garbled(_config: Config, _staged: object) -> dict[str, Any]:
        return {"text": b"\xff".decode()}

    for name in ("DEPLOY_LOCK", "DATA_LOCK"):
        monkeypatch.setattr(main, name, str(tmp_path / name))
    monkeypatch.setattr(main, "read_config", lambda _root: CONFIG)
    monkeypatch.setattr(main, "limit", lambda *_: None)
    monkeypatch.setitem(main._SCHEDULED, "backup", garbled)
    assert main.main(tmp_path, ["backup"]) == 1
    [line] = lines
    assert line["outcome"] == "failed"
    assert line["reason"].startswith("UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff")
    assert line["reason"] in capsys.readouterr().err


def test_a_lock_that_stays_held_and_settings_that_cannot_be_read_are_written_down(
    lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert main.main(tmp_path, ["drill", "--by", "anna"]) == 1
    assert "data/settings.json cannot be read" in lines[-1]["reason"]
    path = str(tmp_path / "lock")
    monkeypatch.setattr(main, "DATA_LOCK", path)
    monkeypatch.setattr(main, "read_config", lambda root: Config(root, "x", 0, {"wait": 0}))
    monkeypatch.setattr(main, "limit", lambda *_: None)
    with data_lock(path, 0, "somebody"):
        assert main.main(tmp_path, ["backup", "--locked", "--by", "anna"]) == 1
        assert main.main(tmp_path, ["list"]) == 1
    assert [(each["kind"], each["by"]) for each in lines] == [("drill", "anna"), ("backup", "anna")]
    assert lines[-1]["reason"] == f"somebody holds {path}; waited 0 s"


def test_a_journal_that_takes_no_line_hides_no_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise Failed("sh: no space left")

    monkeypatch.setattr(backup, "write_down", full)
    assert main.main(tmp_path, ["backup"]) == 1
    said = capsys.readouterr().err
    assert "the journal has no line of it: sh: no space left" in said
    assert "data/settings.json cannot be read" in said


def test_data_of_which_no_server_answers_is_set_aside_as_docker_would_make_it(
    tmp_path: Path,
) -> None:
    for name in ("koprogo_postgres_data", "koprogo_uploads"):
        (tmp_path / name / "_data").mkdir(parents=True)
        (tmp_path / name / "_data" / "old").touch()
    script = restore.SET_ASIDE.replace("/var/lib/docker/volumes", str(tmp_path))
    script = f"docker() {{ :; }}; {script}"
    subprocess.run(["sh", "-ec", script], check=True)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*/*"))
    assert found == ["koprogo_postgres_data/set_aside/old", "koprogo_uploads/set_aside/old"]
    assert oct((tmp_path / "koprogo_uploads" / "_data").stat().st_mode & 0o777) == "0o700"
    again = subprocess.run(["sh", "-c", script], capture_output=True, check=False)
    assert again.returncode, "what was set aside is not overwritten"


def test_what_is_said_instead_of_over_data_does_not_offer_it() -> None:
    assert "over_data" not in restore.ASIDE
    what, fix = restore.other_release("r1")
    assert "release r1 serves here" in what
    assert fix.startswith("deploys/full.py first, or deploys/restore.py")


# --- what no backup holds ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, ""),
        ({"STORAGE_PROVIDER": "local"}, ""),
        ({"UPLOAD_DIR": "/app/uploads/documents"}, ""),
        ({"STORAGE_PROVIDER": "s3"}, "STORAGE_PROVIDER = s3 in backend_environment keeps them"),
        ({"STORAGE_PROVIDER": "minio"}, "STORAGE_PROVIDER = minio in backend_environment"),
        ({"UPLOAD_DIR": "/data"}, "UPLOAD_DIR = /data in backend_environment lies outside"),
    ],
)
def test_documents_that_lie_elsewhere_are_told_of_every_backup(
    variables: dict[str, str], told: str
) -> None:
    settings = project.settings(backend_environment=variables)
    said = backups.unsaved(settings)
    assert bool(said) == bool(told)
    assert told in said
    assert (said in backups.warnings(settings)) == bool(told)
    [file] = [f for f in machine.data_files(settings) if f.path.endswith("data/settings.json")]
    config = Config(Path("/"), "production", 0, json.loads(file.content)["backup"])
    assert backup.warnings(config, tree.LeftOut()) == ([said] if told else [])


def test_what_a_backup_does_not_hold_is_said_by_list_and_status() -> None:
    told = "left out of the uploads, 1: zz (a symbolic link)"
    entries = [line("backup", "done", 60, rows=7, uploads=2, warnings=[told, "known"])]
    kept = Journal(entries, [], [], "")
    [found] = listing.rows([snapshot("ab")], kept)
    with io.StringIO() as text:
        listing.show(Console(file=text, width=200), [found], "/srv/backups")
        assert f"abababab: {told}" in text.getvalue()
    assert status.of_newest(kept, ["known"]) == [f"the newest backup: {told}"]
    assert status.of_newest(Journal([], [], [], ""), []) == []
    report = status.report(StackState(), status.Now(clock=CLOCK), kept, warnings=["known"])
    assert report["notes"][-2:] == ["known", f"the newest backup: {told}"]


# --- the unit ------------------------------------------------------------------------------------


def unit_lines(kind: str, **changes: Any) -> dict[str, list[str]]:
    """Lines of a service, by name."""
    units = machine.backup_units(project.settings(**changes))
    [unit] = [each for each in units if each.path.endswith(f"koprogo-{kind}.service")]
    found: dict[str, list[str]] = {}
    for text in unit.content.splitlines():
        if not text.startswith(("#", "[")) and "=" in text:
            name, _, value = text.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("kind", backups.KINDS)
def test_backups_and_drills_run_confined(kind: str) -> None:
    """`systemd-analyze security` is asked on a host; here, that nothing of it is lost."""
    lines = unit_lines(kind)
    for name in ("PrivateTmp", "PrivateDevices", "NoNewPrivileges", "ProtectKernelTunables"):
        assert lines[name] == ["yes"]
    assert lines["ProtectSystem"] == ["strict"]
    assert lines["RestrictAddressFamilies"] == ["AF_UNIX AF_INET AF_INET6"]
    assert lines["RestrictNamespaces"] == [" ".join(confined.NAMESPACES)], "those it enters"
    kept = {each for value in lines["CapabilityBoundingSet"] for each in value.split()}
    assert not kept & {"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_NET_ADMIN", "CAP_MKNOD", "CAP_BPF"}
    assert lines["RuntimeDirectory"] == [RUN.removeprefix("/run/")]
    writable = " ".join(lines["ReadWritePaths"]).split()
    assert writable == [
        *("/opt/koprogo/data", "-/opt/koprogo/journal.jsonl"),
        *("/var/lib/docker/volumes/koprogo_uploads", "-/opt/koprogo/backups"),
    ]


@pytest.mark.parametrize(
    ("changes", "made", "home"),
    [
        ({"backup_repository": "/srv/backups"}, "/srv/backups", "yes"),
        ({"backup_repository": "/home/anna/backups"}, "/home/anna/backups", "read-only"),
        (S3, None, "yes"),
        (SFTP, None, "yes"),
    ],
)
def test_the_unit_may_write_to_a_repository_on_the_host(
    changes: dict[str, Any], made: str | None, home: str
) -> None:
    lines = unit_lines("backup", **changes)
    assert lines["ProtectHome"] == [home]
    assert lines.get("ExecStartPre", []) == ([f"+/bin/mkdir -p -m 700 {made}"] if made else [])
    assert (lines["ReadWritePaths"][-1] == f"-{made}") == bool(made)
