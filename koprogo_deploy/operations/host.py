"""Host: packages, swap, sysctl, time, journal, updates, accounts, SSH."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from pyinfra import host
from pyinfra.api import StringCommand, deploy

from koprogo_deploy.facts.host import HostState
from koprogo_deploy.files import archive, differing, unpack_command
from koprogo_deploy.machine import RUN_FILE, SWAP_FILE, host_files, packages
from koprogo_deploy.operations import context
from koprogo_deploy.operations.looks import machine_now
from koprogo_deploy.operations.step import step
from koprogo_deploy.units import MB

APT = (
    "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "
    "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"
)

# What has to happen after a file changed, by the file's path.
_AFTER = {
    "/etc/sysctl.d/60-koprogo.conf": "sysctl -q -p /etc/sysctl.d/60-koprogo.conf",
    "/etc/systemd/journald.conf.d/60-koprogo.conf": "systemctl restart systemd-journald",
    RUN_FILE: f"systemd-tmpfiles --create {RUN_FILE}",
    # Reload, not restart: a bad file leaves the old daemon; live sessions go on.
    "/etc/ssh/sshd_config.d/00-koprogo.conf": "sshd -t && systemctl reload ssh",
}


def missing_packages(wanted: list[str], state: HostState) -> list[str]:
    """Those not installed yet."""
    return [package for package in wanted if package not in state.packages]


def install_command(missing: list[str], lists_fresh: bool) -> str:
    """One apt run for all missing packages; the lists are fetched when older than a day."""
    update = "" if lists_fresh else f"{APT} update && "
    return f"{update}{APT} install --no-install-recommends {' '.join(missing)}"


@step
def packages_installed(wanted: list[str]) -> Iterator[str]:
    """Install what is missing, in one apt run."""
    state = machine_now()
    missing = missing_packages(wanted, state)
    if missing:
        yield install_command(missing, state.apt_lists_fresh)
    else:
        host.noop("all packages are installed")


@step
def configured() -> Iterator[StringCommand | str]:
    """Accounts, files, sysctl, swap, time zone: what differs is mended, the rest left alone."""
    settings = context.current().settings
    files = host_files(settings)
    state = machine_now()
    for path in sorted(state.matches - {file.path for file in files}):
        # Of somebody who left the list: no key, no sudo. The account keeps its files.
        yield f"rm -f {shlex.quote(path)}"
    for name in sorted(set(settings.admin_users) - state.users):
        yield f"adduser --disabled-password --gecos '' {shlex.quote(name)}"
    changed = differing(files, state.files)
    if changed:
        yield StringCommand(unpack_command("/"), _stdin=archive(changed))
        for file in changed:
            if file.path in _AFTER:
                yield _AFTER[file.path]
    elif state.sysctl != settings.sysctl:
        yield _AFTER["/etc/sysctl.d/60-koprogo.conf"]
    if settings.swap and SWAP_FILE not in state.swap.split():
        yield swap_command(settings.swap)
    if state.timezone != settings.timezone:
        yield f"timedatectl set-timezone {shlex.quote(settings.timezone)}"
    if not changed:
        host.noop("the host is configured")


def swap_command(size: int) -> str:
    """Make the swap file once, mode 0600, and have it on after a reboot."""
    return (
        f"set -e; fallocate -l {size // MB}M {SWAP_FILE}.new; chmod 600 {SWAP_FILE}.new; "
        f"mkswap -q {SWAP_FILE}.new; mv {SWAP_FILE}.new {SWAP_FILE}; swapon {SWAP_FILE}; "
        f"grep -q '^{SWAP_FILE} ' /etc/fstab || echo '{SWAP_FILE} none swap sw 0 0' >> /etc/fstab"
    )


@deploy("Host")
def host_stage() -> None:
    """The machine under the engine."""
    settings = context.current().settings
    packages_installed(name="Install the host's packages", wanted=packages(settings))
    configured(name="Configure the host")
