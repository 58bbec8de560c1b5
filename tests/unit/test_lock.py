"""The deploy's lock: who is waited for, for how long, and what is said of it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from koprogo_deploy import machine
from koprogo_deploy.data import host as data
from koprogo_deploy.door import ROOT
from koprogo_deploy.operations import lock
from tests import project

BACKUP = "a backup of the timer since 2026-01-01 03:30:00 UTC"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(data, "RUN", str(tmp_path / "run"))
    monkeypatch.setattr(data, "EARLIER", str(tmp_path / "koprogo-"))
    monkeypatch.setattr(lock, "PATH", str(tmp_path / "run/deploy"))
    monkeypatch.setattr(lock, "EARLIER", str(tmp_path / "koprogo-deploy"))
    (tmp_path / "run").mkdir(mode=0o700)
    return lock.PATH


@contextmanager
def held(path: str, holder: str, seconds: float = 60) -> Iterator[None]:
    """Somebody holds the lock and says who, for so long at most."""
    Path(f"{path}.holder").write_text(f"{holder}\n")
    keeper = subprocess.Popen(["flock", "-o", path, "sh", "-c", f"echo held; exec sleep {seconds}"],
                              stdout=subprocess.PIPE)  # fmt: skip
    assert keeper.stdout is not None
    try:
        assert keeper.stdout.readline() == b"held\n"
        yield
    finally:
        keeper.kill()
        keeper.wait()
        keeper.stdout.close()


def ask(
    wait: int, wait_for_data: int, holder: str = "anna's deploy", root: str = "/nowhere"
) -> tuple[str, list[str]]:
    """The answer, and whom it waited for; the lock is let go at once."""
    command = lock.lock_command(holder, wait, wait_for_data, root)
    assert command.startswith("sudo -n ")
    done = subprocess.run(
        shlex.split(command)[2:], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=True, timeout=30,
    )  # fmt: skip
    waited: list[str] = []
    return lock.answer(done.stdout.splitlines(), waited.append), waited


def test_a_free_lock_is_taken_and_let_go(path: str) -> None:
    assert ask(1, 1) == ("held", [])
    assert not Path(f"{path}.holder").exists()


def test_another_deploy_is_given_up_on_after_lock_wait(path: str) -> None:
    with held(path, "bert@laptop since noon"):
        began = time.monotonic()
        answer, waited = ask(1, 60)
        assert time.monotonic() - began < 5
    assert (answer, waited) == ("busy bert@laptop since noon", [])
    told = lock.refusal(answer, "vps", project.settings())
    assert told.startswith("another deploy is running on vps: bert@laptop since noon. Nothing was")
    assert "--data lock_wait=" in told


@pytest.mark.parametrize("holder", [BACKUP, "a drill of the timer since 2026-01-01 04:30:00 UTC"])
def test_a_backup_is_waited_for_to_its_end_and_that_is_said_once(path: str, holder: str) -> None:
    with held(path, holder, seconds=2.5):
        assert ask(1, 30) == ("held", [holder])


def test_a_backup_that_does_not_end_is_named_after_backup_wait(path: str) -> None:
    with held(path, BACKUP):
        answer, waited = ask(60, 2)
    assert (answer, waited) == (f"busy {BACKUP}", [BACKUP])
    told = lock.refusal(answer, "vps", project.settings(backup_wait="2s"))
    assert told.startswith(f"{BACKUP} is still running on vps after 2 s. Nothing was touched.")
    assert "--data backup_wait=30min" in told


def test_a_deploy_that_comes_first_after_the_backup_is_given_up_on(path: str) -> None:
    """It is not waited for as long as the backup was to be."""
    with held(path, BACKUP):
        command = lock.lock_command("anna's deploy", 1, 60, "/nowhere")
        asking = subprocess.Popen(
            shlex.split(command)[2:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        assert asking.stdout is not None
        assert asking.stdout.readline() == f"waiting {BACKUP}\n"
        Path(f"{path}.holder").write_text("bert@laptop since noon\n")
        assert asking.stdout.readline() == "busy bert@laptop since noon\n"
        assert asking.wait(timeout=5) == 0
        asking.stdout.close()


def test_a_host_that_cannot_be_asked_is_not_said_to_be_busy() -> None:
    assert lock.answer([], lambda _: None) == ""
    assert "the host said nothing" in lock.refusal("", "vps", project.settings())
    said = ["sudo: unable to resolve host vps", "sudo: a password is required", ""]
    told = lock.refusal(lock.answer(said, lambda _: None), "vps", project.settings())
    assert "another deploy is running: sudo: a password is required." in told
    assert "sudo without a password" in told
    assert not told.startswith("another deploy is running")
    noisy = ["sudo: unable to resolve host vps", "held"]
    assert lock.answer(noisy, lambda _: None) == "held"
    assert "nobody could say who" in lock.refusal("busy", "vps", project.settings())


def test_both_sides_know_the_holders_by_the_same_words() -> None:
    assert data.is_at_the_data(data.holder("backup", "the timer"))
    assert data.is_at_the_data(data.holder("drill", "anna@laptop"))
    assert not data.is_at_the_data("anna@laptop since 2026-01-01 00:00:00 UTC")
    assert lock.PATH == data.DEPLOY_LOCK


# --- where others may write ----------------------------------------------------------------------


def test_locks_lie_where_root_alone_may_write() -> None:
    """In /run/lock any user could hold one, or have root write to a file of his choice."""
    settings = project.settings()
    places = (data.DEPLOY_LOCK, data.DATA_LOCK, data.LOAD_LOCK)
    assert {str(Path(each).parent) for each in places} == {data.RUN} == {"/run/koprogo"}
    [made] = [f for f in machine.host_files(settings) if f.path == machine.RUN_FILE]
    assert "d /run/koprogo 0700 root root -\n" in made.content
    folders = ("koprogo_deploy", "templates", "deploys", "tests", "sandbox", "bench")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.*") if file.is_file()]
    named = {
        str(file.relative_to(ROOT))
        for file in files
        if file.suffix in (".py", ".j2", ".sh") and b"/run/lock" in file.read_bytes()
    }
    assert named == {
        "koprogo_deploy/data/host.py",  # what an earlier version holds
        "koprogo_deploy/operations/lock.py",
        "tests/integration/test_secrets.py",  # where secrets are hunted
        "tests/unit/test_lock.py",
    }


def test_whoever_takes_a_lock_makes_its_directory_for_root_alone(path: str, tmp_path: Path) -> None:
    for take in (lambda: ask(1, 1), lambda: data.lock(path, 0).__enter__()):
        shutil.rmtree(tmp_path / "run")
        take()
        assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


@contextmanager
def earlier_run(holder: str, seconds: float = 60, name: str = "deploy") -> Iterator[None]:
    """A program of an earlier version holds its lock in /run/lock."""
    with held(f"{data.EARLIER}{name}", holder, seconds):
        yield


def test_a_run_of_an_earlier_version_is_waited_for_and_not_joined(path: str) -> None:
    with earlier_run(BACKUP, seconds=2.5):
        assert ask(1, 30) == ("held", [BACKUP])
    with earlier_run("bert@laptop since noon"):
        assert ask(1, 60) == ("busy bert@laptop since noon", [])
        assert not Path(f"{path}.holder").exists()
    assert ask(1, 1)[0] == "held"


def test_data_s_own_lock_of_an_earlier_version_is_waited_for(path: str, tmp_path: Path) -> None:
    with earlier_run(BACKUP, name="deploy"), pytest.raises(data.Failed, match=re.escape(BACKUP)):
        data.lock(path, 0.3).__enter__()
    with earlier_run(BACKUP, seconds=0.5), data.lock(path, 5):
        assert _held_by_somebody(lock.EARLIER)
    assert not _held_by_somebody(lock.EARLIER)
    Path(lock.EARLIER).unlink()
    with data.lock(path, 0, "now"):
        assert not os.path.lexists(lock.EARLIER), "nothing is made there"


def _held_by_somebody(path: str) -> bool:
    return subprocess.run(["flock", "-n", path, "true"], check=False).returncode != 0


def test_a_deploy_holds_what_the_host_s_earlier_program_would_take(
    path: str, tmp_path: Path
) -> None:
    """Its timer may come at any time until the deploy has replaced it."""
    program = tmp_path / "data/lib/koprogo_deploy/data/host.py"
    program.parent.mkdir(parents=True)
    program.write_text('DEPLOY_LOCK = "/run/lock/koprogo-deploy"\n')
    victim = tmp_path / "victim"
    victim.write_text("of the host")
    Path(lock.EARLIER).symlink_to(victim)  # of somebody's, where nothing of root's was
    command = lock.lock_command("anna's deploy", 1, 1, str(tmp_path))
    with subprocess.Popen(
        shlex.split(command)[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == "held\n"
        there = Path(lock.EARLIER).lstat()
        assert stat.S_ISREG(there.st_mode)
        assert stat.S_IMODE(there.st_mode) == 0o600
        assert _held_by_somebody(lock.EARLIER)
        keeper.communicate("")
    assert not _held_by_somebody(lock.EARLIER)
    assert victim.read_text() == "of the host"
    Path(lock.EARLIER).unlink()
    shutil.copy(data.__file__, program)  # today's
    assert ask(1, 1, root=str(tmp_path))[0] == "held"
    assert not os.path.lexists(lock.EARLIER)


def test_what_root_did_not_sign_holds_up_nobody(path: str, tmp_path: Path) -> None:
    """Any user may hold a file that he can read, and have links where there is nothing."""
    Path(lock.EARLIER).write_text("")
    keeper = subprocess.Popen(["flock", "-o", lock.EARLIER, "sleep", "60"])
    try:
        while not _held_by_somebody(lock.EARLIER):
            time.sleep(0.02)
        Path(f"{lock.EARLIER}.holder").symlink_to("/etc/hostname")
        assert ask(60, 60) == ("held", [])
        assert Path(f"{lock.EARLIER}.holder").is_symlink() is False
        with data.lock(path, 60, "x"):
            pass
    finally:
        keeper.kill()
        keeper.wait()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else")
def test_a_lock_of_another_user_s_is_no_lock(path: str) -> None:
    for name in ("", ".holder"):
        Path(f"{lock.EARLIER}{name}").write_text(f"{BACKUP}\n")
        os.chown(f"{lock.EARLIER}{name}", 1234, 1234)
    with somebody_s():
        assert ask(60, 60) == ("held", [])
        with data.lock(path, 0, "x"):
            pass


@contextmanager
def somebody_s() -> Iterator[None]:
    """Somebody holds a lock file of his own there."""
    keeper = subprocess.Popen(["flock", "-o", lock.EARLIER, "sleep", "60"])
    try:
        while not _held_by_somebody(lock.EARLIER):
            time.sleep(0.02)
        yield
    finally:
        keeper.kill()
        keeper.wait()
