"""How OpenSSH is told what pyinfra knows: the same host, key and pinned host key."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy import connection
from koprogo_deploy.door import Environment
from tests import project


def environment(host: str = "203.0.113.7", **data: Any) -> Environment:
    return Environment(project.settings(), project.SECRETS, host, data)


def test_the_inventorys_connection_data_become_an_ssh_config() -> None:
    text = connection.ssh_config(environment(ssh_port=2222, ssh_user="debian", ssh_key="/k"))
    lines = [line.strip() for line in text.splitlines()]
    assert lines[0] == "Host 203.0.113.7"
    assert {"Port 2222", "User debian", "IdentityFile /k", "IdentitiesOnly yes"} <= set(lines)
    assert "BatchMode yes" in lines, "nobody is there to answer a question"
    silent = {"ConnectTimeout 10", "ServerAliveInterval 10", "ServerAliveCountMax 3"}
    assert silent <= set(lines), "a network that goes silent is noticed"


def test_what_is_not_ours_to_tell_is_left_to_openssh() -> None:
    text = connection.ssh_config(environment(_sudo=True))
    assert "User" not in text
    assert "IdentitiesOnly" not in text
    assert "sudo" not in text


def test_the_ssh_config_is_a_file_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = connection.ssh_config_file(environment())
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path == connection.ssh_config_file(environment())
    assert path != connection.ssh_config_file(environment(ssh_port=1))


def test_a_command_goes_over_ssh_or_stays_here() -> None:
    assert connection.ssh_command(environment(), "id")[::4] == ["ssh", "id"]
    assert connection.ssh_command(environment("@local"), "id") == ["sh", "-c", "id"]
    assert connection.testinfra_target(environment("@local")) == ("local://", {})


def test_nobody_reads_half_a_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The dashboard looks at three things at once; an empty config is "could not resolve hostname".
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = connection.ssh_config_file(environment())
    whole, done = path.read_text(), threading.Event()
    torn: list[str] = []

    def read() -> None:
        while not done.is_set():
            if (text := path.read_text()) != whole:
                torn.append(text)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(100):
        connection.ssh_config_file(environment())
    done.set()
    reader.join()
    assert torn == []
    assert list(path.parent.iterdir()) == [path]
