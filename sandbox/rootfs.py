"""The base image: Debian 13 from the machine's own mirrors, or from a public registry."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from sandbox import machine
from sandbox.client import SLOW, Docker, tail
from sandbox.console import SandboxError

SUITE = machine.SUITE
PUBLIC = "debian:13"


def bootstrap(docker: Docker, tag: str, label: str, inherited: machine.Inheritance) -> str:
    """Unpack Debian with mmdebstrap and import it."""
    if not shutil.which("mmdebstrap"):
        machine.apt_install("mmdebstrap", "debian-archive-keyring")
    # Under /var/tmp: /tmp may be a small tmpfs.
    with tempfile.TemporaryDirectory(prefix="koprogo-sandbox-", dir="/var/tmp") as scratch:
        work = Path(scratch)
        (work / "sources.list").write_text(inherited.sources)
        (work / "apt.conf").write_text(inherited.apt_configuration)
        tarball = work / "root.tar"
        command = [
            "mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates",
            f"--aptopt={work / 'apt.conf'}", SUITE, str(tarball), str(work / "sources.list"),
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=SLOW
        )
        if done.returncode or not tarball.exists():
            raise SandboxError(
                f"mmdebstrap failed:\n{tail(done.stderr)}",
                "run as root, or allow user namespaces (mmdebstrap --mode=unshare)",
            )
        docker.call("import", "--change", f"LABEL {label}", str(tarball), tag, timeout=SLOW)
    return "mmdebstrap"


def pull(docker: Docker, tag: str) -> str:
    """Take Debian's official image."""
    docker.call("pull", "--quiet", PUBLIC, timeout=SLOW)
    docker.call("tag", PUBLIC, tag)
    return f"docker pull {PUBLIC}"


def build(docker: Docker, tag: str, label: str, inherited: machine.Inheritance) -> str:
    """Make the raw root filesystem; where one way fails the other one is tried."""
    ways: list[Callable[[], str]] = [
        lambda: bootstrap(docker, tag, label, inherited),
        lambda: pull(docker, tag),
    ]
    if not shutil.which("apt-get"):
        ways.reverse()
    reasons: list[str] = []
    for way in ways:
        try:
            return way()
        except SandboxError as error:
            reasons.append(str(error) + (f"\n{error.hint}" if error.hint else ""))
    raise SandboxError("no Debian 13 root filesystem could be made:\n" + "\n".join(reasons))
