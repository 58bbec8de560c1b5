"""Who this sandbox is, and what it tells others: `.sandbox/state.json`, keys and ssh_config."""

import contextlib
import enum
import fcntl
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from sandbox.authority import write
from sandbox.console import SandboxError, err

USER = "debian"
LABEL = "koprogo-sandbox"
IMAGE_LABEL = "koprogo-sandbox.image"
PORTS = {"ssh": 2222, "http": 8080, "https": 8443}


class Kind(enum.StrEnum):
    """What the VPS is: a container on this machine's kernel, or a machine with one of its own."""

    box = "box"
    vm = "vm"


def choose_kind(present: Kind | None, asked: Kind | None) -> Kind:
    """The kind to bring up.

    Args:
        present: what is up, or was left by a hard stop; None where there is nothing.
        asked: what the command line says; None keeps what is there.

    Raises:
        SandboxError: another kind is up.
    """
    if present and asked and present != asked:
        raise SandboxError(
            f"the sandbox of this checkout is a {present}, and a {asked} was asked for",
            "remove it first, with all that is in it: make sandbox-down",
        )
    return present or asked or Kind.box


@dataclass(frozen=True)
class Sandbox:
    """The names of one checkout's sandbox; two clones on one machine never meet."""

    root: Path

    @property
    def id(self) -> str:
        """Six digits of the project's path."""
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:6]

    @property
    def label(self) -> str:
        """What marks containers, networks and volumes as ours."""
        return f"{LABEL}={self.id}"

    @property
    def prefix(self) -> str:
        """The beginning of every name."""
        return f"koprogo-sandbox-{self.id}"

    @property
    def vps(self) -> str:
        """The box's container."""
        return f"{self.prefix}-vps"

    @property
    def registry(self) -> str:
        """The registry's container."""
        return f"{self.prefix}-registry"

    @property
    def network(self) -> str:
        """The network both are in."""
        return f"{self.prefix}-net"

    @property
    def tap(self) -> str:
        """The device of a virtual machine's second interface: 15 bytes at most."""
        return f"kps-{self.id}"

    @property
    def directory(self) -> Path:
        """Where state and keys are."""
        return self.root / ".sandbox"

    @property
    def vm(self) -> Path:
        """What a virtual machine is made of: disk, kernel, process id, console."""
        return self.directory / "vm"

    @property
    def control(self) -> Path:
        """SSH's control sockets; a socket's path has at most 108 bytes, so not in the checkout."""
        choices = (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir())
        usable = [path for path in choices if 0 < len(path) <= 40 and os.access(path, os.W_OK)]
        base = usable[0] if usable else "/tmp"  # noqa: S108
        return Path(base) / f"kps-{os.getuid()}-{self.id}"

    def prepare(self) -> None:
        """Make the private directories."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self.directory.chmod(0o700)
        ignore = self.directory / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        self.control.mkdir(mode=0o700, exist_ok=True)
        owner = self.control.lstat()
        if owner.st_uid != os.getuid() or owner.st_mode & 0o077 or self.control.is_symlink():
            raise SandboxError(
                f"{self.control} is not a private directory of yours", f"remove {self.control}"
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One command at a time changes a sandbox; the lock dies with its holder."""
        self.prepare()
        with (self.directory / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                err.print("waiting for another sandbox command in this checkout …")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


@dataclass
class State:
    """What other programs read; every value is usable as it stands.

    Attributes:
        gateway: the machine's address as the VPS sees its clients.
        box_address: where the VPS itself is reached, every port of it; empty where it is reached
            by forwarded ports alone.
        container: the box's; empty for a virtual machine.
        accelerator: of a virtual machine: `kvm` or `tcg`.
    """

    ssh_host: str
    ssh_port: int
    ssh_user: str
    ssh_key: str
    known_hosts: str
    http_port: int
    https_port: int
    gateway: str
    box_address: str
    registry: str
    images: dict[str, str]
    ca_certificate: str
    tls_certificate: str
    tls_key: str
    container: str
    created: str
    ssh_config: str = ""
    box_image: str = ""
    registry_image: str = ""
    extra: dict[str, list[int]] = field(default_factory=dict)
    kind: Kind = Kind.box
    accelerator: str = ""


def read(sandbox: Sandbox) -> State | None:
    """The state of the last `up`, if it can be read."""
    try:
        raw = json.loads((sandbox.directory / "state.json").read_text())
        known = {f.name: raw[f.name] for f in fields(State) if f.name in raw}
        return State(**known | {"kind": Kind(raw.get("kind", Kind.box))})
    except (OSError, ValueError, TypeError):
        return None


def save(sandbox: Sandbox, state: State) -> None:
    """Write the state, at once or not at all."""
    text = json.dumps(asdict(state), indent=2) + "\n"
    write(sandbox.directory / "state.json", text.encode(), 0o600)


def taken(port: int) -> bool:
    """Whether somebody listens on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def choose_ports(previous: State | None) -> dict[str, int]:
    """The remembered port, else the usual one, else any free one."""
    chosen: dict[str, int] = {}
    for name, usual in PORTS.items():
        remembered = getattr(previous, f"{name}_port") if previous else usual
        choices = [p for p in (remembered, usual) if not taken(p)]
        chosen[name] = choices[0] if choices else free_port()
    return chosen


def write_ssh(sandbox: Sandbox, state: State, host_key: str) -> None:
    """`ssh_config` and the pinned host key."""
    kind, key = host_key.split()[:2]
    pinned = f"[{state.ssh_host}]:{state.ssh_port} {kind} {key}\n"
    write(Path(state.known_hosts), pinned.encode(), 0o600)
    lines = {
        "HostName": state.ssh_host,
        "Port": state.ssh_port,
        "User": state.ssh_user,
        "IdentityFile": f'"{state.ssh_key}"',
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": f'"{state.known_hosts}"',
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "ControlMaster": "auto",
        "ControlPath": f"{sandbox.control}/%r-%p",
        "ControlPersist": "60",
        "ServerAliveInterval": "15",
        "LogLevel": "ERROR",
    }
    text = "Host vps\n" + "".join(f"    {key} {value}\n" for key, value in lines.items())
    write(Path(state.ssh_config), text.encode(), 0o600)
