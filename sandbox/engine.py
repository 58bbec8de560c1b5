"""The outer engine: find a Docker that answers, or install Debian's and start it."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from sandbox import machine
from sandbox.client import Docker
from sandbox.console import SandboxError

READY_WITHIN = 90.0
LOG = Path("/var/log/koprogo-sandbox-dockerd.log")
RUN = Path("/var/run/docker")
# In a sticky directory, so that another user's `up` can open it too.
LOCK = "/var/tmp/koprogo-sandbox-engine.lock"  # noqa: S108
PIDFILE = Path("/var/run/docker.pid")


def candidates() -> list[Docker]:
    """Clients to try: the one on PATH, then the one Debian's docker.io brings."""
    environment = {"DOCKER_CLI_HINTS": "false"}
    paths = [shutil.which("docker"), "/usr/bin/docker"]
    found: list[Docker] = []
    for path in dict.fromkeys(p for p in paths if p and os.access(p, os.X_OK)):
        buildx = subprocess.run([path, "buildx", "version"], capture_output=True).returncode == 0
        # A builder in a container of its own would not see the images we build upon.
        builder = {"BUILDX_BUILDER": "default"} if buildx else {"DOCKER_BUILDKIT": "0"}
        found.append(Docker(path, {**environment, **builder}))
    return found


def connect() -> tuple[Docker | None, str]:
    """A client the engine answers to, or the last reason why none does."""
    reason = "no docker client found"
    for docker in candidates():
        # `version` also fails where client and server share no API version (client 29, server 20).
        done = docker.call("version", "-f", "{{.Server.Version}}", check=False, timeout=20)
        if done.returncode == 0:
            return docker, done.stdout.strip()
        reason = done.stderr.strip() or done.stdout.strip()
    return None, reason


def require() -> Docker:
    """A client for commands that need a running engine but shall not start one."""
    docker, reason = connect()
    if docker is None:
        raise SandboxError(
            f"the Docker engine does not answer: {reason}", "run: python -m sandbox up"
        )
    return docker


def alive(pid: int, name: str) -> bool:
    """Whether this process exists and is that program: process ids are reused."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == name
    except OSError:
        return False


def processes(*prefixes: str) -> list[int]:
    """Ids of the running programs whose name starts so."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "comm").read_text().startswith(prefixes):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def clear_remains() -> list[str]:
    """Remove what a hard stop left under /var/run, where that is not a tmpfs.

    dockerd believes any living process that has the id in its pid file, and waits for ever for a
    containerd that is none. Nothing is touched that belongs to a living process.
    """
    removed: list[str] = []
    for pidfile, name in (
        (PIDFILE, "dockerd"),
        (RUN / "containerd/containerd.pid", "containerd"),
    ):
        try:
            pid = int(pidfile.read_text().strip() or 0)
        except (OSError, ValueError):
            continue
        if not alive(pid, name):
            machine.as_root("rm", "-f", str(pidfile), why=f"removing the stale {pidfile}")
            removed.append(f"stale {pidfile.name}")
    # Without a containerd or a shim nothing in the engine's run directory can be in use, and
    # runc refuses to create a container whose state is still there.
    if RUN.is_dir() and not processes("containerd", "dockerd"):
        for mount in mounts_below(str(RUN)):
            machine.as_root("umount", "-l", mount, why=f"unmounting {mount}")
        machine.as_root("rm", "-rf", str(RUN), why=f"emptying {RUN}")
        removed.append(f"remains in {RUN}")
    return removed


def mounts_below(path: str) -> list[str]:
    """Mount points under a path, the deepest first."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    real = str(Path(path).resolve())
    return sorted((p for p in points if p.startswith((path + "/", real + "/"))), reverse=True)


def prepare_cgroups() -> None:
    """Mount what runc and the box's systemd need where no init has done so."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists() or not (root / "memory").is_dir():
        return
    named = root / "systemd"
    if not os.path.ismount(named):
        machine.as_root("mkdir", "-p", str(named), why="preparing the cgroup tree")
        machine.as_root(
            "mount", "-t", "cgroup", "-o", "none,name=systemd", "cgroup", str(named),
            why="mounting the named cgroup hierarchy",
        )  # fmt: skip


def start() -> list[str]:
    """Start the engine: by systemd where that runs, else directly and detached."""
    if Path("/run/systemd/system").is_dir():
        machine.as_root("systemctl", "start", "docker", why="starting Docker")
        return ["by systemctl"]
    remarks = []
    if not processes("dockerd"):
        remarks = clear_remains()
        prepare_cgroups()
        prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
        machine.as_root("touch", str(LOG), why=f"creating {LOG}")
        # A session of its own: neither our end nor a Ctrl-C in our terminal may stop it.
        subprocess.Popen(
            [*prefix, "sh", "-c", f"exec dockerd >>{LOG} 2>&1"],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        remarks.append(f"no init here: started directly, log in {LOG}")
    return remarks


def wait() -> Docker:
    """Wait for an engine that has just been started."""
    deadline = time.monotonic() + READY_WITHIN
    reason = ""
    while time.monotonic() < deadline:
        docker, reason = connect()
        if docker is not None:
            return docker
        if "permission denied" in reason.lower():
            break
        time.sleep(0.3)
    raise no_access(reason)


def no_access(reason: str) -> SandboxError:
    """The error for an engine that cannot be used, with the likeliest cure."""
    if "permission denied" in reason.lower():
        return SandboxError(
            "this user may not talk to the Docker engine",
            "run: sudo usermod -aG docker $USER, log in again (or use sudo)",
        )
    return SandboxError(
        f"the Docker engine did not answer within {READY_WITHIN:.0f} s: {reason}",
        f"its log may say why: {LOG}, or journalctl -u docker",
    )


def ensure() -> tuple[Docker, list[str]]:
    """An engine that answers, and remarks on what had to be done for it."""
    docker, reason = connect()
    if docker is not None:
        return docker, [reason]
    if "permission denied" in reason.lower():
        raise no_access(reason)
    with starting():
        return ensure_alone()


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """One `up` on this machine at a time installs and starts the engine, whatever the checkout."""
    try:
        descriptor = os.open(LOCK, os.O_RDONLY)
    except FileNotFoundError:
        descriptor = os.open(LOCK, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def ensure_alone() -> tuple[Docker, list[str]]:
    """Install and start the engine, unless another `up` has just done so."""
    found, reason = connect()
    if found is not None:
        return found, [reason]
    remarks: list[str] = []
    if not shutil.which("dockerd") and not Path("/usr/sbin/dockerd").exists():
        # iptables is only recommended by docker.io, and without it no port can be published.
        machine.apt_install("docker.io", "iptables")
        remarks.append("installed docker.io")
    remarks += start()
    docker = wait()
    return docker, remarks


def hierarchies() -> list[str]:
    """Mount points of this machine's cgroup v1 hierarchies."""
    entries = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [e[1] for e in entries if e[2] == "cgroup" and e[1].startswith("/sys/fs/cgroup/")]


def cgroup_version(docker: Docker) -> str:
    """`1` or `2`: the box boots differently on each."""
    return docker.call("info", "-f", "{{.CgroupVersion}}").stdout.strip()
