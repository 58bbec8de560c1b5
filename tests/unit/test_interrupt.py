"""A restart behind the page, run by a shell: the page goes up before, and away whatever happens."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from koprogo_deploy import maintenance
from koprogo_deploy.facts.stack import Container, StackState
from koprogo_deploy.maintenance import Maintenance
from koprogo_deploy.operations import interrupt
from tests import project

BASE = project.settings()
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH whose docker answers nothing, and whose curl is Traefik that has read the page."""
    folder = tmp_path / "bin"
    folder.mkdir()
    page = tmp_path / "traefik" / "dynamic" / "restart.yaml"
    page.parent.mkdir(parents=True)
    scripts = {
        "docker": 'echo "$*" >> "$CALLS"; exit 1',
        "curl": f"""[ -n "$DEAF" ] || service=$(sed -n 's/^      service: //p' {page} 2>/dev/null)
printf '{{"service":"%s","status":"enabled"}}' "$service" """,
        "sleep": "exit 0",
    }
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


def run(tools: Path, restart: str, **more: str) -> subprocess.CompletedProcess[str]:
    root = tools.parent
    settings = project.settings(install_root=str(root))
    script = maintenance.during(settings, restart, "anna@laptop", NOW, ["koprogo-backend-blue-1"])
    variables = {
        **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "CALLS": f"{root}/calls", "DEAF": "",
    }  # fmt: skip
    return subprocess.run(
        ["sh", "-c", f"set -e\n{script}\necho after"],
        env={**variables, **more},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def page(tools: Path) -> Path:
    return tools.parent / "traefik" / "dynamic" / "restart.yaml"


def test_the_page_is_up_while_postgres_restarts_and_gone_afterwards(tools: Path) -> None:
    done = run(tools, f"cp {page(tools)} {tools.parent}/seen; /bin/sleep 0.3")
    assert done.returncode == 0, done.stderr
    interrupted, after = done.stdout.splitlines()
    assert (interrupted.split("\t")[0], after) == ("interrupted", "after")
    assert 0.3 <= float(interrupted.split("\t")[1]) < 10
    assert not page(tools).exists()
    assert [p.name for p in page(tools).parent.iterdir()] == []
    http = yaml.safe_load((tools.parent / "seen").read_text())["http"]
    headers = http["middlewares"]["restart"]["headers"]["customResponseHeaders"]
    assert headers["Retry-After"] == "5"
    assert "CHECKPOINT" in (tools.parent / "calls").read_text(), "before everybody waits"


@pytest.mark.parametrize("restart", ["exit 3", "false", "kill -TERM $(sh -c 'echo $PPID')"])
def test_it_goes_also_when_the_restart_fails(tools: Path, restart: str) -> None:
    done = run(tools, restart)
    assert done.returncode != 0
    assert "after" not in done.stdout
    assert "interrupted" not in done.stdout
    assert not page(tools).exists()


def test_a_proxy_that_does_not_read_the_page_stops_it_before_postgres(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "SECONDS", 1)
    done = run(tools, f"touch {tools.parent}/restarted", DEAF="yes")
    assert done.returncode == 1
    assert "so Postgres was not restarted" in done.stderr
    assert not (tools.parent / "restarted").exists()
    assert not page(tools).exists()


def test_both_pages_stand_side_by_side_and_the_deploys_is_above() -> None:
    wanted = Maintenance("2026-01-01T00:00:00+00:00", "anna", "back at ten", 300, ("10.0.0.7",))
    hand, own = (
        yaml.safe_load(maintenance.render(wanted, name))["http"]
        for name in (maintenance.BY_HAND, maintenance.RESTART)
    )
    for kind in ("routers", "services", "middlewares"):
        assert not set(hand[kind]) & set(own[kind])
    assert own["routers"]["restart"]["priority"] > hand["routers"]["maintenance"]["priority"]
    assert maintenance.file("/r", maintenance.RESTART) != maintenance.file("/r")


def test_there_is_a_page_only_where_something_serves_and_a_proxy_can_show_it() -> None:
    traefik = Container("0", "traefik", "s", "running", "", "")
    backend = Container("1", "backend-blue", "s", "running", "healthy", "")
    live = {"id": "r1", "dynamic": "d"}
    containers = {"traefik": traefik, "backend-blue": backend}
    serves = StackState(docker=True, current=live, dynamic="d", containers=containers)
    assert "restart.yaml" in interrupt.behind_the_page(BASE, serves, "up")
    assert "koprogo-backend-blue-1" in interrupt.behind_the_page(BASE, serves, "up")
    assert interrupt.behind_the_page(BASE, StackState(docker=True), "up") == "up"
    without = StackState(
        docker=True, current=live, dynamic="d", containers={"backend-blue": backend}
    )
    assert interrupt.behind_the_page(BASE, without, "up") == "up"


def test_how_long_nothing_answered_is_what_a_watcher_saw(tools: Path) -> None:
    """Its curl answers, then not, then again."""
    (tools / "curl").write_text(f"#!/bin/sh\n[ ! -e {tools.parent}/down ]\n")
    (tools / "sleep").unlink()
    script = interrupt.watched(
        "koprogo.be",
        f"sleep 0.5; touch {tools.parent}/down; sleep 0.7; rm {tools.parent}/down",
    )
    done = subprocess.run(
        ["sh", "-c", script],
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    word, seconds = done.stdout.strip().split("\t")
    assert word == "interrupted"
    assert 0.6 < float(seconds) < 1.5
