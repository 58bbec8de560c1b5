"""Administrators' accounts on a real host: they move over, leave for good, and come back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy import accounts
from tests.integration.rig import Rig

pytestmark = pytest.mark.slow

NAME = "koprogo-test-anna"


class Anna:
    """Somebody with a key that is listed, and one of her own that is not."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig, self.folder = rig, folder
        for key in ("listed", "own"):
            make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
            subprocess.run(make, check=True)

    def public(self, key: str) -> str:
        """The line of a .pub file."""
        return (self.folder / f"{key}.pub").read_text().strip()

    def command(self, key: str, command: str) -> list[str]:
        """A login of hers with one key."""
        state = self.rig.state
        options = ["IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=yes"]
        options += [f"UserKnownHostsFile={state.known_hosts}", "LogLevel=ERROR"]
        words = [word for option in options for word in ("-o", option)]
        where = ["-p", str(state.ssh_port), f"{NAME}@{state.ssh_host}"]
        return ["ssh", *words, "-i", str(self.folder / key), *where, command]

    def enters(self, key: str) -> bool:
        """Whether a login with this key is let in; each refusal counts with sshd's penalties."""
        return subprocess.run(self.command(key, "true"), capture_output=True).returncode == 0


@pytest.fixture
def anna(undeployed: Rig, tmp_path: Path) -> Iterator[Anna]:
    """With an account as an earlier version made it, and a second key in her own folder."""
    anna = Anna(undeployed, tmp_path)
    undeployed.on_host(
        f"""set -e
adduser --quiet --disabled-password --gecos '' {NAME}
mkdir -p {accounts.FORMER_KEYS}; echo '{anna.public("listed")}' > {accounts.FORMER_KEYS}/{NAME}
echo '{anna.public("listed")}' > {accounts.FORMER_KEYS}/somebody-else
echo '{NAME} ALL=(ALL:ALL) NOPASSWD: ALL' > {accounts.SUDOERS}{NAME}
install -d -o {NAME} -g {NAME} -m 700 /home/{NAME}/.ssh
echo '{anna.public("own")}' > /home/{NAME}/.ssh/authorized_keys"""
    )
    try:
        yield anna
    finally:
        undeployed.on_host(
            f"pkill -KILL -u {NAME}; sleep 0.5; userdel -r {NAME}; "
            f"rm -f {accounts.KEYS}/{NAME} {accounts.SUDOERS}{NAME} "
            f"{accounts.FORMER_KEYS}/{NAME} {accounts.FORMER_KEYS}/somebody-else; true"
        )


def test_who_leaves_is_out_and_who_comes_back_is_in(undeployed: Rig, anna: Anna) -> None:
    listed = {NAME: [anna.public("listed")]}
    run = undeployed.deploy(deploy="host", admin_users=listed)
    assert run.code == 0, run.output
    assert anna.enters("listed")
    assert not anna.enters("own"), "a key of her own counts"
    left = undeployed.on_host(f"ls {accounts.FORMER_KEYS}").split()
    assert left == ["somebody-else"], "hers moved over, another's was not touched"
    assert not undeployed.deploy(deploy="host", admin_users=listed).changed

    as_anna: dict[str, Any] = {"ssh_user": NAME, "ssh_key": str(anna.folder / "listed")}
    refused = undeployed.deploy(deploy="host", admin_users={}, **as_anna)
    assert refused.code == 1
    assert "is the account that this run came with" in refused.output
    assert "Traceback" not in refused.output and not refused.changed

    crontab = f"/var/spool/cron/crontabs/{NAME}"
    undeployed.on_host(f"mkdir -p {crontab.rpartition('/')[0]}; echo '* * * * * id' > {crontab}")
    session = subprocess.Popen(anna.command("listed", "sleep 600"), stderr=subprocess.DEVNULL)
    run = undeployed.deploy(deploy="host", admin_users={})
    assert run.code == 0, run.output
    assert session.wait(timeout=5) != 0, "her session goes on"
    assert not anna.enters("listed")
    rest = undeployed.on_host(
        f"ps -o args= -u {NAME}; ls {crontab} {accounts.KEYS}/{NAME} {accounts.SUDOERS}{NAME} "
        f"2>/dev/null; getent shadow {NAME} | cut -d: -f8; id -Gn {NAME}"
    )
    assert rest.split() == ["1", NAME, accounts.GROUP]
    assert not undeployed.deploy(deploy="host", admin_users={}).changed

    run = undeployed.deploy(deploy="host", admin_users=listed)
    assert run.code == 0, run.output
    assert anna.enters("listed")
