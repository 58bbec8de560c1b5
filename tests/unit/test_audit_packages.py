"""What pip-audit answers, judged: findings, exceptions with an end, and what was not looked at."""

from __future__ import annotations

import datetime
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts import audit_packages
from scripts.audit_packages import Accepted, judge, report

TODAY = datetime.date(2026, 12, 1)
FLAW = {"id": "GHSA-1", "aliases": ["CVE-2026-1"], "fix_versions": ["5.0"], "description": ""}
BAD = {"name": "paramiko", "version": "4.0.0", "vulns": [FLAW]}
GOOD = {"name": "rich", "version": "15.0", "vulns": []}
UNKNOWN = {"name": "orjson", "skip_reason": "Dependency not found on PyPI"}


@pytest.fixture(autouse=True)
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the pipeline that runs these tests asks for."""
    monkeypatch.delenv("KOPROGO_AUDIT", raising=False)


def accepted(id: str = "CVE-2026-1", package: str = "paramiko", days: int = 0) -> Accepted:
    return Accepted(id, package, "it is switched off", TODAY + datetime.timedelta(days))


def answer(*packages: dict[str, Any]) -> dict[str, Any]:
    return {"dependencies": list(packages), "fixes": []}


def test_a_known_vulnerability_counts() -> None:
    found = judge(answer(BAD, GOOD), [], TODAY)
    assert found.findings == ("paramiko 4.0.0: CVE-2026-1, GHSA-1, fixed in 5.0",)
    assert report(found)[-1] == "2 packages checked, 1 known vulnerabilities count"


@pytest.mark.parametrize("name", ["CVE-2026-1", "GHSA-1"])
def test_an_exception_by_any_of_its_names_lets_it_pass_up_to_its_day(name: str) -> None:
    found = judge(answer(BAD), [accepted(name)], TODAY)
    assert not found.findings and not found.obsolete
    assert found.passed[0].endswith("until 2026-12-01: it is switched off")


def test_an_exception_that_ended_counts_again_and_says_so() -> None:
    found = judge(answer(BAD), [accepted(days=-1)], TODAY)
    assert found.findings[0].endswith("its exception ended 2026-11-30")


@pytest.mark.parametrize("other", [accepted("CVE-2026-2"), accepted(package="rich")])
def test_an_exception_is_for_one_flaw_of_one_package(other: Accepted) -> None:
    found = judge(answer(BAD, GOOD), [other], TODAY)
    assert len(found.findings) == 1
    assert found.obsolete == (f"{other.id} of {other.package}: it has none of that name",)


def test_an_exception_of_a_package_that_is_gone_is_obsolete() -> None:
    assert judge(answer(GOOD), [accepted()], TODAY).obsolete == (
        "CVE-2026-1 of paramiko: no such package is locked",
    )


def test_of_a_package_that_was_not_looked_up_nothing_is_said() -> None:
    unseen = {"name": "paramiko", "skip_reason": "not found"}
    found = judge(answer(unseen, GOOD), [accepted()], TODAY)
    assert found.obsolete == () and found.unchecked == ("paramiko",)
    assert "not checked: paramiko" in report(found)


def test_a_service_that_knows_no_package_has_checked_nothing() -> None:
    assert report(judge(answer(UNKNOWN), [accepted()], TODAY)) == [
        "not checked: the service answered for none of the packages"
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('id = ""', "id is missing"),
        ('until = "2027-03-01"', "until is no date"),
        ("until = 2027-03-01T00:00:00", "until is no date"),
        ('why = "  "', "why is missing"),
        ('till = "x"', "till is unknown"),
    ],
)
def test_an_exception_must_be_whole(line: str, says: str) -> None:
    entry = {"id": '"a"', "package": '"b"', "why": '"c"', "until": "2027-03-01"}
    key, _, value = line.partition(" = ")
    text = "\n".join(f"{k} = {v}" for k, v in (entry | {key: value}).items())
    with pytest.raises(ValueError, match=f"exception 1: {says}"):
        audit_packages.exceptions(f"[[exception]]\n{text}\n")


def test_our_own_exceptions_are_whole() -> None:
    assert audit_packages.exceptions(audit_packages.EXCEPTIONS.read_text(encoding="utf-8"))


def test_every_lock_is_there_and_has_hashes() -> None:
    for name in audit_packages.LOCKS:
        lines = (audit_packages.ROOT / name).read_text(encoding="utf-8").splitlines()
        pins = [line for line in lines if "==" in line and not line.lstrip().startswith("#")]
        assert pins and all(line.endswith("\\") for line in pins), name


LOST = "requests.exceptions.ConnectionError: Failed to resolve 'pypi.org'"


def audit(folder: Path, stdout: str, words: str = "") -> str:
    """A pip-audit that answers this."""
    (folder / "answer").write_text(stdout)
    (folder / "words").write_text(words)
    program = folder / "pip-audit"
    say = f"echo >> {folder}/asked; cat {folder}/answer; cat {folder}/words >&2"
    program.write_text(f"#!/bin/sh\n{say}\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


def test_a_vulnerability_fails_the_run_and_every_lock_is_asked_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flawed = {"name": "rich", "version": "1", "vulns": [FLAW]}
    assert audit_packages.main(audit(tmp_path, json.dumps(answer(flawed)))) == 1
    assert capsys.readouterr().out.count("VULNERABLE rich 1") == 1
    assert len((tmp_path / "asked").read_text()) == len(audit_packages.LOCKS)


def test_a_service_that_is_out_of_reach_is_told_and_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit_packages.main(audit(tmp_path, "", f"Traceback\n{LOST}")) == 0
    assert capsys.readouterr().out == f"not checked: {LOST}\n"


@pytest.mark.parametrize(
    ("stdout", "words", "code"),
    [
        ("", f"Traceback\n{LOST}", 3),
        (json.dumps(answer(UNKNOWN)), "", 3),
        (json.dumps(answer(GOOD, UNKNOWN)), "", 3),
        (json.dumps(answer({**GOOD, "vulns": [FLAW]}, UNKNOWN)), "", 1),
        (json.dumps(answer(GOOD)), "", 0),
    ],
)
def test_a_pipeline_that_has_to_know_fails_where_something_was_not_checked(
    stdout: str, words: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = audit(tmp_path, stdout, words)
    assert audit_packages.main(found) == (code if code == 1 else 0)
    monkeypatch.setenv("KOPROGO_AUDIT", "strict")
    assert audit_packages.main(found) == code


def test_a_mode_with_a_typo_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KOPROGO_AUDIT", "strickt")
    assert audit_packages.main(audit(tmp_path, json.dumps(answer(GOOD)))) == 2
    assert capsys.readouterr().err == (
        'KOPROGO_AUDIT is "strickt"; write strict, or leave it out\n'
    )


@pytest.mark.parametrize(("mode", "code"), [("", 0), ("strict", 3)])
def test_without_the_tool_itself_nothing_is_checked(mode: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "audit-packages"
    script.write_text((audit_packages.ROOT / "scripts" / "audit-packages").read_text())
    tools = tmp_path / "scripts" / "tools"
    tools.write_text("#!/bin/sh\necho no network >&2; exit 1\n")
    tools.chmod(0o755)
    environment = {**os.environ, "KOPROGO_AUDIT": mode}
    done = subprocess.run(
        ["sh", str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (code, "no network\n")
    assert done.stdout.startswith("not checked: pip-audit cannot be installed")


@pytest.mark.parametrize("stdout", ["", "[", '{"fixes": []}'])
def test_a_pip_audit_that_fails_by_itself_is_a_failure(
    stdout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit_packages.main(audit(tmp_path, stdout, "ERROR: duplicate requirements")) == 2
    assert capsys.readouterr().err.endswith("requirements.lock: ERROR: duplicate requirements\n")
    assert audit_packages.main(str(tmp_path / "missing")) == 2
