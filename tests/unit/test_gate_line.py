"""What the journal remembers of a gate."""

from __future__ import annotations

from typing import Any

import pytest

from koprogo_deploy import gate, objectives, remote
from koprogo_deploy.cli import common, releases
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.runs.model import Deployed, Run
from tests import project
from tests.made_runs import made_run

SETTINGS = project.settings("sandbox")


def judged(**changes: Any) -> Run:
    run = made_run(seconds=20, **changes)
    return run.model_copy(update={"verdict": objectives.judge(run, SETTINGS)})


def test_a_gate_that_passed_says_by_what() -> None:
    run = judged(deployed=Deployed(release="r1", seed_scale=10))
    line = gate.line(run)
    assert line is not None
    assert (line["outcome"], line["release"], line["seed_scale"]) == ("passed", "r1", 10)
    assert line["measured"].startswith("Right answers ")
    assert "P99" in line["measured"]
    assert line["reason"] is None
    row = [str(cell) for cell in releases._row({"kind": "gate", "at": "", **line})]
    assert row[1:4] == ["gate realistic", "passed", "r1"]
    assert line["measured"] in row[-1]


def test_a_gate_that_missed_says_what() -> None:
    line = gate.line(judged(p50=80.0))
    assert line is not None
    assert line["outcome"] == "missed"
    assert "P99" in line["reason"]
    assert "not <" in line["reason"]


def test_an_invalid_run_is_written_down_as_such_and_an_interrupted_one_not() -> None:
    line = gate.line(judged(invalid=["the generator sent late by 80.0 ms"]))
    assert line is not None
    assert (line["outcome"], "sent late" in line["reason"]) == ("invalid", True)
    assert gate.line(judged(interrupted=True)) is None
    assert gate.line(made_run(seconds=20)) is None


def test_a_journal_that_cannot_be_written_is_said_and_changes_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[tuple[str, dict[str, Any]]] = []

    def write_down(_environment: object, kind: str, **values: Any) -> None:
        written.append((kind, values))
        raise Refusal("Host", [Problem("ssh", "the disk is full")])

    monkeypatch.setattr(remote, "write_down", write_down)
    common.write_down(None, judged())  # type: ignore[arg-type]
    ((kind, values),) = written
    assert (kind, values["outcome"]) == ("gate", "passed")
    assert "no line of this gate: the disk is full" in capsys.readouterr().err
