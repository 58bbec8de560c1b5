"""Which host is believed: the one with the pinned key, or one that this user knows already."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy import connection, door, host_keys
from koprogo_deploy.door import Environment
from tests import project
from tests.project import Project

OURS = ".known_hosts/production"
HARDWARE_KEY = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAAQE="


def data(**changes: Any) -> dict[str, Any]:
    strict = {"ssh_known_hosts_file": OURS, "ssh_strict_host_key_checking": "yes"}
    return {**strict, **changes}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who knows no host yet."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(host_keys, "_SYSTEM", str(tmp_path / "nothing"))
    return home


def told(root: Path, **changes: Any) -> list[str]:
    wrong = host_keys.wrong("203.0.113.7", data(**changes), "production", root)
    return [f"{where}: {what} -> {fix}" for where, what, fix in wrong]


def test_a_host_of_an_unknown_key_is_refused_with_the_way_to_learn_it(tmp_path: Path) -> None:
    (words,) = told(tmp_path, ssh_port=2222)
    assert "your known_hosts does not know [203.0.113.7]:2222" in words
    assert "ssh-keyscan -t ed25519 -p 2222 203.0.113.7 | ssh-keygen -lf -" in words
    assert "provider's console" in words
    assert 'ssh_host_key = "ssh-ed25519 AAAA…" in group_data/production.py' in words


def test_a_pinned_key_is_what_both_clients_get(tmp_path: Path) -> None:
    assert told(tmp_path, ssh_host_key=project.KEY) == []
    two = data(ssh_host_key=[project.KEY, project.OTHER_KEY], ssh_port=2222)
    host_keys.write("203.0.113.7", two, "production", tmp_path)
    written = tmp_path / OURS
    assert written.read_text() == (
        f"[203.0.113.7]:2222 {project.KEY}\n[203.0.113.7]:2222 {project.OTHER_KEY}\n"
    )
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert stat.S_IMODE(written.parent.stat().st_mode) == 0o700
    environment = Environment(project.settings(), project.SECRETS, "203.0.113.7", two)
    lines = connection.ssh_config(environment).splitlines()
    assert f'  UserKnownHostsFile "{door.ROOT}/{OURS}"' in lines
    assert "  GlobalKnownHostsFile /dev/null" in lines
    assert "  StrictHostKeyChecking yes" in lines


def test_a_host_that_the_user_knows_is_taken_hashed_or_not(tmp_path: Path, home: Path) -> None:
    file = home / ".ssh/known_hosts"
    file.write_text(
        f"@revoked 203.0.113.7 {project.OTHER_KEY}\n203.0.113.7,vps {project.KEY}\n"
        f"203.0.113.9 {project.OTHER_KEY}\n"
    )
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    assert told(tmp_path) == []
    host_keys.write("203.0.113.7", data(), "production", tmp_path)
    assert (tmp_path / OURS).read_text() == f"203.0.113.7 {project.KEY}\n"
    assert len(told(tmp_path, ssh_port=2222)) == 1, "another port is another server"


def test_an_rsa_key_comes_last_and_what_is_no_servers_key_not_at_all(
    tmp_path: Path, home: Path
) -> None:
    rsa = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQE="
    (home / ".ssh/known_hosts").write_text(
        f"203.0.113.7 {rsa}\n203.0.113.7 ssh-dss AAAAB3NzaC1kc3MAAAABAQ==\n"
        f"203.0.113.7 {project.KEY}\n"
    )
    for connection_data in (data(), data(ssh_host_key=[rsa, project.KEY])):
        found = host_keys.keys("203.0.113.7", connection_data, "production", tmp_path)
        assert found == [project.KEY, rsa]


@pytest.mark.parametrize("named", ["203.0.113.7", "*", "203.0.113.*,vps"])
def test_a_key_that_is_revoked_is_not_taken_though_its_plain_line_is_there(
    tmp_path: Path, home: Path, named: str
) -> None:
    file = home / ".ssh/known_hosts"
    gone = f"@revoked {named} {project.OTHER_KEY}\n203.0.113.7 {project.OTHER_KEY}\n"
    file.write_text(f"{gone}203.0.113.7 {project.KEY}\n")
    assert told(tmp_path) == []
    host_keys.write("203.0.113.7", data(), "production", tmp_path)
    assert (tmp_path / OURS).read_text() == f"203.0.113.7 {project.KEY}\n"
    file.write_text(gone)
    (words,) = told(tmp_path)
    assert f"ssh_host_key: @revoked in your known_hosts: {project.OTHER_KEY}" in words
    assert "write the host's new key, once it is compared, as ssh_host_key" in words
    (words,) = told(tmp_path, ssh_host_key=project.OTHER_KEY, ssh_port=2222)
    assert "@revoked" in words, "nor where it is pinned, nor at another port"
    assert told(tmp_path, ssh_host_key=project.KEY) == []


def test_a_file_of_ones_own_does_not_know_a_revoked_key_plainly(tmp_path: Path) -> None:
    own = tmp_path / "hosts"
    own.write_text(
        f"203.0.113.7 {project.KEY}\n203.0.113.7 {project.OTHER_KEY}\n"
        f"@revoked * {project.OTHER_KEY}\n"
    )
    (words,) = told(tmp_path, ssh_known_hosts_file="hosts")
    assert "@revoked in hosts" in words and "take the plain line out of hosts" in words


def test_what_is_pinned_stands_above_what_the_user_knows(tmp_path: Path, home: Path) -> None:
    (home / ".ssh/known_hosts").write_text(f"203.0.113.7 {project.OTHER_KEY}\n")
    host_keys.write("203.0.113.7", data(ssh_host_key=project.KEY), "production", tmp_path)
    assert (tmp_path / OURS).read_text() == f"203.0.113.7 {project.KEY}\n"


def test_a_file_of_ones_own_has_to_know_the_host_and_is_never_written(tmp_path: Path) -> None:
    own = tmp_path / "hosts"
    own.write_text("")
    assert len(told(tmp_path, ssh_known_hosts_file="hosts")) == 1
    own.write_text(f"203.0.113.7 {project.KEY}\n")
    assert told(tmp_path, ssh_known_hosts_file="hosts") == []
    (words,) = told(tmp_path, ssh_known_hosts_file="hosts", ssh_host_key=project.KEY)
    assert "hosts would not get it" in words
    host_keys.write("h", data(ssh_known_hosts_file="hosts"), "production", tmp_path)
    assert own.read_text() == f"203.0.113.7 {project.KEY}\n"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ssh_strict_host_key_checking": "accept-new"}, 'write "yes"'),
        ({"ssh_strict_host_key_checking": "no"}, "another key would be believed"),
        ({"ssh_known_hosts_file": None}, f'write "{OURS}"'),
        ({"ssh_host_key": "AAAA"}, "is not the key of an SSH server"),
        ({"ssh_host_key": HARDWARE_KEY}, "is not the key of an SSH server"),
        ({"ssh_host_key": f"vps {project.KEY}"}, "what ssh-keyscan prints after the name"),
    ],
)
def test_what_would_believe_another_server_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    (found,) = told(tmp_path, **{"ssh_host_key": project.KEY, **changes})
    assert words in found


def test_the_door_says_where_it_is_set(tmp_path: Path) -> None:
    with_key = Project.make(tmp_path / "p")
    assert with_key.open().connection["ssh_host_key"] == project.KEY
    refusal = with_key.set(ssh_host_key=None).refusal()
    assert "group_data/production.py: ssh_host_key: not set" in refusal
    with_key.write("inventories/production.py", 'vps = [("@local", {})]\n')
    assert with_key.open().host == "@local"


@pytest.mark.parametrize(
    ("key", "value"),
    [("ssh_user", "x\n  ProxyCommand id"), ("ssh_user", "-oProxyCommand=id"), ("ssh_key", 'a"b')],
)
def test_no_option_of_ssh_comes_by_the_inventory(tmp_path: Path, key: str, value: str) -> None:
    assert "no such thing" in Project.make(tmp_path / "p").set(**{key: value}).refusal()


@pytest.mark.parametrize("port", ["abc", "22", 0, 65536, True, 22.0])
def test_a_port_is_a_number(tmp_path: Path, port: object) -> None:
    refusal = Project.make(tmp_path / "p").set(ssh_port=port).refusal()
    assert f"group_data/production.py: ssh_port = {port!r}: is no port" in refusal


def test_a_host_is_a_name_or_an_address(tmp_path: Path) -> None:
    copy = Project.make(tmp_path / "p")
    copy.write("inventories/production.py", 'vps = [("-oProxyCommand=id", {})]\n')
    assert "is no host" in copy.refusal()
