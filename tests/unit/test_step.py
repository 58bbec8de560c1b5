"""A step that cannot go on says why, in words, and the run ends there."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api.exceptions import OperationError

from koprogo_deploy.operations import step
from koprogo_deploy.pyinfra_adapter import connection


@pytest.fixture(autouse=True)
def executing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "state", SimpleNamespace(is_executing=True))
    monkeypatch.setattr(step, "said", [])


def stopping(error: BaseException) -> Iterator[str]:
    yield "true"
    raise error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OperationError("no room"), "no room"),
        (EOFError(), "the connection to the host was lost: EOFError"),
        (connection.LOST[-1]("SSH session not active"), "lost: SSH session not active"),
        (ConnectionResetError("reset by peer"), "lost: reset by peer"),
        (TimeoutError("timed out"), "lost: timed out"),
    ],
)
def test_what_stops_a_step_is_a_command_that_fails_with_the_reason(
    error: BaseException, words: str
) -> None:
    commands: list[Any] = list(step.told(stopping(error)))
    assert len(commands) == 2
    assert step.said[0].endswith(words)
    assert "Error(" not in step.said[0], "no traceback, and no type around it"


def test_a_fault_of_ours_is_not_taken_for_one_of_the_connections() -> None:
    with pytest.raises(KeyError):
        list(step.told(stopping(KeyError("x"))))


def test_before_anything_is_executed_pyinfra_shows_it_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(step, "state", SimpleNamespace(is_executing=False))
    with pytest.raises(OperationError):
        list(step.told(stopping(OperationError("no room"))))
