"""A virtual machine's disks: a root file system made once of an image, and a configuration drive.

A disk is kept by the hash of the image it is made of, for every checkout of this user; each new
virtual machine starts from a copy.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from sandbox import registry
from sandbox.authority import write
from sandbox.client import SLOW, Docker, tail
from sandbox.console import SandboxError

SIZE = "20G"
PARTS = ("vmlinuz", "initrd", "disk.img")
MAKE = "/usr/local/sbin/koprogo-sandbox-make-disk"

Files = dict[str, tuple[bytes, int, int]]


def cache() -> Path:
    """Where made disks are kept: this user's, not one checkout's."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "koprogo-sandbox"


def made(tag: str) -> Path:
    """The folder of an image's disk; it is there whole or not at all."""
    return cache() / f"disk-{tag.rpartition(':')[2]}"


def build(docker: Docker, tag: str) -> bool:
    """Make the disk of an image unless it is there; True if it was made."""
    target = made(tag)
    if all((target / part).exists() for part in PARTS):
        return False
    cache().mkdir(mode=0o700, parents=True, exist_ok=True)
    for remains in cache().glob(f"{target.name}.*"):
        if not in_use(remains):
            shutil.rmtree(remains, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{target.name}.{os.getpid()}.", dir=cache()))
    try:
        export(docker, tag, scratch)
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def in_use(scratch: Path) -> bool:
    """Whether the process that a half-made disk is named after is still there."""
    number = scratch.name.split(".")[1]
    return number.isdigit() and Path(f"/proc/{number}").exists()


def export(docker: Docker, tag: str, target: Path) -> None:
    """Unpack an image and make a disk of it: by its own programs, as root in a container, so that
    owners are right and this user needs no rights beyond the engine's.
    """
    environment = {**os.environ, **docker.environment}
    container = docker.call("create", tag).stdout.strip()
    try:
        with subprocess.Popen(
            [docker.binary, "export", container], stdout=subprocess.PIPE, env=environment
        ) as source:
            owner = f"{os.getuid()}:{os.getgid()}"
            done = subprocess.run(
                [docker.binary, "run", "--rm", "--interactive", "--user", "0", "--network", "none",
                 "--volume", f"{target}:/out", tag, MAKE, SIZE, owner],
                stdin=source.stdout, capture_output=True, text=True, timeout=SLOW, env=environment,
            )  # fmt: skip
    finally:
        docker.call("rm", "--force", container, check=False)
    if done.returncode or source.returncode:
        raise SandboxError(
            f"no disk could be made of {tag}:\n{tail(done.stderr or done.stdout)}",
            f"{target.parent} needs 3 GB, and must be a folder of this machine's engine",
        )


def copy(tag: str, target: Path) -> None:
    """A copy of an image's disk, with its kernel; the holes stay holes.

    The disk comes last: where it is, everything is.
    """
    target.mkdir(mode=0o700, exist_ok=True)
    for part in PARTS:
        scratch = target / f"{part}.new"
        done = subprocess.run(
            ["cp", "--sparse=always", "--reflink=auto", str(made(tag) / part), str(scratch)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SandboxError(f"the disk could not be copied:\n{tail(done.stderr)}")
        scratch.replace(target / part)


def furnishing(first: Files, always: Files) -> bytes:
    """The configuration drive, a tar: what the guest takes at its first boot, and at each one."""
    files = {f"first/{path}": file for path, file in first.items()}
    return registry.archive(files | {f"always/{path}": file for path, file in always.items()})


def write_furnishing(path: Path, first: Files, always: Files) -> None:
    """Write the drive; it holds the host's private key."""
    write(path, furnishing(first, always), 0o600)


def purge() -> None:
    """Forget every made disk, and what was found out about this machine."""
    shutil.rmtree(cache(), ignore_errors=True)
