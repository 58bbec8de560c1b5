"""How to reach an environment's host with OpenSSH, from the same inventory as pyinfra."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from koprogo_deploy.door import Environment

# pyinfra's connection data and OpenSSH's option for it.
_OPTIONS = {
    "ssh_hostname": "HostName",
    "ssh_port": "Port",
    "ssh_user": "User",
    "ssh_key": "IdentityFile",
    "ssh_known_hosts_file": "UserKnownHostsFile",
    "ssh_strict_host_key_checking": "StrictHostKeyChecking",
}


def is_local(environment: Environment) -> bool:
    """Whether the deploy runs on its own target (pyinfra's local connector)."""
    return environment.host.startswith("@local")


def ssh_config(environment: Environment) -> str:
    """An ssh_config for the host: one connection for all commands of a run."""
    lines = [f"Host {environment.host}"]
    for key, option in _OPTIONS.items():
        if key in environment.connection:
            lines.append(f"  {option} {environment.connection[key]}")
    if "ssh_key" in environment.connection:
        lines.append("  IdentitiesOnly yes")
    # Short: a socket's path ends at 108 characters.
    lines += [
        "  BatchMode yes",
        # A network that goes silent ends a command in half a minute, as it does pyinfra's own.
        "  ConnectTimeout 10",
        "  ServerAliveInterval 10",
        "  ServerAliveCountMax 3",
        "  ControlMaster auto",
        f"  ControlPath {tempfile.gettempdir()}/koprogo-{os.getuid()}-%C",
        "  ControlPersist 30",
        "  LogLevel ERROR",
    ]
    return "\n".join(lines) + "\n"


def ssh_config_file(environment: Environment) -> Path:
    """Write the ssh_config where OpenSSH accepts it: a private file, named by its content."""
    text = ssh_config(environment)
    directory = Path(tempfile.gettempdir()) / f"koprogo-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        raise PermissionError(f"{directory} belongs to somebody else")
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
