"""What the box inherits from this machine: read when it runs, never put into the repository."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sandbox.console import SandboxError

SUITE = "trixie"
DEFAULT_SOURCES = (
    ("http://deb.debian.org/debian", SUITE, "main"),
    ("http://deb.debian.org/debian", f"{SUITE}-updates", "main"),
    ("http://deb.debian.org/debian-security", f"{SUITE}-security", "main"),
)
# Administrators put their own authorities here (Debian, Fedora).
AUTHORITY_DIRECTORIES = ("/usr/local/share/ca-certificates", "/etc/pki/ca-trust/source/anchors")
# How apt reaches its mirrors. Not what it does with packages: that is the box's own business.
APT_KEYS = re.compile(
    r"^Acquire::(https?::|ftp::|Retries|Check-Valid-Until|Check-Date|ForceIPv[46]|Languages)"
)
# These name files and programs of this machine which the box does not have.
APT_LOCAL = re.compile(r"(CAInfo|CAPath|CRLFile|Ssl(Cert|Key)|Auto-?Detect)", re.IGNORECASE)
PROXY_VARIABLES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")


def output(*command: str) -> str:
    """The standard output of a command, empty if it is missing or fails."""
    if not shutil.which(command[0]):
        return ""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.stdout if done.returncode == 0 else ""


def as_root(*command: str, why: str, timeout: float = 900.0) -> None:
    """Run a command as root, by sudo if need be; if that cannot be, say what to run by hand."""
    by_hand = "sudo " + " ".join(command)
    prefix: tuple[str, ...] = ()
    if os.geteuid() != 0:
        if subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode:
            raise SandboxError(f"{why} needs root, and sudo asks for a password", f"run: {by_hand}")
        prefix = ("sudo", "-n")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        [*prefix, *command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment,
        timeout=timeout,
    )
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise SandboxError(f"{why} failed:\n{last}", f"run: {by_hand}")


def apt_install(*packages: str) -> None:
    """Install Debian packages on this machine."""
    if not shutil.which("apt-get"):
        raise SandboxError(
            f"{' and '.join(packages)} not found and there is no apt-get here",
            "install that by your system's own means, start it if it is Docker, and run `up` again",
        )
    as_root("apt-get", "update", "-qq", why="refreshing the package lists")
    as_root(
        "apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages,
        why=f"installing {' '.join(packages)}",
    )  # fmt: skip


@dataclass(frozen=True)
class Inheritance:
    """Package sources, apt configuration and authorities, ready to be written into an image."""

    sources: str
    apt_configuration: str
    authorities: dict[str, str]

    def files(self) -> dict[str, str]:
        """Relative path -> text, as the base image's context wants them."""
        return {
            "sources.list": self.sources,
            "apt.conf": self.apt_configuration,
            "ca-certificates/.keep": "",
            **{f"ca-certificates/{name}": text for name, text in self.authorities.items()},
        }


def codename() -> str:
    """The machine's own Debian release, e.g. `bookworm`; empty on anything else."""
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        return ""
    if not re.search(r"^ID=\"?debian\"?$", text, re.MULTILINE):
        return ""
    found = re.search(r"^VERSION_CODENAME=(\S+)", text, re.MULTILINE)
    return found.group(1).strip('"') if found else ""


# What `apt-get update` would fetch: '<mirror>/dists/<suite>/<component>/binary-…/Packages…' …
_PACKAGE_LIST = re.compile(
    r"'(?P<mirror>\S+?)/*/dists/(?P<suite>\S+?)/(?P<component>[^/]+)/binary-"
)


def sources() -> str:
    """This machine's Debian mirrors with its suite replaced by trixie, else Debian's own."""
    # Asked of the configuration alone: `apt-get indextargets` knows nothing before the first
    # `apt-get update`, and an answer that changes then would have every image built again.
    listing = output(
        "apt-get", "-o", "Dir::State::lists=/nonexistent", "--print-uris", "update"
    )  # fmt: skip
    return trixie_sources(listing, codename())


def trixie_sources(listing: str, own: str) -> str:
    """The sources of the box from what `apt-get --print-uris update` says. Pure.

    Args:
        listing: its output; empty where there is no apt.
        own: the machine's own Debian release; empty on anything else.
    """
    lines: list[str] = []
    for found in _PACKAGE_LIST.finditer(listing) if own else ():
        mirror, suite = found["mirror"], found["suite"]
        if found["component"] != "main" or not re.fullmatch(rf"{own}(-updates|-security)?", suite):
            continue
        entry = f"deb {mirror} {SUITE}{suite[len(own) :]} main"
        if entry not in lines:
            lines.append(entry)
    if not any(f" {SUITE} main" in line for line in lines):
        lines = [f"deb {uri} {suite} {component}" for uri, suite, component in DEFAULT_SOURCES]
    return "\n".join(lines) + "\n"


def apt_configuration() -> str:
    """How apt on this machine reaches its mirrors: proxies, retries, date checks."""
    kept = [
        line
        for line in output("apt-config", "dump").splitlines()
        if APT_KEYS.match(line) and not APT_LOCAL.search(line) and not line.endswith(' "";')
    ]
    return "\n".join(kept) + "\n" if kept else ""


def authorities() -> dict[str, str]:
    """Certificates an administrator has added to this machine (a company proxy's, usually)."""
    found: dict[str, str] = {}
    for directory in AUTHORITY_DIRECTORIES:
        for path in sorted(Path(directory).rglob("*")):
            if path.suffix in {".crt", ".pem"} and path.is_file():
                # update-ca-certificates reads `.crt` only.
                found[f"{path.stem}.crt"] = path.read_text(errors="replace")
    return found


def inherit() -> Inheritance:
    """Read it all."""
    return Inheritance(sources(), apt_configuration(), authorities())


def proxies() -> dict[str, str]:
    """Proxy variables of this session, under both spellings programs look for."""
    found: dict[str, str] = {}
    for name in PROXY_VARIABLES:
        value = os.environ.get(name) or os.environ.get(name.upper())
        if value:
            found[name] = found[name.upper()] = value
    return found


def resolvers() -> list[str]:
    """Name servers a container can reach: loopback ones stay on this machine."""
    found: list[str] = []
    # systemd-resolved's stub is on loopback; the servers behind it are listed there.
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        try:
            text = Path(path).read_text()
        except OSError:
            continue
        for server in re.findall(r"^nameserver\s+(\S+)", text, re.MULTILINE):
            if not server.startswith("127.") and server != "::1" and server not in found:
                found.append(server)
    return found
