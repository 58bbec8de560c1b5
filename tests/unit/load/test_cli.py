"""`koprogo load` on the command line: refused before anything is touched, or done to its end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from koprogo_deploy import door
from koprogo_deploy.cli.app import app
from koprogo_deploy.problems import Refusal
from koprogo_deploy.runs import store
from tests.project import SECRETS, settings
from tests.unit.load.server import EMAILS, PASSWORD, Site


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings as group data says; whoever starts a program fails."""

    def opened(environment: str, overrides: Any = None) -> door.Environment:
        return door.Environment(
            settings(str(environment), **dict(overrides or {})), SECRETS, "vps.koprogo.be", {}
        )

    def started(*arguments: Any, **_options: Any) -> None:
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr(door, "open_environment", opened)
    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(subprocess, "run", started)


def invoke(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, ["load", *arguments], env=environment)


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["realistic", "--env", "production"], "--on production"),
        (["realistic", "--env", "production", "--on", "staging"], '"staging" is not production'),
        (
            ["realistic", "--env", "production", "--on", "production", "--rate", "5000"],
            "load_max_rate",
        ),
        (["soak", "--env", "production", "--on", "production"], "load_max_duration"),
        (["heavy", "--env", "production", "--on", "production"], "no bound on their rate"),
        (["realistic", "--data", "public_address=203.0.113.9"], "not an address of this machine"),
        (["heavy", "--gate"], "nothing in it is judged"),
        (["realstic"], "did you mean realistic?"),
        (["realistic", "--seconds", "soon"], "write, for instance, 90, 90s or 3min"),
        (["realistic", "--rate", "10", "--users", "3"], "an open and a closed loop at once"),
        (["realistic", "--url", "https://koprogo.be"], "--on koprogo.be"),
        (["realistic", "--url", "http://127.0.0.1:9"], "could not be removed again"),
        (["clean", "--env", "production"], "koprogo load clean --env production --on production"),
    ],
)
def test_refused_before_anything_is_touched(arguments: list[str], says: str) -> None:
    result = invoke(*arguments)
    assert isinstance(result.exception, Refusal)  # the entry point makes exit code 2 of it
    assert says in str(result.exception)


def test_a_url_without_inventory_from_beginning_to_end(tmp_path: Path) -> None:
    """Through the generator's own process, with a password that no process list shows."""
    file = tmp_path / "run.json"
    with Site(latency=lambda _number, _at: 0.01) as site:
        result = invoke(
            "light", "--url", site.url, "--login", EMAILS[0], "--login", EMAILS[1],
            "--rate", "40", "--seconds", "1", "--out", str(file), "--json",
            KOPROGO_LOAD_PASSWORD=PASSWORD,
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.output.splitlines()]
    assert {line["event"] for line in lines} == {"step", "progress", "finished"}
    progress = next(line for line in lines if line["event"] == "progress")
    assert progress["phase"] == "light"
    assert progress["asked"] == 40
    assert progress["p99"] >= 10
    assert progress["errors"] == {}
    assert lines[-1]["file"] == str(file)
    assert lines[-1]["passed"] is None
    run = store.load(file)
    assert run.phases[0].right == run.phases[0].sent == 40
    assert run.environment == "127.0.0.1"
    assert run.monitor_problem == "no host to watch with --url"
    assert PASSWORD not in file.read_text()


def test_a_run_that_cannot_be_done_says_why_and_is_no_success() -> None:
    result = invoke(
        "light", "--url", "http://127.0.0.1:9", "--login", "a@b.be", "--seconds", "1",
        KOPROGO_LOAD_PASSWORD="x",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "could not be done: POST /auth/login" in result.output
    assert "Cannot connect" in result.output
