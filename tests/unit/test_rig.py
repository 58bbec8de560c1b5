"""What the integration tests read of a run: whether it said a thing, and what was interrupted."""

from __future__ import annotations

import subprocess

import pytest

from tests.integration.rig import Run, said
from tests.integration.test_interruptions import Cut

OUTPUT = """\
--> Starting operation: Host | Be there\x20
    [sandbox] No changes
--> Starting operation: Cut over | Switch to the release\x20
"""


def started(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True)


def test_a_run_is_waited_for_until_it_says_something() -> None:
    with started("echo one; echo two; echo three") as process:
        assert said(process, "two") == ["one\n", "two\n"]


def test_a_run_that_ends_without_saying_it_fails() -> None:
    with (
        started("echo one; echo other") as process,
        pytest.raises(AssertionError, match=r"'two' was never said:\none\nother\n"),
    ):
        said(process, "two")


def test_the_operations_that_began_in_their_order() -> None:
    assert Run(0, OUTPUT).begun == ["Host | Be there", "Cut over | Switch to the release"]


@pytest.mark.parametrize(("code", "within"), [(-9, "Cut over | Switch to the release"), (0, "")])
def test_a_run_that_came_to_its_end_was_not_interrupted(code: int, within: str) -> None:
    assert Cut(code, OUTPUT).within == within
