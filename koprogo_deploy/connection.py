"""How to reach an environment's host with OpenSSH, from the same inventory as pyinfra."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from koprogo_deploy import door, host_keys
from koprogo_deploy.door import Environment
from koprogo_deploy.problems import Problem, Refusal

# pyinfra's connection data and OpenSSH's option for it.
_OPTIONS = {
    "ssh_hostname": "HostName",
    "ssh_port": "Port",
    "ssh_user": "User",
    "ssh_key": "IdentityFile",
    "ssh_known_hosts_file": "UserKnownHostsFile",
    "ssh_strict_host_key_checking": "StrictHostKeyChecking",
}
_FILES = ("ssh_key", "ssh_known_hosts_file")
_LONGEST = 104  # a socket's path on macOS, its final zero included; 108 on Linux
_FALLBACK = "/tmp"  # noqa: S108 - where TMPDIR is too long; what is there is looked at first
_SUFFIX = 17  # while OpenSSH makes the socket its name is longer


def is_local(environment: Environment) -> bool:
    """Whether the deploy runs on its own target (pyinfra's local connector)."""
    return environment.host.startswith("@local")


def ssh_config(environment: Environment) -> str:
    """An ssh_config for the host: one connection for all commands of a run."""
    lines = [f"Host {environment.host}"]
    for key, option in _OPTIONS.items():
        if key in environment.connection:
            value = environment.connection[key]
            if key in _FILES:
                # As pyinfra takes it, from wherever this is called.
                value = f'"{door.ROOT / Path(str(value)).expanduser()}"'
            lines.append(f"  {option} {value}")
    if "ssh_known_hosts_file" in environment.connection:
        lines.append("  GlobalKnownHostsFile /dev/null")
    if "ssh_key" in environment.connection:
        lines.append("  IdentitiesOnly yes")
    lines += [
        "  BatchMode yes",
        # A network that goes silent ends a command in half a minute, as it does pyinfra's own.
        "  ConnectTimeout 10",
        "  ServerAliveInterval 10",
        "  ServerAliveCountMax 3",
        "  ControlMaster auto",
        "  ControlPersist 30",
        "  LogLevel ERROR",
    ]
    # Whoever listens there gets our commands and their input: in a folder of our own, by a short
    # name, another one for each way to a host.
    name = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
    lines.append(f'  ControlPath "{private_directory()}/c-{name}"')
    return "\n".join(lines) + "\n"


def private_directory() -> Path:
    """A folder below the temporary one that only this user can enter, made if need be.

    Raises:
        Refusal: something else is there under its name: a link, or what others may write to.
    """
    name = f"koprogo-{os.getuid()}"
    directory = Path(tempfile.gettempdir()) / name
    if len(f"{directory}/c-{'0' * 12}") + _SUFFIX >= _LONGEST:
        directory = Path(_FALLBACK) / name
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        what = (
            "not a folder of yours that nobody else can enter; SSH's control socket is to lie in it"
        )
        fix = (
            f"see who made it: ls -ld {directory}; then remove it, or set TMPDIR to another folder"
        )
        raise Refusal("SSH", [Problem(str(directory), what, fix)])
    return directory


def ssh_config_file(environment: Environment) -> Path:
    """Write the ssh_config where OpenSSH accepts it: a private file, named by its content.

    Raises:
        Refusal: there is no private folder for it.
    """
    text = ssh_config(environment)
    if environment.settings.environment != "sandbox":
        host_keys.write(
            environment.host, environment.connection, environment.settings.environment, door.ROOT
        )
    directory = private_directory()
    path = directory / f"ssh-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    # Whole or not at all: another ssh may read it right now.
    with tempfile.NamedTemporaryFile("w", dir=directory, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).replace(path)
    return path


def testinfra_target(environment: Environment) -> tuple[str, dict[str, Any]]:
    """Host specification and options for `testinfra.get_host`."""
    if is_local(environment):
        return "local://", {}
    return f"ssh://{environment.host}", {"ssh_config": str(ssh_config_file(environment))}


def ssh_command(environment: Environment, command: str) -> list[str]:
    """The command line that runs one command on the host with OpenSSH."""
    if is_local(environment):
        return ["sh", "-c", command]
    return ["ssh", "-F", str(ssh_config_file(environment)), environment.host, command]
