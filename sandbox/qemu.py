"""QEMU: its command line, its process, and the socket that it takes commands on."""

import contextlib
import enum
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sandbox import machine
from sandbox.client import tail
from sandbox.console import SandboxError
from sandbox.state import Sandbox

BINARY = "qemu-system-x86_64"
PACKAGE = "qemu-system-x86"
MEMORY = 2048  # MiB
# Of QEMU's user network, which needs no rights: what connects to a forwarded port comes from the
# first, and the second answers for this machine's own resolver.
GATEWAY = "10.0.2.2"
RESOLVER = "10.0.2.3"
PARAMETERS = "console=ttyS0 quiet net.ifnames=0"
INNER = {"ssh": 22, "http": 80, "https": 443}
QUIT_WITHIN = 10.0


class Accelerator(enum.StrEnum):
    """What runs the guest's instructions: the processor, or a translator."""

    kvm = "kvm"
    tcg = "tcg"

    @property
    def options(self) -> list[str]:
        """QEMU's, with the processor that the guest sees."""
        return ["-accel", self.value, "-cpu", "host" if self is Accelerator.kvm else "max"]

    @property
    def parameters(self) -> str:
        """The kernel's: a translated guest is ten times slower, and what waits there waits longer.

        Defences against a processor's side channels guard nothing in one that is translated.
        """
        if self is Accelerator.kvm:
            return PARAMETERS
        patience = "systemd.default_timeout_start_sec=900 systemd.default_device_timeout_sec=900"
        return f"{PARAMETERS} mitigations=off {patience}"


def quoted(value: object) -> str:
    """A value inside one of QEMU's options: a comma would end it."""
    return str(value).replace(",", ",,")


def hardware(accelerator: Accelerator, memory: int = MEMORY) -> list[str]:
    """One CPU, so much memory in MiB, and no device that is not asked for."""
    return [
        "-machine", "q35", *accelerator.options, "-smp", "1", "-m", str(memory),
        "-no-user-config", "-nodefaults", "-display", "none",
    ]  # fmt: skip


def drive(name: str, path: Path, *options: str) -> list[str]:
    """A disk; the guest has them in their order as /dev/vda, /dev/vdb …"""
    backend = ["if=none", f"id={name}", f"file={quoted(path)}", "format=raw", *options]
    return ["-drive", ",".join(backend), "-device", f"virtio-blk-pci,drive={name},serial={name}"]


def command_line(
    sandbox: Sandbox, accelerator: Accelerator, ports: Mapping[str, int], link: str = ""
) -> list[str]:
    """The virtual machine of a sandbox.

    Args:
        sandbox: whose disk, kernel and sockets.
        accelerator: what runs it.
        ports: of 127.0.0.1, by the names in `INNER`.
        link: a tap device of this machine for a second interface; empty for none.
    """
    own = sandbox.vm
    forwarded = [f"hostfwd=tcp:127.0.0.1:{ports[name]}-:{inner}" for name, inner in INNER.items()]
    # Without a ROM for network boot: it is a package of its own, and the kernel is given.
    card = "virtio-net-pci,romfile="
    second = ["-netdev", f"tap,id=link,ifname={link},script=no,downscript=no"]
    return [
        BINARY, "-name", sandbox.vps, *hardware(accelerator),
        "-kernel", str(own / "vmlinuz"), "-initrd", str(own / "initrd"),
        # An empty machine id is no reason to ask anybody for a time zone.
        "-append", f"root=/dev/vda rw {accelerator.parameters} systemd.firstboot=no",
        # What the guest flushes is on the disk then: a hard stop of this machine costs no data.
        *drive("root", own / "disk.img", "cache=writeback", "discard=unmap"),
        *drive("furnishing", own / "furnishing.img", "readonly=on"),
        "-netdev", ",".join(["user,id=net,ipv6=off", *forwarded]), "-device", f"{card},netdev=net",
        *((*second, "-device", f"{card},netdev=link") if link else ()),
        "-device", "virtio-rng-pci",
        "-chardev", f"file,id=console,append=on,path={quoted(own / 'console.log')}",
        "-serial", "chardev:console",
        "-qmp", f"unix:{quoted(monitor_path(sandbox))},server=on,wait=off",
        "-pidfile", str(own / "pid"), "-daemonize",
    ]  # fmt: skip


def monitor_path(sandbox: Sandbox) -> Path:
    """Where QEMU takes commands; a socket's path has at most 108 bytes."""
    return sandbox.control / "qmp"


def version() -> str:
    """The first line of `qemu --version`."""
    return machine.output(BINARY, "--version").partition("\n")[0]


def ensure() -> str:
    """QEMU, installed if need be; its version."""
    if not shutil.which(BINARY):
        machine.apt_install(PACKAGE)
    return version()


# --- the process ---------------------------------------------------------------------------------


def name_of(arguments: Sequence[str]) -> str | None:
    """The guest's name if a process with these arguments is a QEMU, else None."""
    if not arguments or Path(arguments[0]).name != BINARY or "-name" not in arguments[:-1]:
        return None
    return arguments[arguments.index("-name") + 1]


def guest(pid: int) -> str | None:
    """The name of the guest that this process runs; None if it is no QEMU, or none any more."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return None
    return name_of(arguments.split("\0"))


def recorded(sandbox: Sandbox) -> int:
    """What the pid file says; 0 without one. A hard stop leaves it, and process ids are reused."""
    try:
        return int((sandbox.vm / "pid").read_text())
    except (OSError, ValueError):
        return 0


def process_ids() -> list[int]:
    """Every process there is."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def running(sandbox: Sandbox) -> int | None:
    """The process id of this sandbox's QEMU, also of one whose pid file somebody has removed."""
    pid = recorded(sandbox)
    if pid and guest(pid) == sandbox.vps:
        return pid
    return next((pid for pid in process_ids() if guest(pid) == sandbox.vps), None)


def others(own: str) -> list[str]:
    """Virtual machines of other checkouts that run here."""
    names = {guest(pid) or "" for pid in process_ids()} - {own}
    return sorted(n for n in names if re.fullmatch(r"koprogo-sandbox-[0-9a-f]{6}-vps", n))


def start(sandbox: Sandbox, command: Sequence[str]) -> int:
    """Start a QEMU that outlives us; its process id.

    Raises:
        SandboxError: it refused, with what it said.
    """
    monitor_path(sandbox).unlink(missing_ok=True)
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
    )
    if done.returncode:
        if "host forwarding rule" in done.stderr:
            raise SandboxError(
                f"a port of {sandbox.vps} has been taken by another program:\n{tail(done.stderr)}",
                "free it, or run: make sandbox-down && make sandbox-up KIND=vm",
            )
        raise SandboxError(f"QEMU could not be started:\n{tail(done.stderr)}")
    pid = running(sandbox)
    if pid is None:
        raise SandboxError(
            "QEMU ended as soon as it had started", f"see: {sandbox.vm / 'console.log'}"
        )
    return pid


def gone(pid: int, name: str, within: float) -> bool:
    """Wait until this process no longer runs that guest; False if it still does."""
    deadline = time.monotonic() + within
    while guest(pid) == name:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def stop(sandbox: Sandbox) -> bool:
    """End this sandbox's QEMU at once; False if there is none.

    Raises:
        SandboxError: it does not end.
    """
    pid = running(sandbox)
    if pid is None:
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if gone(pid, sandbox.vps, QUIT_WITHIN):
            (sandbox.vm / "pid").unlink(missing_ok=True)
            return True
    raise SandboxError(f"QEMU (process {pid}) does not end", f"run: kill -9 {pid}")


# --- its monitor ---------------------------------------------------------------------------------


class Monitor:
    """A session on QEMU's socket: one JSON object a line, answers mixed with events."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._read()  # the greeting
        self.execute("qmp_capabilities")

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise EOFError
        found: dict[str, Any] = json.loads(line)
        return found

    def execute(self, command: str) -> Any:  # noqa: ANN401
        """What a command returns.

        Raises:
            SandboxError: QEMU refuses it.
        """
        self._connection.sendall(json.dumps({"execute": command}).encode() + b"\n")
        while True:
            answer = self._read()
            if "error" in answer:
                raise SandboxError(f"QEMU refuses {command}: {answer['error'].get('desc')}")
            if "return" in answer:
                return answer["return"]


@contextlib.contextmanager
def monitor(sandbox: Sandbox) -> Iterator[Monitor]:
    """A session with this sandbox's QEMU.

    Raises:
        SandboxError: its socket does not answer.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        try:
            connection.connect(str(monitor_path(sandbox)))
            yield Monitor(connection)
        except (OSError, EOFError, ValueError) as error:
            raise SandboxError(
                f"QEMU does not answer on {monitor_path(sandbox)}: {error!r}",
                "run: make sandbox-down && make sandbox-up KIND=vm",
            ) from None


def pin(sandbox: Sandbox, cpu: int) -> None:
    """Give the guest's processor a CPU of this machine.

    Its thread alone: what carries disk and network is the hypervisor's work, as at a provider.
    """
    with monitor(sandbox) as session:
        for each in session.execute("query-cpus-fast"):
            os.sched_setaffinity(each["thread-id"], {cpu})
