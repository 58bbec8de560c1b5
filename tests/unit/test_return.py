"""A rollback with its data: in which order it is begun, put back and opened; run by a shell."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra import logger
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import maintenance
from koprogo_deploy.facts.stack import StackState, parse_stack
from koprogo_deploy.operations import context, return_data, take_back, undo
from koprogo_deploy.operations.undo import Undo
from koprogo_deploy.pyinfra_adapter.events import Step
from koprogo_deploy.settings import Settings
from tests import project

LEFT = {"backend": "blue", "frontend": "green"}
STEP = Step(None, "hash")
DOES = return_data.Return("r1", "r2", LEFT, "backend-green", "koprogo_before_1")
# Who is called, and whether the page was up then; Traefik serves what its files say.
CALL = """echo "$(basename "$0") $*, $([ -e "$PAGE" ] && echo closed || echo open)" >> "$CALLS" """
DOCKER = f"""case "$*" in
  *RestartCount*) echo "0 running healthy"; exit ;;
  *State.Pid*) exit 1 ;;
  *psql*" -l") echo "koprogo_db|postgres"; [ -z "$KEPT" ] || echo "$KEPT|postgres"; exit ;;
esac
{CALL}"""
CURL = """case "$*" in
  *routers*) [ -e "$PAGE" ] || { echo "router not found"; exit; }
    name=$(sed -n 's/.*service: //p' "$PAGE" | head -n 1)
    echo "\\"service\\":\\"$name\\",\\"status\\":\\"enabled\\"" ;;
  *backend@file*) echo '"url":"http://backend-blue:8080"' ;;
  *frontend@file*) echo '"url":"http://frontend-green:80"' ;;
esac"""


class Box:
    """A host that is a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("bin", "data", "path", "traefik/dynamic", "releases/r2/traefik"):
            (root / folder).mkdir(parents=True)
        (root / "releases/r2/traefik/dynamic.yaml").write_text("r2")
        (root / "traefik/dynamic/dynamic.yaml").write_text("r1")
        (root / "candidate").symlink_to("releases/r1")
        for name, script in (("docker", DOCKER), ("curl", CURL), ("sudo", 'shift; exec "$@"')):
            self.program(root / "path" / name, script)
        self.program(root / "bin/koprogo-data", CALL)

    def program(self, file: Path, script: str) -> None:
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    @property
    def settings(self) -> Settings:
        return project.settings(install_root=str(self.root))

    @property
    def page(self) -> Path:
        return Path(maintenance.file(str(self.root)))

    def run(self, script: str, stdin: str = "", kept: str = "") -> subprocess.CompletedProcess[str]:
        variables = {"PATH": f"{self.root}/path:{os.environ['PATH']}", "PAGE": str(self.page)}
        variables["KEPT"] = kept
        return subprocess.run(
            ["sh", "-c", script],
            env={**os.environ, **variables, "CALLS": f"{self.root}/calls"},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        return (self.root / "calls").read_text().splitlines()


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def begun(box: Box, does: return_data.Return = DOES) -> None:
    wanted = return_data.page()
    script = return_data.under_page_command(box.settings, does, wanted)
    done = box.run(script, maintenance.render(wanted))
    assert (done.returncode, done.stderr) == (0, "")


def test_it_is_written_down_and_the_page_is_up_before_the_data_goes_back(box: Box) -> None:
    begun(box)
    assert box.calls == ["koprogo-data exchange koprogo_before_1 koprogo_restored, closed"]
    there = json.loads((box.root / "data/return.json").read_text())
    assert return_data.Return(**there) == DOES
    page = maintenance.parse(box.page.read_text().splitlines()[0].removeprefix("# "))
    assert (page.message, page.allow) == (maintenance.RETURNING, ())


def test_it_is_put_back_while_nobody_passes_and_opened_afterwards(box: Box) -> None:
    begun(box)
    wanted = return_data.page(("203.0.113.7/32",))  # as for the smoke tests
    box.page.write_text(maintenance.render(wanted))
    (box.root / "calls").unlink()
    done = box.run(return_data.undo_command(box.settings, DOES))
    assert (done.returncode, done.stderr) == (0, "")
    assert box.calls == [
        "docker stop -t 10 koprogo-backend-green-1, closed",
        "koprogo-data exchange koprogo_restored koprogo_before_1, closed",
        "docker start koprogo-backend-blue-1, closed",
    ]
    assert "203.0.113.7" not in box.page.read_text()
    assert (box.root / "traefik/dynamic/dynamic.yaml").read_text() == "r2"
    assert (box.root / "candidate").readlink() == Path("releases/r1")
    assert (box.root / "data/return.json").exists(), "not over while the page is up"
    done = box.run(return_data.open_command(box.settings))
    assert (done.returncode, done.stderr) == (0, "")
    assert (box.page.exists(), (box.root / "data/return.json").exists()) == (False, False)


def test_a_release_that_did_not_count_yet_is_a_candidate_again(box: Box) -> None:
    does = return_data.Return(**{**asdict(DOES), "counted": False})
    begun(box, does)
    (box.root / "releases/r2/bad").write_text("rolled back by anna\n")
    assert box.run(return_data.undo_command(box.settings, does)).returncode == 0
    assert (box.root / "candidate").readlink() == Path("releases/r2")
    assert not (box.root / "releases/r2/bad").exists()


def test_a_release_that_goes_back_to_its_own_data_is_not_started_on_what_served(box: Box) -> None:
    does = return_data.Return(**{**asdict(DOES), "other": DOES.backend})
    begun(box, does)
    (box.root / "calls").unlink()
    command = return_data.undo_command(box.settings, does)
    done = box.run(command, kept=DOES.kept)
    assert (done.returncode, (box.root / "calls").exists()) == (1, False), "neither stop nor start"
    assert return_data.IN_PLACE in done.stderr
    assert box.page.exists()
    assert box.run(command).returncode == 0, "nothing was renamed yet"
    assert box.calls == ["docker start koprogo-backend-blue-1, closed"]


def test_a_proxy_of_the_other_release_goes_before_the_routes_are_asked_for(box: Box) -> None:
    does = return_data.Return(**{**asdict(DOES), "proxy": True})
    begun(box, does)
    assert box.run(return_data.undo_command(box.settings, does)).returncode == 0
    up = [call for call in box.calls if "compose" in call]
    assert [f"{box.root}/releases/r2/compose.yaml up -d" in call for call in up] == [True]


def test_what_it_does_is_known_from_what_serves() -> None:
    def manifest(identity: str, colour: str) -> dict[str, Any]:
        colours = {"backend": colour, "frontend": "green"}
        specs = {"traefik": identity}
        return {"id": identity, "dynamic": identity, "colours": colours, "specs": specs}

    old, new = manifest("r1", "green"), manifest("r2", "blue")
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    found = StackState(current=new, candidate=old, dynamic="r2")
    does = return_data.planned(found, new, now)
    assert (does.release, does.left, does.backend, does.other) == (
        *("r1", "r2", "backend-blue", "backend-green"),
    )
    assert (does.kept, does.counted, does.proxy) == ("koprogo_before_20260102t030405", True, True)
    [line] = [f"return\t{json.dumps(asdict(does))}"]
    assert return_data.Return(**(parse_stack([line]).returning or {})) == does
    with pytest.raises(OperationError, match="nothing serves"):
        return_data.planned(StackState(), {}, now)
    # What served did not count, and went when the run began.
    does = return_data.planned(StackState(current=old, dynamic="r2"), new, now)
    assert (does.release, does.left, does.backend, does.counted) == (
        "r1",
        "r2",
        "backend-blue",
        False,
    )


# --- when a step fails ---------------------------------------------------------------------------


class Host:
    name = "box"

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.ran: list[str] = []

    def run_shell_command(self, command: Any) -> tuple[bool, Any]:
        text = command.get_raw_value()
        self.ran.append(text)
        failed = any(word in text for word in self.failing)
        return not failed, SimpleNamespace(stderr_lines=["no space left"] if failed else [])


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(logger, "error", lambda text, *values: lines.append(text % values))
    monkeypatch.setattr(Undo, "command", "put the data back")
    monkeypatch.setattr(Undo, "opens", "take the page away")
    return lines


def test_what_was_begun_is_put_back_once_and_then_opened(said: list[str]) -> None:
    host = Host()
    for _ in range(2):
        Undo().step_failed(STEP, host)
    assert host.ran == ["put the data back", "take the page away"]
    assert said == ["    the data of before the rollback serves again …"]


def test_what_cannot_be_put_back_stays_behind_the_page_with_the_way_to_do_it(
    said: list[str],
) -> None:
    host = Host("put the data back")
    for _ in range(2):
        Undo().step_failed(STEP, host)
    assert host.ran == ["put the data back"]
    assert "    on the host, as root: put the data back" in said


def test_nothing_is_put_back_where_nothing_was_begun() -> None:
    host = Host()
    Undo().step_failed(STEP, host)
    assert host.ran == []


def taken_back(monkeypatch: pytest.MonkeyPatch, *failing: str) -> tuple[list[str], str]:
    """What ran when the smoke tests of the old release fail, in order, and what was told."""
    host = Host(*failing)
    monkeypatch.setattr(take_back, "host", host)
    monkeypatch.setattr(undo, "current_host", host)
    monkeypatch.setattr(context, "going_back", object)
    each = {
        name: project.release(project.settings(), backend=colour, frontend=colour)
        for name, colour in (("r1", "blue"), ("r2", "green"))
    }
    old, new = (
        {"id": name, "colours": rendered.colours, "specs": rendered.specs, "dynamic": name}
        | {"images": rendered.images, "settings": "s"}
        for name, rendered in each.items()
    )
    found = StackState(docker=True, current=new, candidate=old, dynamic="r1")
    told = ""
    try:
        take_back.back(project.settings(), found, "it's bad", 0.0)
    except OperationError as error:
        told = str(error)
    Undo().step_failed(STEP, host)  # the step failed
    names = {"put the data": "data", "take the page": "page", "dynamic.yaml": "routes"}
    names["docker restart"] = "warm"
    ran = [next((n for word, n in names.items() if word in text), "away") for text in host.ran]
    return ran, told


@pytest.mark.usefixtures("said")
def test_the_data_comes_back_before_the_routes_and_they_before_the_page_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert taken_back(monkeypatch)[0] == ["data", "warm", "routes", "page", "away"]


@pytest.mark.usefixtures("said")
def test_no_routes_to_a_release_whose_data_is_not_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ran, told = taken_back(monkeypatch, "put the data")
    assert ran == ["data"]
    assert "The maintenance page stays" in told


@pytest.mark.usefixtures("said")
def test_the_page_stays_where_the_release_does_not_serve_on_its_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran, told = taken_back(monkeypatch, "docker restart")
    assert ran == ["data", "warm"]
    assert "the data of release r2 is put back, and it does not serve on it: no space left" in told


@pytest.mark.usefixtures("said")
def test_the_page_stays_where_the_routes_are_not_right(monkeypatch: pytest.MonkeyPatch) -> None:
    ran, told = taken_back(monkeypatch, "dynamic.yaml")
    assert ran == ["data", "warm", "routes"]
    assert "does not serve again" in told
