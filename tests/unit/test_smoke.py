"""What the smoke tests say of a release, and what they say of the host alone."""

from __future__ import annotations

import inspect
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import door, smoke
from koprogo_deploy.operations import context, notes, record, take_back, verify
from tests import project
from tests.smoke import test_host

BASE = project.settings()
FULL = "@pytest.mark.of_the_host\ndef test_disk_has_room(): assert False\n"
SILENT = "def test_api_answers(): assert False\n"
WELL = "def test_page(): pass\n"
NO_HOST = (
    "@pytest.fixture\ndef seen(): raise OSError\n"
    "@pytest.mark.of_the_host\ndef test_swap(seen): pass\n"
)


def outcome(folder: Path, monkeypatch: pytest.MonkeyPatch, *tests: str) -> smoke.Outcome:
    (folder / "conftest.py").write_text("from tests.smoke.conftest import pytest_sessionfinish\n")
    (folder / "test_it.py").write_text("import pytest\n" + "".join(tests))
    monkeypatch.setattr(smoke, "TESTS", folder)
    return smoke.run("sandbox", ["-c", str(door.ROOT / "pyproject.toml")])


def test_what_fails_of_the_host_alone_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = outcome(tmp_path, monkeypatch, WELL, FULL)
    assert (found.passed, found.of_the_host) == (False, True)
    assert found.failures == "test_disk_has_room"
    assert (found.summary["failed"], found.summary["of"]) == ("test_disk_has_room", "host")


@pytest.mark.parametrize("tests", [(SILENT, FULL), (SILENT, NO_HOST)])
def test_a_release_that_fails_is_to_blame_whatever_the_host_does(
    tests: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = outcome(tmp_path, monkeypatch, *tests)
    assert (found.passed, found.of_the_host) == (False, False)
    assert "test_api_answers" in found.failures
    assert "of" not in found.summary


def test_all_that_passes_and_a_run_without_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outcome(tmp_path, monkeypatch, WELL).passed
    none = outcome(tmp_path, monkeypatch, "")
    assert (none.passed, none.of_the_host, none.failures) == (False, False, "no test ran")


def test_what_does_not_end_did_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "TIMEOUT", 2)
    hangs = "def test_z_api_answers(): import time; time.sleep(60)\n"
    began = time.monotonic()
    found = outcome(tmp_path, monkeypatch, WELL, FULL, hangs)
    assert time.monotonic() - began < 10
    assert (found.passed, found.of_the_host) == (False, False)
    assert found.failures == found.summary["tests"] == "no end within 2 s"


def test_what_was_ended_before_its_end_says_nothing_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = "def test_z_api_answers(): pytest.exit('enough', returncode=2)\n"
    found = outcome(tmp_path, monkeypatch, FULL, ended)
    assert (found.passed, found.of_the_host) == (False, False)


# --- what a deploy makes of it -------------------------------------------------------------------


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Notes of a run that verifies a release which it has switched to; `back`: taken back."""
    values: dict[str, Any] = {}
    host = SimpleNamespace(noop=lambda _: None)
    environment = SimpleNamespace(settings=BASE)
    for module in (verify, record):
        monkeypatch.setattr(module, "state", SimpleNamespace(is_executing=True), raising=False)
        monkeypatch.setattr(module, "host", host)
    monkeypatch.setattr(context, "current", lambda: environment)
    monkeypatch.setattr(context, "smoke_overrides", dict)
    monkeypatch.setattr(notes, "notes", values)
    monkeypatch.setattr(record, "notes", values)
    monkeypatch.setattr(verify, "stack", lambda _: None)
    monkeypatch.setattr(take_back, "switched", lambda _: True)
    monkeypatch.setattr(take_back, "excuse", lambda _: values.get("excuse", ""))

    def back(*given: Any) -> str:
        values.update(back=True, excused=given[-1])
        return "taken back"

    monkeypatch.setattr(take_back, "back", back)
    monkeypatch.setattr(take_back.OnFailure, "armed", True)
    return values


def verified(monkeypatch: pytest.MonkeyPatch, found: smoke.Outcome) -> None:
    monkeypatch.setattr(smoke, "run", lambda *_, **__: found)
    list(inspect.unwrap(verify.smoke_tests_pass)())


def judged() -> None:
    list(inspect.unwrap(record.host_is_well)())


def test_a_host_that_is_not_well_takes_no_release_back_and_fails_the_run_at_its_end(
    noted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = "FAILED tests/smoke/test_host.py::test_disk_has_room - assert 86 < 85"
    verified(monkeypatch, smoke.Outcome(False, failed, of_the_host=True))
    assert "back" not in noted
    assert not take_back.OnFailure.armed, "it counts, whatever fails after this"
    with pytest.raises(OperationError, match=r"the host is not well: test_disk.* serves"):
        judged()


def test_a_release_that_fails_is_taken_back(
    noted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OperationError, match="taken back"):
        verified(monkeypatch, smoke.Outcome(False, "FAILED tests/smoke/test_x.py::test_api - x"))
    assert noted["back"]
    judged()


@pytest.mark.parametrize("excuse", ["", "It is not marked as bad: Postgres does not answer"])
def test_who_is_to_blame_is_asked_before_a_release_is_taken_back(
    excuse: str, noted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted["excuse"] = excuse
    with pytest.raises(OperationError, match="taken back"):
        verified(monkeypatch, smoke.Outcome(False, "ERROR tests/smoke/test_host.py::test_x - x"))
    assert noted["excused"] == excuse


def test_what_anybody_left_in_the_data_condemns_no_release() -> None:
    """Any release finds it, also the one that mends it."""
    marks = getattr(test_host.test_nobody_but_postgres_is_its_superuser, "pytestmark", [])
    assert "of_the_host" in [mark.name for mark in marks]


def test_a_host_that_is_well_is_no_news(
    noted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    verified(monkeypatch, smoke.Outcome(True, "53 passed"))
    judged()
    assert "back" not in noted


def test_what_no_test_could_try_is_in_the_journals_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skips = "".join(
        f"def test_{n}(): pytest.skip({reason!r})\n"
        for n, reason in enumerate(
            ("no tenant's list was tried: there is no organisation", "swap = None")
        )
    )
    found = outcome(tmp_path, monkeypatch, WELL, skips)
    assert found.passed
    assert found.summary["untried"] == ["no tenant's list was tried: there is no organisation"]
    assert "untried" not in outcome(tmp_path, monkeypatch, WELL).summary
