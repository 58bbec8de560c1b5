"""What was cut in the midst of the data is ended by the run that began it, and by no other."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy import cut, maintenance
from koprogo_deploy.facts.stack import Stack, StackState, parse_stack
from koprogo_deploy.plan import host as acceptable
from tests import project

RETURNING = StackState(returning={"release": "r1"})
RESTORING = StackState(restoring={"coming": "koprogo_restored"})


def refused(found: StackState, does: str, **values: Any) -> str:
    problems = acceptable.cut_problems(project.settings(**values), found, does)
    return " ".join(f"{problem.what} -> {problem.fix}" for problem in problems)


def page(message: str) -> str:
    wanted = maintenance.Maintenance("2026-01-01T00:00:00+00:00", "anna", message, 30, ())
    return json.dumps(asdict(wanted))


def test_nothing_is_refused_where_nothing_was_cut() -> None:
    by_hand = StackState(maintenance=page("back at ten"))
    assert [refused(StackState(), ""), refused(by_hand, "")] == ["", ""]


@pytest.mark.parametrize("does", ["", cut.UPGRADE, cut.RESTORE])
def test_a_rollback_with_data_that_was_cut_is_ended_by_no_other_run(does: str) -> None:
    told = refused(RETURNING, does, release="r1", restore_dump=True)
    assert told.startswith("a rollback with its data is under way, or was cut")
    assert told.endswith("deploys/rollback.py --data release=r1 --data restore_dump=true")


@pytest.mark.parametrize(
    ("values", "passes"),
    [
        ({"release": "r1", "restore_dump": True}, True),
        ({"release": "r1"}, False),
        ({"release": "r0", "restore_dump": True}, False),
        ({"restore_dump": True}, False),
    ],
)
def test_only_the_same_rollback_ends_it(values: dict[str, Any], passes: bool) -> None:
    assert (refused(RETURNING, cut.RETURN, **values) == "") == passes


def test_where_only_its_page_is_left_it_is_ended_by_going_to_what_serves() -> None:
    only = StackState(maintenance=page(maintenance.RETURNING), current={"id": "r1", "dynamic": ""})
    assert refused(only, cut.RETURN, release="r1", restore_dump=True) == ""
    assert "release=r1 --data restore_dump=true" in refused(only, "")


@pytest.mark.parametrize("found", [RESTORING, StackState(maintenance=page(maintenance.RESTORING))])
def test_a_restore_that_was_cut_is_ended_by_a_restore(found: StackState) -> None:
    for backup in ("latest", "before", "drop_old"):
        assert refused(found, cut.RESTORE, backup=backup) == ""
    for does in ("", cut.UPGRADE, cut.RETURN):
        assert "a restore is under way, or was cut" in refused(found, does, restore_dump=True)


def test_what_they_wrote_down_is_seen(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/restore.json").write_text('{"old": "a", "coming": "b"}')
    (tmp_path / "data/return.json").write_text('{"release": "r1"}')
    script = Stack().command(str(tmp_path)).get_raw_value()
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    found = parse_stack(done.stdout.splitlines())
    assert (found.restoring, found.returning) == ({"old": "a", "coming": "b"}, {"release": "r1"})
    assert found.upgrade is None
