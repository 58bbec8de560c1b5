"""A release that does not hold: marked, put away, what served serves; run by a shell."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import maintenance
from koprogo_deploy.facts.stack import Container, StackState
from koprogo_deploy.operations import context, cutover, routes, shell, take_back
from koprogo_deploy.pyinfra_adapter.events import Step
from koprogo_deploy.settings import Settings
from tests import project

BASE = project.settings()
ROOMY = "Filesystem 1024-blocks Used Available Capacity Mounted-on\n/dev/a 9 9 9999999 1% /"
FULL = ROOMY.replace("9999999", "2048")
ENDED = "backend-blue did not come up: it ended. Last lines of its log:"
# Postgres is ready unless NOT_READY; every container is healthy, but for `DOWN` and `DEAD`.
DOCKER = """echo "$*" >> "$CALLS"
case "$*" in
  *pg_isready*) [ -z "$NOT_READY" ] ;;
  *RestartCount*$DEAD*) echo "1 restarting " ;;
  *RestartCount*) echo "0 running healthy" ;;
  inspect*State.StartedAt*) echo "$STARTED" ;;
  inspect*State.Status*$DOWN*) echo "exited " ;;
  inspect*State.Status*) echo "running healthy" ;;
  *State.Pid*) echo 0 ;;
esac"""


def about(identity: str, **specs: str) -> dict[str, Any]:
    colour = "blue" if identity == "r1" else "green"
    rendered = project.release(BASE, backend=colour, frontend=colour)
    return {
        "id": identity,
        "colours": rendered.colours,
        "specs": {**rendered.specs, **specs},
        "dynamic": identity,
        "images": rendered.images,
        "settings": "s",
    }


def state(new: dict[str, Any], dynamic: str = "r1") -> StackState:
    return StackState(docker=True, current=about("r1"), candidate=new, dynamic=dynamic)


class Box:
    """A host that is a folder, whose docker and curl are ours."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for release in ("r1", "r2"):
            (root / "releases" / release / "traefik").mkdir(parents=True)
            (root / "releases" / release / "traefik" / "dynamic.yaml").write_text(release)
        (root / "traefik" / "dynamic").mkdir(parents=True)
        self.dynamic.write_text("r2")
        (root / "candidate").symlink_to("releases/r2")
        (root / "bin").mkdir()
        self.program("docker", DOCKER)
        self.program("df", 'printf "%b\\n" "$DF"')
        self.program("curl", "exit 0")

    def program(self, name: str, script: str) -> None:
        (self.root / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.root / "bin" / name).chmod(0o755)

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        usual = {
            **os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}", "DF": ROOMY,
            "CALLS": f"{self.root}/calls", "NOT_READY": "", "DOWN": "none", "DEAD": "none",
            "STARTED": "noon",
        }  # fmt: skip
        return subprocess.run(
            ["sh", "-c", f"set -e\n{script}"],
            env={**usual, **variables},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def settings(self) -> Settings:
        return project.settings(install_root=str(self.root))

    @property
    def dynamic(self) -> Path:
        return self.root / "traefik" / "dynamic" / "dynamic.yaml"

    @property
    def mark(self) -> str:
        file = self.root / "releases" / "r2" / "bad"
        return file.read_text() if file.exists() else ""

    @property
    def candidate(self) -> bool:
        return (self.root / "candidate").is_symlink()

    @property
    def calls(self) -> str:
        file = self.root / "calls"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    monkeypatch.setattr(context, "going_back", lambda: None)
    monkeypatch.setattr(context, "_holder", "anna since noon")
    monkeypatch.setattr(routes, "DEPLOY_LOCK", str(tmp_path / "lock"))
    return Box(tmp_path)


def brought_up(box: Box, service: str, up: str, **specs: str) -> str:
    found = state(about("r2", **{service: "another", **specs}))
    assert found.candidate
    return routes.or_put_away(box.settings, found, found.candidate, service, up)


# --- before the switch ---------------------------------------------------------------------------


def test_a_release_that_comes_up_is_left_alone(box: Box) -> None:
    done = box.run(f"{brought_up(box, 'backend', 'true')}\necho after")
    assert (done.returncode, done.stdout, done.stderr) == (0, "after\n", "")
    assert (box.mark, box.candidate, box.calls) == ("", True, "")


def test_one_that_does_not_come_up_is_marked_put_away_and_told(box: Box) -> None:
    done = box.run(brought_up(box, "backend", "echo why >&2; exit 1"))
    assert done.returncode == 1
    assert box.mark.startswith("not routed 2")
    assert box.mark.endswith(" UTC: its new backend did not come up\n")
    assert not box.candidate
    assert "stop -t 35 koprogo-backend-green-1 koprogo-frontend-green-1" in box.calls
    assert "blue" not in box.calls
    assert "compose" not in box.calls, "Postgres and Traefik are as they were"
    assert done.stderr.startswith("why\nrelease r2 gets no traffic and is marked as bad; r1 serves")
    assert "--data retry_bad_release=true" in done.stderr


def test_the_mark_is_there_before_postgres_is_restarted_as_it_was(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "SECONDS", 1)
    box.program("curl", "exit 7")  # no proxy that could show the page
    done = box.run(brought_up(box, "backend", "false", postgres="another"))
    assert done.returncode == 1
    assert "so Postgres was not restarted" in done.stderr
    assert (bool(box.mark), box.candidate) == (True, False)


@pytest.mark.parametrize(
    ("holder", "variables"),
    [
        ("anna since noon", {"DF": FULL}),
        ("anna since noon", {"NOT_READY": "yes"}),
        ("the next run", {}),
    ],
)
def test_what_is_the_hosts_fault_or_no_more_ours_marks_nothing(
    box: Box, holder: str, variables: dict[str, str]
) -> None:
    (box.root / "lock.holder").write_text(f"{holder}\n")
    done = box.run(brought_up(box, "backend", "false"), **variables)
    assert done.returncode == 1
    assert "release r2 is not marked as bad" in done.stderr
    assert (box.mark, box.candidate) == ("", True)
    assert "stop" not in box.calls


def test_what_serves_already_is_no_release_to_put_away(box: Box) -> None:
    found = state(about("r2"))
    assert found.candidate
    found.candidate["specs"] = about("r1")["specs"]
    assert routes.or_put_away(BASE, found, found.candidate, "backend", "up") == "up"
    first = StackState(docker=True, candidate=about("r2"))
    assert routes.or_put_away(BASE, first, about("r2"), "backend", "up") == "up"


@pytest.mark.parametrize(("df", "marked"), [(ROOMY, True), (FULL, False)])
def test_a_traefik_that_does_not_come_up_is_as_before_again_whoever_is_to_blame(
    box: Box, df: str, marked: bool
) -> None:
    done = box.run(brought_up(box, "traefik", "false"), DF=df)
    assert done.returncode == 1
    up = f"-f {box.root}/releases/r1/compose.yaml up -d --no-deps --no-build --pull never traefik"
    assert up in box.calls
    assert (box.mark.endswith(": Traefik did not come up\n"), not box.candidate) == (marked, marked)


@pytest.mark.parametrize(
    ("inspected", "curl", "code", "words"),
    [
        ("0 running ", "exit 0", 0, ""),
        ("0 running ", "exit 7", 1, "it runs, and does not answer within 1 s"),
        ("$(cat n) running ", "exit 7", 1, "it stopped and was started again"),
        ("0 restarting ", "exit 7", 1, "its container is: restarting"),
    ],
)
def test_traefik_is_up_when_it_answers_and_not_when_its_process_was_just_started(
    box: Box, inspected: str, curl: str, code: int, words: str
) -> None:
    """It has no healthcheck, and one that rejects its configuration runs for a moment."""
    box.program("docker", f'cd {box.root}; echo x >> n2; wc -l < n2 > n; echo "{inspected}"')
    box.program("curl", curl)
    answers = routes.traefik_answers(BASE)
    done = box.run(shell.wait_until_healthy("traefik", 1, answers=answers))
    assert done.returncode == code
    assert words in done.stderr


# --- after the switch ----------------------------------------------------------------------------


def test_the_mark_is_there_as_soon_as_the_routes_are_whatever_fails_then(box: Box) -> None:
    box.program("curl", "exit 7")
    box.program("date", "echo 1 >> $CALLS.date; wc -l < $CALLS.date | sed 's/$/0/'")
    script = routes.back_command(box.settings, about("r1"), about("r2"), "smoke tests failed: it's")
    done = box.run(script)
    assert done.returncode == 1
    assert "Traefik does not serve backend from http://backend-blue:8080" in done.stderr
    assert box.dynamic.read_text() == "r1"
    assert box.mark == "smoke tests failed: it's\n"
    assert not box.candidate
    assert "compose" not in box.calls, "Traefik is the same in both"


def test_a_mark_is_one_line_without_tabs(box: Box) -> None:
    box.run(routes.mark_bad(str(box.root), "r2", "rolled back by anna: the\tdisk\nwas full"))
    assert box.mark == "rolled back by anna: the disk was full\n"


def test_a_traefik_that_answers_nobody_is_the_old_one_again_before_it_is_asked(box: Box) -> None:
    served = '"url":"http://backend-blue:8080"'
    other = served.replace("backend", "frontend").replace("8080", "80")
    box.program(
        "curl",
        f"grep -q 'r1/compose.yaml up .* traefik' \"$CALLS\" || exit 7\n"
        f"case \"$*\" in *frontend@file) echo '{other}' ;; *) echo '{served}' ;; esac",
    )
    bad = about("r2", traefik="another")
    done = box.run(routes.back_command(box.settings, about("r1"), bad, "why"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dead", [False, True])
def test_what_was_kept_warm_and_has_ended_is_started_before_anything_is_routed_to_it(
    box: Box, dead: bool
) -> None:
    name = "koprogo-backend-blue-1"
    done = box.run(
        routes.warm_command(about("r1"), about("r2")), DOWN=name, DEAD=name if dead else "none"
    )
    assert done.returncode == dead
    assert box.calls.count("restart -t 5 ") == 1, "the frontend runs"
    told = "backend-blue did not come up: its container is: restarting"
    assert (told in done.stderr) == dead
    assert (box.dynamic.read_text(), box.mark) == ("r2", "")


def test_what_runs_is_looked_at_and_no_more(box: Box) -> None:
    done = box.run(routes.warm_command(about("r1"), about("r2")))
    assert (done.returncode, done.stderr) == (0, "")
    assert box.calls.count("\n") == box.calls.count("inspect") == 2
    box.run(routes.warm_command(about("r1"), {**about("r2"), "colours": about("r1")["colours"]}))
    assert box.calls.count("\n") == 2, "what both have is not touched"


@pytest.fixture
def asked(box: Box, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Variables of the host that a failed release's run asks who is to blame."""
    variables: dict[str, str] = {}

    def run(script: str) -> str:
        done = box.run(script, **variables)
        return "" if done.returncode == 0 else done.stderr or "it failed"

    monkeypatch.setattr(take_back, "_run", run)
    return variables


def switched_to(**specs: str) -> StackState:
    found = state(about("r2", **specs), dynamic="r2")
    found.containers["postgres"] = Container("1", "postgres", "s", "running", "", "noon")
    return found


def test_a_release_that_fails_while_all_else_is_well_is_to_blame(asked: dict[str, str]) -> None:
    assert take_back.excuse(switched_to()) == ""


@pytest.mark.parametrize("trouble", [{"NOT_READY": "yes"}, {"STARTED": "one"}, {"DF": FULL}])
def test_one_that_fails_with_its_host_is_not_marked(
    trouble: dict[str, str], asked: dict[str, str]
) -> None:
    asked.update(trouble)
    told = take_back.excuse(switched_to())
    assert told.startswith("It is not marked as bad: the host has no room, its Postgres does not")


def test_a_postgres_that_runs_as_this_release_wants_it_is_no_excuse(asked: dict[str, str]) -> None:
    asked.update(NOT_READY="yes", STARTED="one")
    assert take_back.excuse(switched_to(postgres="another")) == ""


def test_one_that_is_excused_is_taken_back_without_a_mark(
    box: Box, asked: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, service, port in (("backend", "backend", 8080), ("frontend", "frontend", 80)):
        (box.root / name).write_text(f'"url":"http://{service}-blue:{port}"')
    box.program(
        "curl",
        f'case "$*" in *frontend@*) cat {box.root}/frontend ;; *) cat {box.root}/backend ;; esac',
    )
    monkeypatch.setattr(take_back, "note", lambda **_: None)
    told = take_back.back(box.settings, switched_to(), "smoke tests failed", 0.0, "It is not …")
    assert box.dynamic.read_text() == "r1"
    assert (box.mark, box.candidate) == ("", False)
    assert told.endswith("It is not …")


def test_a_rollback_that_is_taken_back_marks_the_other_one(box: Box) -> None:
    left = box.root / "releases" / "r1" / "bad"
    left.write_text("rolled back by anna\n")
    box.run(routes.put_away_command(box.settings, about("r1"), about("r2"), "why", unmark=True))
    assert (box.mark, left.exists()) == ("why\n", False)


def test_a_release_is_switched_to_also_where_its_routes_are_the_same() -> None:
    assert take_back.switched(state(about("r2"), dynamic="r2"))
    assert not take_back.switched(state(about("r2"), dynamic="r1"))
    same = {**about("r2"), "dynamic": "r1"}
    assert take_back.switched(state(same, dynamic="r1")), "Traefik or Postgres alone is another"
    assert not take_back.switched(StackState(candidate=about("r2"), dynamic="r2")), "a first one"
    assert not take_back.switched(StackState(current=about("r1"), dynamic="r1")), "it counts"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Scripts that a failed step has run on the host; one with FAIL in its release's id fails."""
    ran: list[str] = []

    def run(command: Any) -> tuple[bool, Any]:
        script = command.get_raw_value()
        if "pg_isready" in script:
            return True, SimpleNamespace(stderr_lines=[])  # all is well with the host
        if "warm" in script:
            ok = "DOWN" not in script
            return ok, SimpleNamespace(stderr_lines=[] if ok else [ENDED, "    its log"])
        ran.append(script)
        ok = "FAIL" not in script
        return ok, SimpleNamespace(stderr_lines=[] if ok else ["Traefik does not serve"])

    monkeypatch.setattr(take_back, "warm_command", lambda good, _: f"warm {good['id']}")
    monkeypatch.setattr(take_back, "host", SimpleNamespace(run_shell_command=run, name="h"))
    monkeypatch.setattr(take_back, "note", lambda **values: ran.append(str(values.get("outcome"))))
    monkeypatch.setattr(context, "going_back", lambda: None)
    monkeypatch.setattr(context, "current", lambda: SimpleNamespace(settings=BASE))
    monkeypatch.setattr(take_back.OnFailure, "armed", True)
    return ran


def fails(monkeypatch: pytest.MonkeyPatch, found: StackState) -> None:
    step = SimpleNamespace(names=["Cut over | Certificates"])
    run = SimpleNamespace(get_op_meta=lambda _: step)
    monkeypatch.setattr(take_back, "stack", lambda _: found)
    take_back.OnFailure().step_failed(Step(run, "hash"), None)


def test_a_step_that_fails_after_the_switch_takes_the_release_back_once(
    failing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        fails(monkeypatch, state(about("r2"), dynamic="r2"))
    back, outcome, away = failing
    assert "releases/r1/traefik/dynamic.yaml" in back
    assert "at Cut over | Certificates" in back
    assert outcome == "taken back"
    assert "koprogo-backend-green-1" in away


def test_one_that_fails_before_the_switch_or_after_the_release_counts_does_not(
    failing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch, state(about("r2"), dynamic="r1"))
    fails(monkeypatch, StackState(current=about("r2"), dynamic="r2"))
    take_back.no_more()
    fails(monkeypatch, state(about("r2"), dynamic="r2"))
    assert failing == []


def test_colours_that_may_still_have_traffic_are_not_stopped(failing: list[str]) -> None:
    found = state({**about("r2"), "id": "FAIL"}, dynamic="r2")
    with pytest.raises(OperationError, match="r1 does not serve again: Traefik does not serve"):
        take_back.back(BASE, found, "smoke tests failed", 0.0)
    assert len(failing) == 1


def test_where_nothing_is_left_to_go_back_to_the_release_serves_on_unmarked(
    failing: list[str],
) -> None:
    found = state(about("r2"), dynamic="r2")
    assert found.current
    found.current["id"] = "DOWN"
    with pytest.raises(OperationError) as told:
        take_back.back(BASE, found, "smoke tests failed 10:00 UTC: test_api", 0.0)
    assert str(told.value).startswith(
        "smoke tests failed 10:00 UTC: test_api. Release r2 serves on nevertheless, and is not "
        "marked as bad, for DOWN cannot serve again: backend-blue did not come up: it ended. Ways"
    )
    assert failing == ["None"], "no route was touched, and nothing marked"


# --- an earlier run's switch ---------------------------------------------------------------------


@pytest.mark.parametrize("agrees", [True, False])
def test_traefik_is_asked_where_something_is_left_that_it_may_still_route_to(
    agrees: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def run(command: Any) -> tuple[bool, Any]:
        asked.append(command.get_raw_value())
        return agrees, SimpleNamespace(stderr_lines=["Traefik does not serve backend from …"])

    monkeypatch.setattr(cutover, "host", SimpleNamespace(run_shell_command=run))
    monkeypatch.setattr(cutover, "pyinfra_state", SimpleNamespace(is_executing=True))
    monkeypatch.setattr(cutover, "target", lambda found: found.target)
    quiet = StackState(docker=True, current=about("r1"), dynamic="r1")
    assert cutover.traefik_agrees(BASE, quiet)
    assert asked == [], "an unchanged host is not asked"
    cut = state(about("r2"), dynamic="r2")
    assert cutover.traefik_agrees(BASE, cut) == agrees
    assert "http://backend-green:8080" in asked[0]
    old = Container("1", "backend-green", "s", "exited", "", "")
    taken_back = StackState(current=about("r1"), dynamic="r1", containers={"backend-green": old})
    assert cutover.traefik_agrees(BASE, taken_back) == agrees
    assert "http://backend-blue:8080" in asked[1]
