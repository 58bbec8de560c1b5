"""Engine: Docker Engine and Compose v2 of the distribution, and its daemon.json."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pyinfra import host
from pyinfra.api import StringCommand, deploy, operation

from koprogo_deploy.operations.files import RemoteFile, archive, differing, unpack_command
from koprogo_deploy.operations.host import install_command, missing_packages
from koprogo_deploy.operations.machine import machine

PACKAGES = {
    "debian": {"13": ["docker-cli", "docker-compose", "docker.io", "iptables"]},
    "ubuntu": {"24.04": ["docker-compose-v2", "docker.io"]},
}

DAEMON = {
    # json-file never deletes; local compresses and caps.
    "log-driver": "local",
    "log-opts": {"max-size": "10m", "max-file": "3"},
    # An engine upgrade or restart leaves the containers running.
    "live-restore": True,
    # No process a published port, and clients keep their address.
    "userland-proxy": False,
    "no-new-privileges": True,
    "icc": False,
    "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 16384, "Hard": 16384}},
}


def daemon_file() -> RemoteFile:
    """The engine's configuration."""
    return RemoteFile("/etc/docker/daemon.json", json.dumps(DAEMON, indent=2) + "\n")


@operation()
def engine_installed() -> Iterator[StringCommand | str]:
    """Install and configure the engine; restart it once, and only for a changed daemon.json.

    The file is written before the packages, so that the first start already reads it. A file that
    dockerd would not start with is never left in place: three failed starts leave no engine.
    """
    file = daemon_file()
    state = machine()
    wanted = PACKAGES[state.os][state.os_version]
    missing = missing_packages(wanted, state)
    changed = differing([file], state.files)
    if missing:
        if changed:
            yield StringCommand(unpack_command("/"), _stdin=archive(changed))
        yield install_command(missing, state.apt_lists_fresh)
        yield "systemctl enable --now docker.service && timeout 60 docker info >/dev/null"
    elif changed:
        staged = RemoteFile(f"{file.path}.new", file.content)
        yield StringCommand(unpack_command("/"), _stdin=archive([staged]))
        yield (
            f"dockerd --validate --config-file {staged.path} && mv {staged.path} {file.path} && "
            "systemctl restart docker.service && timeout 60 docker info >/dev/null"
        )
    elif state.units.get("docker.service") != "active enabled":
        yield "systemctl reset-failed docker.service; systemctl enable --now docker.service"
    else:
        host.noop("the engine runs with this daemon.json")


@deploy("Engine")
def engine_stage() -> None:
    """Docker Engine and Compose."""
    engine_installed(name="Install Docker Engine and Compose")
