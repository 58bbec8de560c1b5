"""What is refused before a host is touched, and how a run that cannot work ends."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox import authority
from tests.integration.rig import Rig, empty_host
from tests.project import OTHER_KEY, ROOT, Project


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"backend_memory": "900MB"}, ("vps_memory", "too much", "line is backend")),
        ({"frontend_memroy": "40MB"}, ("frontend_memroy", "did you mean frontend_memory?")),
        ({"backend_environment": {"JWT_SECRET": "x"}}, ("looks like a secret", ".env.sandbox")),
    ],
)
def test_wrong_settings_are_refused_before_connecting(
    undeployed: Rig, data: dict[str, Any], words: tuple[str, ...]
) -> None:
    run = undeployed.deploy(within=30, **data)
    assert run.code == 2, run.output
    assert "Connecting" not in run.output
    assert "Traceback" not in run.output
    for word in words:
        assert word in run.output


def test_host_that_refuses_ssh(undeployed: Rig) -> None:
    run = undeployed.deploy(within=60, ssh_port=1)
    assert run.code not in (0, 2), run.output
    assert "Traceback" not in run.output
    assert "sandbox" in run.output and "Unable to connect" in run.output


@pytest.mark.parametrize(
    ("known", "told"),
    [
        ("", r"No host key for \[127\.0\.0\.1\]:{port} found in known_hosts"),
        ("another", r"Host key for 127\.0\.0\.1 does not match"),
    ],
)
def test_host_with_another_key_is_refused(
    undeployed: Rig, tmp_path: Path, known: str, told: str
) -> None:
    """But for its key it is the host of the next test, which is not refused."""
    known_hosts = tmp_path / "known_hosts"
    with empty_host(undeployed) as data:
        port = data["ssh_port"]
        key = authority.ssh_key(tmp_path / "key", "somebody else's") if known else ""
        known_hosts.write_text(f"[127.0.0.1]:{port} {key}\n" if key else "")
        data["ssh_known_hosts_file"] = str(known_hosts)
        run = undeployed.deploy("--dry", within=60, **data)
    assert run.code == 1, run.output
    assert re.search(told.format(port=port), run.output), run.output
    assert "Starting operation" not in run.output
    assert "Traceback" not in run.output
    assert known_hosts.read_text().count("\n") <= 1, "and nobody learns its key"


def test_production_believes_no_server_whose_key_nobody_compared(
    undeployed: Rig, tmp_path: Path
) -> None:
    """A copy whose production is the box: without its key, with another one, with the right one."""
    copy, state = Project.make(tmp_path / "copy"), undeployed.state
    for folder in ("deploys", "koprogo_deploy", "templates"):
        shutil.copytree(ROOT / folder, copy.root / folder)
    shutil.copy(ROOT / "config.py", copy.root)
    way = {"ssh_user": state.ssh_user, "ssh_port": state.ssh_port, "ssh_key": state.ssh_key}
    copy.write("inventories/production.py", f'vps = [("127.0.0.1", {way!r})]\n')
    right = " ".join(Path(state.known_hosts).read_text().split()[1:3])

    def run(*command: str, key: str | None) -> subprocess.CompletedProcess[str]:
        copy.set(ssh_host_key=key)
        return subprocess.run(
            [sys.executable, *command],
            cwd=copy.root,
            env={**os.environ, "PYTHONPATH": str(copy.root), "HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    cli = "from koprogo_deploy.cli import main; main()"
    by_ssh = ("-c", cli, "ssh", "production", "echo let in")
    by_pyinfra = ("-m", "pyinfra", "--dry", "inventories/production.py", "deploys/verify.py")
    for command in (by_ssh, by_pyinfra):
        unknown = run(*command, key=None)
        assert unknown.returncode == 2
        assert "ssh-keyscan -t ed25519" in unknown.stdout + unknown.stderr
        wrong = run(*command, key=OTHER_KEY)
        assert wrong.returncode not in (0, 2)
        said = wrong.stdout + wrong.stderr
        assert re.search("Host key verification failed|does not match", said), said
        for done in (unknown, wrong):
            assert "let in" not in done.stdout and "Connected" not in done.stdout + done.stderr
            assert "Traceback" not in done.stdout + done.stderr
    assert run(*by_ssh, key=right).stdout == "let in\n"
    assert "Connected" in run(*by_pyinfra, key=right).stderr


def test_dry_run_on_a_host_that_has_nothing(undeployed: Rig) -> None:
    with empty_host(undeployed) as data:
        run = undeployed.deploy("--dry", within=60, **data)
    assert run.code == 0, run.output
    looking = {
        "Preflight | Be the only deploy",
        "Preflight | Check the host",
        "Preflight | Check for maintenance",
        "Plan | Decide what changes",
        # What is on the host when they run decides; on an empty one they find nothing to do.
        "Rehearse | Rehearse the pending migrations on a copy",
        "Rehearse | Dump the database before its migration",
        "Migrate | Smoke-test the new backend, unrouted",
        "Migrate | Smoke-test what serves on the new schema",
        "Cut over | Ask the new frontend for a page, unrouted",
        "Record | Write the journal",  # written when the run ends, by what it did
        "Record | Find the host well",
    }
    asked = set(re.findall(r"^ {4}(\S.*? \| .*?) {2,}", run.output, re.MULTILINE))
    assert set(run.would_change) == asked - looking - {"Verify | Run the smoke tests"}, run.output
    assert len(asked) > 10
