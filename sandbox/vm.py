"""The virtual machine: how it is furnished, started, rebooted, and known to let the user in.

The registry is the box's, and its container is reached at its own address: QEMU's user network
opens each connection of the guest from this machine, where Docker's bridge is. So the name stands
for `<network>.2:5000` in both kinds, whatever port the registry is published on and however often
it restarts; nothing in the guest's firewall has a part in it.

Forwarded ports say nothing of a port that is closed: QEMU takes the connection before it asks the
guest. Where this user may make one, a second interface in the sandbox's own network gives the
machine the address that a box has, and a look for open ports sees what is there.
"""

import os
import shlex
import subprocess
from pathlib import Path

from sandbox import accelerator, box, disk, machine, qemu, registry
from sandbox.client import Docker, tail
from sandbox.console import SandboxError
from sandbox.disk import Files
from sandbox.parts import BOX, REGISTRY
from sandbox.qemu import Accelerator
from sandbox.state import Sandbox, State

# Seconds to boot, and how much slower than a box it is; both with a busy machine in mind.
BOOT_WITHIN = {Accelerator.kvm: 120.0, Accelerator.tcg: 900.0}
PATIENCE = {Accelerator.kvm: 1.0, Accelerator.tcg: 10.0}
POWER_OFF_WITHIN = 300.0
TUN = Path("/dev/net/tun")
DEVICES = Path("/sys/class/net")


def first(sandbox: Sandbox) -> Files:
    """What a provider puts in at first boot, as into the box."""
    return box.furnishing(sandbox)


def always(sandbox: Sandbox, prefix: str) -> Files:
    """What may change from one `up` to the next: addresses and the registry's authority."""
    hosts = f"127.0.0.1 localhost\n127.0.1.1 vps\n{prefix}.{REGISTRY} {registry.HOST}\n"
    return {
        "etc/hosts": (hosts.encode(), 0o644, 0),
        # For this machine's own resolver, also one that listens on loopback.
        "etc/resolv.conf": (f"nameserver {qemu.RESOLVER}\n".encode(), 0o644, 0),
        "etc/systemd/network/eth1.network": (second_interface(prefix).encode(), 0o644, 0),
        **box.trust(sandbox),
    }


def second_interface(prefix: str) -> str:
    """What the guest's systemd-networkd does with an interface in the sandbox's network."""
    return (
        f"[Match]\nName=eth1\n\n[Link]\nRequiredForOnline=no\n\n"
        f"[Network]\nAddress={prefix}.{BOX}/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    )


def there(sandbox: Sandbox) -> bool:
    """Whether a virtual machine has been made, running or not."""
    return (sandbox.vm / "disk.img").exists() or qemu.running(sandbox) is not None


def prepare(sandbox: Sandbox, tag: str, prefix: str) -> bool:
    """Its disks, before it starts; True if the root disk is new."""
    new = not (sandbox.vm / "disk.img").exists()
    if new:
        disk.copy(tag, sandbox.vm)
    disk.write_furnishing(sandbox.vm / "furnishing.img", first(sandbox), always(sandbox, prefix))
    return new


def choose_accelerator(sandbox: Sandbox) -> tuple[Accelerator, str]:
    """What runs it, and why."""
    disk.cache().mkdir(mode=0o700, parents=True, exist_ok=True)
    return accelerator.choose(sandbox.vm, disk.cache() / "accelerator.json")


def connect(docker: Docker, sandbox: Sandbox) -> bool:
    """Have a device in the sandbox's network for the machine's second interface, if we may."""
    if not os.access(TUN, os.R_OK | os.W_OK):
        return False
    name, (network,) = sandbox.tap, docker.inspect("network", sandbox.network)
    bridge = f"br-{network['Id'][:12]}"
    try:
        if not (DEVICES / name).exists():
            machine.as_root(
                "ip", "tuntap", "add", "dev", name, "mode", "tap", "user", str(os.getuid()),
                why=f"making the device {name}",
            )  # fmt: skip
        if not (DEVICES / bridge / "brif" / name).exists():
            machine.as_root(
                "ip", "link", "set", "dev", name, "master", bridge, "up",
                why=f"connecting {name} to {bridge}",
            )  # fmt: skip
    except (SandboxError, FileNotFoundError):
        return False
    return True


def disconnect(sandbox: Sandbox) -> bool:
    """Remove that device; False if there is none."""
    if not (DEVICES / sandbox.tap).exists():
        return False
    machine.as_root("ip", "link", "delete", "dev", sandbox.tap, why=f"removing {sandbox.tap}")
    return True


def start(sandbox: Sandbox, state: State) -> None:
    """Start it as its state says, on a CPU of its own where there are two or more."""
    ports = {name: getattr(state, f"{name}_port") for name in qemu.INNER}
    link = sandbox.tap if state.box_address else ""
    chosen = Accelerator(state.accelerator)
    qemu.start(sandbox, qemu.command_line(sandbox, chosen, ports, link))
    if pinned := box.cpus():
        qemu.pin(sandbox, pinned[0])


# Its RTC is this machine's clock. Its own goes slow where QEMU gets too little of the processor,
# and there may be no NTP server to be reached: minutes in an hour were seen.
_ON_TIME = """now=$(cat /sys/class/rtc/rtc0/since_epoch) && off=$((now - $(date +%s)))
[ "${off#-}" -lt 3 ] || date -s "@$now" >/dev/null"""


def set_clock(state: State) -> None:
    """Set its clock by this machine's, where it is off by seconds.

    Raises:
        SandboxError: it does not answer, or does not take it.
    """
    asked = f"sudo sh -c {shlex.quote(_ON_TIME)}"
    done = box.ssh(state, asked, timeout=20 * PATIENCE[Accelerator(state.accelerator)])
    if done.returncode:
        raise SandboxError(f"the machine's clock could not be set:\n{tail(done.stderr)}")


def refresh(sandbox: Sandbox, state: State, prefix: str) -> None:
    """The same for one that runs: over SSH, since it reads its drive at boot alone."""
    try:
        done = subprocess.run(
            ["ssh", "-F", state.ssh_config, "-o", "BatchMode=yes", "vps",
             "sudo sh -c 'tar -x -C / -f - && networkctl reload'"],
            input=registry.archive(always(sandbox, prefix)), capture_output=True,
            timeout=20 * PATIENCE[Accelerator(state.accelerator)],
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise SandboxError("the machine does not answer over SSH", "run it again") from None
    if done.returncode:
        raise SandboxError(f"the addresses could not be written:\n{tail(done.stderr.decode())}")


def wait(sandbox: Sandbox, state: State) -> None:
    """Wait until it has booted and lets the user in."""

    def ended() -> str | None:
        if qemu.running(sandbox):
            return None
        return f"QEMU ended while the machine booted:\n{console(sandbox)}"

    runs_by = Accelerator(state.accelerator)
    hint = f"see: {sandbox.vm / 'console.log'}; python -m sandbox logs"
    box.await_login(state, BOOT_WITHIN[runs_by], ended, hint, PATIENCE[runs_by])


def console(sandbox: Sandbox) -> str:
    """The last lines of its serial console."""
    try:
        return tail((sandbox.vm / "console.log").read_text(errors="replace"), 15)
    except OSError:
        return ""


def restart(sandbox: Sandbox, state: State, *, hard: bool) -> None:
    """Reboot: by the power button, with a clean stop before it; or by the reset button.

    The latter loses the guest's page cache, as it does on a real machine.

    Raises:
        SandboxError: it is off, or does not stop.
    """
    pid = qemu.running(sandbox)
    if pid is None:
        raise SandboxError("the virtual machine is off", "run: python -m sandbox up")
    with qemu.monitor(sandbox) as session:
        session.execute("system_reset" if hard else "system_powerdown")
    if hard:
        return
    if not qemu.gone(pid, sandbox.vps, POWER_OFF_WITHIN):
        raise SandboxError(
            f"the machine did not stop within {POWER_OFF_WITHIN:.0f} s of its power button",
            "run: python -m sandbox reboot --hard",
        )
    start(sandbox, state)


def limits(state: State) -> tuple[int, int]:
    """CPUs and bytes of memory that its kernel has."""
    asked = "nproc; grep ^MemTotal: /proc/meminfo"
    done = box.ssh(state, asked, timeout=20 * PATIENCE[Accelerator(state.accelerator)])
    try:
        cpus, _, kilobytes, _ = done.stdout.split()
        return int(cpus), int(kilobytes) * 1024
    except ValueError:
        raise SandboxError(f"the machine did not say: {done.stderr.strip()}") from None


def journal(state: State, options: list[str], *, terminal: bool) -> list[str]:
    """The command that shows its journal, over SSH: it has no other door."""
    line = shlex.join(["sudo", "journalctl", "--no-pager", *options])
    return ["ssh", "-F", state.ssh_config, *(["-t"] if terminal else []), "vps", line]
