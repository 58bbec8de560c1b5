"""The box: how its container is made, furnished, rebooted, and known to let the user in."""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sandbox import engine, machine, registry
from sandbox.client import Docker
from sandbox.console import SandboxError
from sandbox.parts import BOX, REGISTRY, container, volume
from sandbox.state import Sandbox, State

# `--privileged` fails where the machine itself lacks a capability, so each one is named. SYS_TIME
# is missing on purpose: the clock is the machine's, and on one without an init the kernel takes
# the first `timedatectl set-timezone` for a clock in local time and moves it by the zone's offset.
CAPABILITIES = (
    "SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "SYS_NICE", "SYS_BOOT", "SYS_MODULE", "SYS_RAWIO",
    "SYS_PACCT", "SYS_TTY_CONFIG", "IPC_LOCK", "IPC_OWNER", "LEASE", "LINUX_IMMUTABLE",
    "MAC_ADMIN", "MAC_OVERRIDE", "NET_BROADCAST", "SYSLOG", "AUDIT_CONTROL", "AUDIT_READ",
    "BLOCK_SUSPEND", "DAC_READ_SEARCH", "WAKE_ALARM",
)  # fmt: skip
CPUS = "1"


def cpus() -> tuple[int, list[int]] | None:
    """The CPU that is the box's alone, and those that are left; None on a machine with one.

    A quota alone lets two threads use up 100 ms in 50 ms of two CPUs, and then stops both for the
    other 50 ms: no VPS with one CPU does that.
    """
    *others, own = sorted(os.sched_getaffinity(0))
    return (own, others) if others else None


MEMORY = "2g"
BOOT_WITHIN = 90.0
STOP_WITHIN = 60


def cgroup_options(docker: Docker) -> list[str]:
    """How systemd gets a cgroup tree it may write to."""
    if engine.cgroup_version(docker) != "1":
        return ["--cgroupns", "private"]
    # A tmpfs of the box's own around the machine's hierarchies: systemd remounts it read-only and
    # makes directories in it, which would otherwise happen to the machine's.
    options = ["--cgroupns", "host", "--tmpfs", "/sys/fs/cgroup:mode=755"]
    for point in engine.hierarchies():
        options += ["--volume", f"{point}:{point}:rw"]
    return options


def create(
    docker: Docker, sandbox: Sandbox, image: str, prefix: str, ports: dict[str, int]
) -> None:
    """Create the box's container, not yet started."""
    options = ["--cpus", CPUS, "--memory", MEMORY, "--memory-swap", MEMORY]
    if pinned := cpus():
        options += ["--cpuset-cpus", str(pinned[0])]
    for capability in CAPABILITIES:
        options += ["--cap-add", capability]
    for option in ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"):
        options += ["--security-opt", option]
    for inner, name in ((22, "ssh"), (80, "http"), (443, "https")):
        options += ["--publish", f"127.0.0.1:{ports[name]}:{inner}"]
    docker.call(
        "create", "--name", sandbox.vps, "--hostname", "vps",
        "--label", sandbox.label, "--label", f"koprogo-sandbox.built-from={image}",
        "--network", sandbox.network, "--ip", f"{prefix}.{BOX}",
        "--add-host", f"{registry.HOST}:{prefix}.{REGISTRY}",
        # A VPS comes back after `reboot` and after a hard reset.
        "--restart", "unless-stopped", "--stop-timeout", str(STOP_WITHIN),
        "--env", "container=docker",
        # Docker's tmpfs is noexec; that of a real Debian 13 is not.
        "--tmpfs", "/run:exec,mode=755", "--tmpfs", "/tmp:exec,mode=1777",  # noqa: S108
        "--volume", f"{volume(docker, sandbox, 'docker')}:/var/lib/docker",
        *cgroup_options(docker), *options, image,
    )  # fmt: skip


Files = dict[str, tuple[bytes, int, int]]


def trust(sandbox: Sandbox) -> Files:
    """The registry's authority, where an engine looks for it."""
    authority = (sandbox.directory / "ca.crt").read_bytes()
    return {f"etc/docker/certs.d/{registry.NAME}/ca.crt": (authority, 0o644, 0)}


def refresh(docker: Docker, sandbox: Sandbox) -> None:
    """What may change under a box that exists: the resolver and the registry's authority."""
    resolvers = "".join(f"nameserver {server}\n" for server in machine.resolvers())
    resolver = {"etc/koprogo-sandbox/resolv.conf": (resolvers.encode(), 0o644, 0)}
    registry.put(docker, sandbox.vps, trust(sandbox) | resolver)


def furnish(docker: Docker, sandbox: Sandbox) -> None:
    """Put in what a provider puts in at first boot."""
    registry.put(docker, sandbox.vps, furnishing(sandbox))


def furnishing(sandbox: Sandbox) -> Files:
    """What a provider puts in at first boot: keys and proxies."""
    own = sandbox.directory
    proxies = machine.proxies()
    if proxies:
        local = ",".join(
            filter(None, (proxies.get("no_proxy"), "localhost,127.0.0.1", registry.HOST))
        )
        proxies |= {"no_proxy": local, "NO_PROXY": local}
    environment = "".join(f'{name}="{value}"\n' for name, value in sorted(proxies.items()))
    public = (own / "id_ed25519.pub").read_bytes()
    files: Files = {
        "home/debian/.ssh/authorized_keys": (public, 0o600, 1000),
        "etc/ssh/ssh_host_ed25519_key": ((own / "ssh_host_ed25519_key").read_bytes(), 0o600, 0),
        "etc/ssh/ssh_host_ed25519_key.pub": (
            (own / "ssh_host_ed25519_key.pub").read_bytes(),
            0o644,
            0,
        ),
    }
    if environment:
        files["etc/environment"] = (environment.encode(), 0o644, 0)
    return files


def banner(port: int, within: float = 2.0) -> bool:
    """Whether an SSH server answers on this port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=within) as connection:
            connection.settimeout(within)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def hang_up(sandbox: Sandbox, state: State | None) -> None:
    """Close the shared SSH connection: after a reboot it would be a dead one."""
    if state and Path(state.ssh_config).exists():
        subprocess.run(
            ["ssh", "-F", state.ssh_config, "-O", "exit", "vps"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )


def ssh(state: State, *command: str, timeout: float = 20.0) -> subprocess.CompletedProcess[str]:
    """Run a command in the box, over SSH."""
    try:
        return subprocess.run(
            ["ssh", "-F", state.ssh_config, "-o", f"ConnectTimeout={timeout / 4:.0f}",
             "-o", "BatchMode=yes",
             "vps", *command],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout,
        )  # fmt: skip
    except FileNotFoundError:
        raise SandboxError("no ssh client here", "install openssh-client") from None
    except subprocess.TimeoutExpired as error:
        return subprocess.CompletedProcess(error.cmd, 255, "", "timed out")


def wait(docker: Docker, sandbox: Sandbox, state: State) -> None:
    """Wait until the box has booted and lets the user in."""

    def ended() -> str | None:
        found = container(docker, sandbox.vps)
        if not found or found["State"]["Status"] not in {"exited", "dead"}:
            return None
        logs = docker.call("logs", "--tail", "15", sandbox.vps, check=False)
        return f"the box stopped while booting:\n{logs.stdout}{logs.stderr}"

    await_login(
        state, BOOT_WITHIN, ended, f"see: docker logs {sandbox.vps}; python -m sandbox logs"
    )


def await_login(
    state: State,
    within: float,
    ended: Callable[[], str | None],
    hint: str,
    patience: float = 1.0,
) -> None:
    """Wait until a VPS has booted and lets the user in.

    Args:
        state: how it is reached.
        within: seconds.
        ended: why it will never boot; None while it may.
        hint: what to look at if it does not.
        patience: how many times longer one try may take, and one waits for the next. Each costs
            the VPS a process: a slow one that is asked too often has time for nothing else.

    Raises:
        SandboxError: it ended, or did not let us in.
    """
    deadline = time.monotonic() + within
    reason = ""
    while time.monotonic() < deadline:
        if banner(state.ssh_port, 2 * patience):
            # pam_nologin turns users away until the boot is over.
            ask = "sudo -n true && systemctl is-system-running || true"
            done = ssh(state, ask, timeout=20 * patience)
            reason = done.stderr.strip()
            if done.returncode == 0 and done.stdout.strip() in {"running", "degraded"}:
                return
            reason = reason or f"system is {done.stdout.strip()}"
        if over := ended():
            raise SandboxError(over)
        time.sleep(0.2 * patience)
    raise SandboxError(
        f"the {state.kind} did not let us in within {within:.0f} s: {reason or 'no SSH banner'}",
        hint,
    )


def deployed(docker: Docker, sandbox: Sandbox) -> bool:
    """Whether somebody has installed an engine inside: then the box holds work."""
    mark = f"{sandbox.vps}:/var/lib/dpkg/info/docker.io.list"
    return docker.call("cp", mark, "-", check=False).returncode == 0


def published(found: dict[str, Any]) -> dict[str, int]:
    """The ports a container was created with, running or not."""
    bindings = found["HostConfig"]["PortBindings"]
    return {
        name: int(bindings[f"{inner}/tcp"][0]["HostPort"])
        for inner, name in ((22, "ssh"), (80, "http"), (443, "https"))
    }


def restart(docker: Docker, sandbox: Sandbox, *, hard: bool) -> None:
    """Reboot: systemd shuts down first, or everything dies at once.

    The latter is a hard reset, no power cut: what was written stays in the machine's page cache.
    """
    if hard:
        docker.call("kill", "--signal", "KILL", sandbox.vps)
        docker.call("start", sandbox.vps)
    else:
        docker.call("restart", "--time", str(STOP_WITHIN), sandbox.vps, timeout=STOP_WITHIN + 60.0)
