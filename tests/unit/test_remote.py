"""A command on the host: what failed is said, the connection or the command."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from koprogo_deploy import connection, remote
from koprogo_deploy.door import Environment
from koprogo_deploy.problems import Refusal
from tests.project import Project


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """One whose commands are run by the shell here."""
    monkeypatch.setattr(connection, "ssh_command", lambda _environment, text: ["sh", "-c", text])
    return Project.make(tmp_path).open()


def refusal(environment: Environment, command: str, within: float = 20) -> str:
    with pytest.raises(Refusal) as refused:
        remote.run(environment, command, within=within)
    return str(refused.value)


def test_what_a_command_says_is_no_trouble_with_the_connection(environment: Environment) -> None:
    assert remote.run(environment, "cat", "x") == "x"
    told = refusal(environment, "echo a; echo a drill of the timer holds it >&2; exit 1")
    assert "a drill of the timer holds it" in told
    assert "koprogo ssh" not in told
    assert "koprogo ssh" in refusal(environment, "echo no route to host >&2; exit 255")


def test_a_command_that_takes_too_long_is_given_up(environment: Environment) -> None:
    command = f"{sys.executable} -c 'import time; time.sleep(5)'"
    assert "no answer within 0 s" in refusal(environment, command, within=0.2)
