"""Which key the host's SSH server has to show: pinned in the settings, or known to this user.

Both SSH clients, pyinfra's and OpenSSH, are given one private file with that key and nothing else,
and take no other. A key that nobody compared is never taken on trust: whoever answers at the
host's address gets the environment's secrets by standard input.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from koprogo_deploy.settings import is_host_key

FOLDER = ".known_hosts"  # of the project: written by each run, ignored by git

Wrong = tuple[str, str, str]  # the setting, what is wrong with it, what would be right

_SYSTEM = "/etc/ssh/ssh_known_hosts"


def name_of(host: str, connection: Mapping[str, Any]) -> str:
    """The host as known_hosts names it: with its port, where that is not 22."""
    name, port = connection.get("ssh_hostname") or host, int(connection.get("ssh_port") or 22)
    return str(name) if port == 22 else f"[{name}]:{port}"


def pinned(connection: Mapping[str, Any]) -> list[str]:
    """Lines of `ssh_host_key`: type and key, a line or a list of them; empty if it is not set."""
    given = connection.get("ssh_host_key") or []
    lines = given if isinstance(given, list) else str(given).splitlines()
    return [str(line).strip() for line in lines if str(line).strip()]


def is_ours(connection: Mapping[str, Any], environment: str) -> bool:
    """Whether the file that the clients are given is the one that is written here."""
    return str(connection.get("ssh_known_hosts_file")) == f"{FOLDER}/{environment}"


def known(name: str, files: Iterable[Path]) -> list[str]:
    """Keys of a host that stand in known_hosts files, hashed names included, in their order."""
    # Of a line with a marker such as @cert-authority nothing is taken.
    found = (" ".join(words[1:3]) for words in _lines(name, files) if words[0][0] != "@")
    return [key for key in dict.fromkeys(found) if is_host_key(key)]


def revoked(names: Iterable[str], files: Iterable[Path]) -> set[str]:
    """Keys that a line with @revoked takes from a host of one of these names, or from all."""
    files = tuple(files)
    lines = (words for name in names for words in _lines(name, files))
    return {" ".join(words[2:4]) for words in lines if words[0] == "@revoked"}


def _lines(name: str, files: Iterable[Path]) -> list[list[str]]:
    found: list[list[str]] = []
    for file in files:
        if not file.is_file():
            continue
        try:
            done = subprocess.run(
                ["ssh-keygen", "-F", name, "-f", str(file)],
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        found += [line.split() for line in done.stdout.splitlines() if line[:1] != "#"]
    return [words for words in found if words]


def users_files() -> tuple[Path, ...]:
    """Where the keys stand that this user, or this machine, knows already."""
    return (Path.home() / ".ssh/known_hosts", Path(_SYSTEM))


def keys(host: str, connection: Mapping[str, Any], environment: str, root: Path) -> list[str]:
    """The keys that are taken: those of the settings, else those that are known already.

    None that is revoked. RSA ones last: a server is asked for the first.
    """
    taken, _ = _split(host, connection, environment, root)
    return sorted(taken, key=lambda line: line.startswith("ssh-rsa "))


def _split(
    host: str, connection: Mapping[str, Any], environment: str, root: Path
) -> tuple[list[str], list[str]]:
    """The keys that are pinned or known: those that are taken, and those that are revoked."""
    name = name_of(host, connection)
    own = (root / Path(str(connection["ssh_known_hosts_file"])).expanduser(),)
    files = users_files() if is_ours(connection, environment) else own
    lines = pinned(connection) or known(name, files)
    # Whoever got hold of a key has it for each port.
    bad = revoked({name, str(connection.get("ssh_hostname") or host)}, files)
    return [key for key in lines if key not in bad], [key for key in lines if key in bad]


def wrong(host: str, connection: Mapping[str, Any], environment: str, root: Path) -> list[Wrong]:
    """What in the settings would let another server pass for the host.

    Args:
        host: as the inventory names it.
        connection: pyinfra's connection data.
        environment: `production` or `staging`.
        root: of the project.
    """
    found: list[Wrong] = []
    if connection.get("ssh_strict_host_key_checking") != "yes":
        what = "with anything but yes a server with another key would be believed"
        found.append(("ssh_strict_host_key_checking", what, 'write "yes"'))
    file, ours = connection.get("ssh_known_hosts_file"), is_ours(connection, environment)
    if not file:
        what = "missing: pyinfra would write keys that it never saw into a file of your own"
        found.append(("ssh_known_hosts_file", what, f'write "{FOLDER}/{environment}"'))
        return found
    lines = pinned(connection)
    bad = next((line for line in lines if not is_host_key(line)), None)
    if bad is not None:
        what = f"{bad!r} is not the key of an SSH server"
        fix = 'write what ssh-keyscan prints after the name: "ssh-ed25519 AAAA…"'
        found.append(("ssh_host_key", what, fix))
    elif lines and not ours:
        what = f"{file} would not get it: only {FOLDER}/{environment} is written"
        fix = f'write ssh_known_hosts_file = "{FOLDER}/{environment}", or leave ssh_host_key out'
        found.append(("ssh_host_key", what, fix))
    elif (split := _split(host, connection, environment, root))[1] and not (split[0] and ours):
        where = "your known_hosts" if ours else str(file)
        what = f"@revoked in {where}: {split[1][0]}; whoever has that key could pass for the host"
        fix = "write the host's new key, once it is compared, as ssh_host_key"
        if not ours:  # it is not rewritten, and pyinfra's client knows no markers
            fix = f"take the plain line out of {file}, and put the host's new key there"
        found.append(("ssh_host_key", what, fix))
    elif not split[0]:
        name = connection.get("ssh_hostname") or host
        port = int(connection.get("ssh_port") or 22)
        scan = f"ssh-keyscan -t ed25519 {'' if port == 22 else f'-p {port} '}{name}"
        where = "your known_hosts" if ours else str(file)
        what = (
            f"not set, and {where} does not know {name_of(host, connection)}: whoever answers "
            "there would get the secrets"
        )
        fix = (
            f"{scan} prints a key; compare its fingerprint ({scan} | ssh-keygen -lf -) with the "
            "one on the provider's console (there: ssh-keygen -lf "
            "/etc/ssh/ssh_host_ed25519_key.pub), then write ssh_host_key = "
            f'"ssh-ed25519 AAAA…" in group_data/{environment}.py'
        )
        found.append(("ssh_host_key", what, fix))
    return found


def write(host: str, connection: Mapping[str, Any], environment: str, root: Path) -> None:
    """Write the file that both clients are given, if it is ours; whole or not at all."""
    if not is_ours(connection, environment):
        return
    name = name_of(host, connection)
    lines = [f"{name} {key}\n" for key in keys(host, connection, environment, root)]
    folder = root / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    # Another run may read it right now.
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
        file.writelines(lines)
    Path(file.name).replace(folder / environment)
