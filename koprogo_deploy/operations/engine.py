"""Engine: Docker Engine and Compose v2 of the distribution, and its daemon.json."""

from __future__ import annotations

from collections.abc import Iterator

from pyinfra import host
from pyinfra.api import StringCommand, deploy

from koprogo_deploy.files import RemoteFile, archive, differing, unpack_command
from koprogo_deploy.machine import ENGINE_PACKAGES, container_units_file, daemon_file
from koprogo_deploy.operations.host import install_command, missing_packages
from koprogo_deploy.operations.looks import machine_now
from koprogo_deploy.operations.step import step


@step
def engine_installed() -> Iterator[StringCommand | str]:
    """Install and configure the engine; restart it once, and only for a changed daemon.json.

    The file is written before the packages, so that the first start already reads it. A file that
    dockerd would not start with is never left in place: three failed starts leave no engine.
    """
    file = daemon_file()
    state = machine_now()
    wanted = list(ENGINE_PACKAGES[state.os, state.os_version])
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


@step
def container_units_configured() -> Iterator[StringCommand | str]:
    """Tell systemd which limit of a container is Docker's: running ones have it at once."""
    file = container_units_file()
    if differing([file], machine_now().files):
        yield StringCommand(unpack_command("/"), _stdin=archive([file]))
        yield "systemctl daemon-reload"
    else:
        host.noop("systemd leaves the containers' limits alone")


@deploy("Engine")
def engine_stage() -> None:
    """Docker Engine and Compose."""
    container_units_configured(name="Keep containers out of swap")
    engine_installed(name="Install Docker Engine and Compose")
