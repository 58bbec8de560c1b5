"""The deploy's lock: who is waited for, for how long, and what is said of it."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from koprogo_deploy.data import host as data
from koprogo_deploy.operations import lock
from tests import project

BACKUP = "a backup of the timer since 2026-01-01 03:30:00 UTC"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(lock, "PATH", str(tmp_path / "lock"))
    return lock.PATH


@contextmanager
def held(path: str, holder: str, seconds: float = 60) -> Iterator[None]:
    """Somebody holds the lock and says who, for so long at most."""
    Path(f"{path}.holder").write_text(f"{holder}\n")
    keeper = subprocess.Popen(["flock", path, "sh", "-c", f"echo held; exec sleep {seconds}"],
                              stdout=subprocess.PIPE)  # fmt: skip
    assert keeper.stdout is not None
    try:
        assert keeper.stdout.readline() == b"held\n"
        yield
    finally:
        keeper.kill()
        keeper.wait()
        keeper.stdout.close()


def ask(wait: int, wait_for_data: int, holder: str = "anna's deploy") -> tuple[str, list[str]]:
    """The answer, and whom it waited for; the lock is let go at once."""
    command = lock.lock_command(holder, wait, wait_for_data)
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
        command = lock.lock_command("anna's deploy", 1, 60)
        asking = subprocess.Popen(
            shlex.split(command)[2:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        assert asking.stdout is not None
        assert asking.stdout.readline() == f"waiting {BACKUP}\n"
        Path(f"{path}.holder").write_text("bert@laptop since noon\n")
        assert asking.stdout.readline() == "busy bert@laptop since noon\n"
        assert asking.wait(timeout=5) == 0
        asking.stdout.close()


def test_an_answer_that_never_comes_names_nobody() -> None:
    assert lock.answer([], lambda _: None) == ""
    assert "nobody could say who" in lock.refusal("", "vps", project.settings())


def test_both_sides_know_the_holders_by_the_same_words() -> None:
    assert data.is_at_the_data(data.holder("backup", "the timer"))
    assert data.is_at_the_data(data.holder("drill", "anna@laptop"))
    assert not data.is_at_the_data("anna@laptop since 2026-01-01 00:00:00 UTC")
    assert lock.PATH == data.DEPLOY_LOCK
