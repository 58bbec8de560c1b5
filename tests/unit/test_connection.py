"""How OpenSSH is told what pyinfra knows: the same host, key and pinned host key."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy import connection
from koprogo_deploy.door import Environment
from koprogo_deploy.problems import Refusal
from tests import project


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder of a short name: a socket's path in it has to end at 104 characters."""
    with tempfile.TemporaryDirectory(prefix="k-", dir="/tmp") as folder:
        yield Path(folder)


def environment(host: str = "203.0.113.7", **data: Any) -> Environment:
    return Environment(project.settings(), project.SECRETS, host, data)


def test_the_inventorys_connection_data_become_an_ssh_config() -> None:
    text = connection.ssh_config(environment(ssh_port=2222, ssh_user="debian", ssh_key="/k"))
    lines = [line.strip() for line in text.splitlines()]
    assert lines[0] == "Host 203.0.113.7"
    assert {"Port 2222", "User debian", 'IdentityFile "/k"', "IdentitiesOnly yes"} <= set(lines)
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


def control_path(text: str) -> str:
    return text.split('ControlPath "')[1].split('"')[0]


def test_the_control_socket_lies_in_a_folder_of_our_own_by_a_short_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = Path(control_path(connection.ssh_config(environment())))
    assert path.parent == tmp_path / f"koprogo-{os.getuid()}"
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert control_path(connection.ssh_config(environment(ssh_port=1))) != str(path)
    # As long as on macOS, where a socket's path ends at 104: OpenSSH adds 17 while it makes one.
    long = tmp_path / ("x" * 60)
    long.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(long))
    monkeypatch.setattr(connection, "_FALLBACK", str(tmp_path))
    assert Path(control_path(connection.ssh_config(environment()))) == path


def test_a_folder_that_others_may_enter_or_a_link_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f"koprogo-{os.getuid()}"
    folder.mkdir()
    for mode in (0o777, 0o750, 0o701):
        folder.chmod(mode)
        with pytest.raises(Refusal, match="nobody else can enter"):
            connection.ssh_config_file(environment())
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refusal, match="not a folder of yours"):
        connection.ssh_config_file(environment())
    folder.unlink()
    connection.ssh_config_file(environment())
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)
    folder.rename(tmp_path / "koprogo-4000000")
    with pytest.raises(Refusal, match="not a folder of yours"):
        connection.ssh_config_file(environment())
