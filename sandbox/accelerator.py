"""KVM where it really works, else QEMU's own translator: found out by booting, and remembered.

`/dev/kvm` may be there and useless: inside some virtual machines it makes a guest, and the
guest's kernel dies before its first line.
"""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

from sandbox import qemu
from sandbox.authority import write
from sandbox.console import SandboxError
from sandbox.images import fingerprint
from sandbox.qemu import Accelerator

DEVICE = Path("/dev/kvm")
PROBE_WITHIN = 30.0
# The kernel's words when process 1 ends as /bin/true does: a program has run to its end.
PROOF = "Attempted to kill init! exitcode=0x00000000"


def decide(
    usable: bool, remembered: str | None, probe: Callable[[], bool]
) -> tuple[Accelerator, str]:
    """The accelerator, and why.

    Args:
        usable: whether this user may open /dev/kvm.
        remembered: what an earlier probe of the same programs found.
        probe: boots a kernel by KVM; asked only if nothing else decides.
    """
    if not usable:
        return Accelerator.tcg, f"no {DEVICE} for this user"
    if remembered:
        return Accelerator(remembered), "as found before"
    if probe():
        return Accelerator.kvm, "a kernel booted by it"
    return Accelerator.tcg, f"{DEVICE} is there, but no kernel boots by it"


def probe_command(kernel: Path, initrd: Path) -> list[str]:
    """A guest without a disk that runs one program and ends."""
    return [
        qemu.BINARY, *qemu.hardware(Accelerator.kvm, memory=512), "-no-reboot",
        "-kernel", str(kernel), "-initrd", str(initrd),
        "-append", f"{qemu.PARAMETERS} rdinit=/bin/true panic=-1",
        "-serial", "stdio",
    ]  # fmt: skip


def boots(command: list[str], within: float = PROBE_WITHIN) -> bool:
    """Whether that guest shows the proof in time."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=within
        )
        shown = done.stdout
    except subprocess.TimeoutExpired as error:
        shown = error.stdout or b""
    except OSError as error:
        raise SandboxError(f"{command[0]} cannot be run: {error}") from None
    return PROOF.encode() in shown


def choose(folder: Path, memory: Path) -> tuple[Accelerator, str]:
    """The accelerator for a kernel, and why.

    Args:
        folder: with `vmlinuz` and `initrd`.
        memory: a JSON file of what was found before, by fingerprint of everything that decides.
    """
    kernel, initrd = folder / "vmlinuz", folder / "initrd"
    digest = hashlib.sha256(kernel.read_bytes()).hexdigest()
    key = fingerprint(qemu.version(), platform.release(), cpu_model(), digest)
    known = recall(memory)
    chosen, why = decide(
        os.access(DEVICE, os.R_OK | os.W_OK),
        known.get(key),
        lambda: boots(probe_command(kernel, initrd)),
    )
    if known.get(key) != chosen and os.access(DEVICE, os.R_OK | os.W_OK):
        write(memory, json.dumps(known | {key: chosen}, indent=2).encode(), 0o600)
    return chosen, why


def cpu_model() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return ""


def recall(memory: Path) -> dict[str, str]:
    """What earlier probes found; nothing from a file that cannot be read."""
    try:
        found = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    known = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in known if value in {*Accelerator}}
