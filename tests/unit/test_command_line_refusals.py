"""The real pyinfra, run in a copy of this project: refusals end it before any connection."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT, Project

FOLDERS = ("deploys", "koprogo_deploy", "templates")


@pytest.fixture
def copy(tmp_path: Path) -> Project:
    project = Project.make(tmp_path / "copy")
    for folder in FOLDERS:
        shutil.copytree(
            ROOT / folder, project.root / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "config.py", project.root)
    # Nobody listens there: a run that tried to connect would say so.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    project.write(
        "inventories/production.py",
        f'vps = [("127.0.0.1", {{"ssh_port": {port}, "ssh_user": "nobody"}})]\n',
    )
    return project


def pyinfra(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pyinfra", "-y", *arguments],
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": str(project.root), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def refused(project: Project, *arguments: str) -> str:
    done = pyinfra(project, *arguments)
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stdout
    assert "Connecting to hosts" not in done.stdout
    assert "Nothing was touched." in done.stdout
    return done.stdout


USUAL = ("inventories/production.py", "deploys/full.py")


def test_without_a_mistake_it_goes_on_to_connect(copy: Project) -> None:
    """The copy is a working one: what is refused below is refused for its own reason."""
    done = pyinfra(copy, *USUAL)
    assert "Connecting to hosts" in done.stdout
    assert done.returncode == 1


def test_inventory_with_a_typo(copy: Project) -> None:
    output = refused(copy, "inventories/producton.py", "deploys/full.py")
    assert "inventory: inventories/producton.py does not exist" in output
    assert "-> did you mean inventories/production.py?" in output


def test_limit_that_matches_nothing(copy: Project) -> None:
    output = refused(copy, *USUAL, "--limit", "web")
    assert '--limit: "web" matches no host' in output
    assert "-> the host is 127.0.0.1; its groups: all, vps, production" in output


def test_no_wait(copy: Project) -> None:
    output = refused(copy, *USUAL, "--no-wait")
    assert "--no-wait: pyinfra exits 0 with it when a step fails" in output


def test_production_as_it_comes(copy: Project) -> None:
    for folder in ("group_data", "inventories"):
        shutil.copy(ROOT / folder / "production.py", copy.root / folder)
    output = refused(copy, *USUAL)
    assert "Settings of production: 5 problems. Nothing was touched." in output
    assert "inventories/production.py: the host is still vps.example.invalid" in output
    assert "group_data/production.py: domain = 'koprogo.example.invalid'" in output
    assert "-> write the domain you own" in output


def test_missing_secrets_file(copy: Project) -> None:
    (copy.root / ".env.production").unlink()
    output = refused(copy, *USUAL)
    assert ".env.production: the secrets file is missing" in output
    assert "-> make it with: koprogo secrets init production" in output


def test_secrets_file_that_others_may_read(copy: Project) -> None:
    (copy.root / ".env.production").chmod(0o644)
    output = refused(copy, *USUAL)
    assert ".env.production: others may read it (mode 0644)" in output
    assert "-> chmod 600 .env.production" in output


def test_wrong_unit_on_the_command_line(copy: Project) -> None:
    output = refused(copy, *USUAL, "--data", "backend_memory=80")
    assert "--data backend_memory = 80: the unit is missing" in output
    assert '-> write "80MB"' in output


def test_mistake_in_a_file(copy: Project) -> None:
    copy.set(domain="koprogo.be").write("group_data/all.py", "vps_memory = = 1\n")
    assert "group_data/all.py: line 1: SyntaxError: invalid syntax" in refused(copy, *USUAL)
