"""What is wrong with a pyinfra command line, where pyinfra itself would exit 0."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy import command_line
from tests.project import ROOT, Project


@pytest.fixture(autouse=True)
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    (project.root / "deploys").mkdir()
    (project.root / "deploys/full.py").touch()
    monkeypatch.chdir(project.root)
    return project.root


def problems(root: Path, **parameters: Any) -> list[tuple[str, str, str]]:
    asked = {"inventory": "inventories/production.py", "operations": ("deploys/full.py",)}
    found = command_line.command_problems({**asked, **parameters}, root)
    return [(problem.where, problem.what, problem.fix) for problem in found]


def test_the_usual_command_line_is_right(here: Path) -> None:
    assert problems(here) == []


def test_an_inventory_with_a_typo_is_told_the_nearest_one(here: Path) -> None:
    assert problems(here, inventory="inventories/producton.py") == [
        (
            "inventory",
            "inventories/producton.py does not exist",
            "did you mean inventories/production.py?",
        )
    ]


def test_an_inventory_like_none_is_told_all_of_them(here: Path) -> None:
    ((_, _, fix),) = problems(here, inventory="@docker/x")
    assert fix == "there are: ['production', 'sandbox', 'staging']"


def test_somebody_elses_inventory_is_refused(here: Path) -> None:
    (here / "mine.py").write_text("vps = []")
    ((where, what, fix),) = problems(here, inventory="mine.py")
    assert (where, what) == ("inventory", "mine.py is not one of this project's")
    assert fix.startswith("run from the project's root: pyinfra inventories/production.py")


@pytest.mark.parametrize("limit", ["vps", "all", "production", "203.0.113.7", "203.*"])
def test_a_limit_that_names_the_host_or_a_group_is_right(here: Path, limit: str) -> None:
    assert problems(here, limit=(limit,)) == []


@pytest.mark.parametrize("limit", ["vsp", "v*", "203.0.113.8", ""])
def test_a_limit_that_matches_nothing_is_refused(here: Path, limit: str) -> None:
    """pyinfra takes a pattern for hosts only: `v*` is not the group vps."""
    assert problems(here, limit=("vps", limit)) == [
        (
            "--limit",
            f'"{limit}" matches no host',
            "the host is 203.0.113.7; its groups: all, vps, production",
        )
    ]


def test_excluding_the_only_host_is_refused(here: Path) -> None:
    assert problems(here, exclude=("other",)) == []
    assert problems(here, exclude=("203*",)) == [
        ("--exclude", '"203*" leaves no host, and pyinfra exits 0', "leave it out")
    ]


def test_no_wait_hides_failures(here: Path) -> None:
    assert problems(here, no_wait=True) == [
        ("--no-wait", "pyinfra exits 0 with it when a step fails", "leave it out")
    ]


def test_data_needs_a_value(here: Path) -> None:
    assert problems(here, data=("a=b", "a=", "backend_memory")) == [
        ("--data", '"backend_memory" has no value', "write: --data backend_memory=value")
    ]


def test_a_release_is_named_to_a_rollback_alone(here: Path) -> None:
    (here / "deploys/rollback.py").touch()
    given = ("release=20260101T000000Z-0123abcd",)
    assert problems(here, operations=("deploys/rollback.py",), data=given) == []
    ((where, what, _),) = problems(here, data=given)
    assert (where, what) == ("--data release", "only deploys/rollback.py takes it")


def test_a_plan_is_given_to_the_whole_road_alone(here: Path) -> None:
    (here / "deploys/release.py").touch()
    given = ("plan=plan.json",)
    assert problems(here, data=given) == []
    ((where, what, _),) = problems(here, operations=("deploys/release.py",), data=given)
    assert (where, what) == ("--data plan", "only deploys/full.py takes it")


def test_a_deploy_with_a_typo_is_told_the_nearest_one(here: Path) -> None:
    assert problems(here, operations=("deploys/ful.py",)) == [
        ("deploy", "deploys/ful.py does not exist", "did you mean deploys/full.py?")
    ]


def test_all_that_is_wrong_is_told_at_once(here: Path) -> None:
    assert len(problems(here, limit=("a", "b"), no_wait=True, data=("x",))) == 4


def test_an_unreadable_inventory_is_left_to_the_door(project: Project, here: Path) -> None:
    project.write("inventories/production.py", "vps = [")
    assert problems(here, limit=("anything",)) == []


def test_values_are_read_as_pyinfra_reads_them() -> None:
    texts = ["1", "-7", " 8 ", "1_000", "true", "False", "80MB", '{"work_mem": "5MB"}', "x=y", ""]
    texts += ["1.5", "null", "[1, 2]", "{broken", "None"]
    # In a process of its own: pyinfra's command line patches the one that imports it.
    script = (
        "import sys, json; from pyinfra_cli.util import parse_cli_arg; "
        "print(json.dumps([parse_cli_arg(text) for text in sys.argv[1:]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *texts], capture_output=True, text=True, check=True
    )
    data = [f"name_{number}={text}" for number, text in enumerate(texts)]
    assert list(command_line.overrides(data).values()) == json.loads(done.stdout)


def test_reading_them_leaves_this_process_as_it_is() -> None:
    script = (
        "import sys; from koprogo_deploy.command_line import overrides; overrides(['a=1']); "
        "import koprogo_deploy.perf, gevent.monkey; "
        "sys.exit(gevent.monkey.is_module_patched('threading'))"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
