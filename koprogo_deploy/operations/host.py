"""Host: packages, swap, sysctl, time, journal, updates, accounts, SSH."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace

from pyinfra import host
from pyinfra.api import StringCommand, deploy

from koprogo_deploy import accounts
from koprogo_deploy.accounts import Account
from koprogo_deploy.facts.host import HostState
from koprogo_deploy.files import RemoteFile, archive, differing, unpack_command
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
}
_BESIDE = ".new"  # neither sudo nor sshd reads a file of this name


def staged(file: RemoteFile) -> RemoteFile:
    """A file as it is pushed: beside its place, where a wrong one would lock somebody out."""
    return replace(file, path=f"{file.path}{_BESIDE}") if _place(file.path) else file


def _place(path: str) -> str:
    """Shell that checks such a file and puts it into its place; empty for all others."""
    new, old = shlex.quote(f"{path}{_BESIDE}"), shlex.quote(path)
    if path.startswith(accounts.SUDOERS):
        return f"visudo -cqf {new} && mv -T {new} {old} || {{ rm -f {new}; exit 1; }}"
    if path.startswith(accounts.KEYS):
        return f"mv -T {new} {old}"
    return place_sshd_command(path) if path == accounts.SSHD_FILE else ""


def place_sshd_command(path: str, main: str = "/etc/ssh/sshd_config") -> str:
    """Put sshd's new configuration, which lies beside, into its place, and have sshd read it.

    It is checked as a part of the whole first, with every other file that sshd reads, and looked
    at whether it is in force there. Where sshd does not take it the old file is back. It is
    reloaded, not restarted: live sessions go on. One that a socket starts may not run yet.

    Args:
        path: of the file, in the directory that the main configuration includes.
        main: the main configuration.
    """
    folder = path.rpartition("/")[0]
    included = folder.rpartition("/")[2].replace(".", r"\.")
    words = f"s,({folder.rpartition('/')[0]}/)?{included}/,$t/d/,g"
    return f"""set -e
new={shlex.quote(path + _BESIDE)}; file={shlex.quote(path)}; main={shlex.quote(main)}
t=$(mktemp -d); trap 'rm -rf "$t" "$new"' EXIT
cp -a {shlex.quote(folder)} "$t/d"; rm -f "$t/d/${{new##*/}}"; cp -a "$new" "$t/d/${{file##*/}}"
sed -E "/^[[:space:]]*[Ii][Nn][Cc][Ll][Uu][Dd][Ee]/{words}" "$main" > "$t/main"
sshd -t -f "$t/main" || {{ echo "sshd refuses the new $file; the old one stays" >&2; exit 1; }}
sshd -T -f "$t/main" | grep -qix 'passwordauthentication no' || {{
  echo "$file would not be in force: $main does not include it, or says otherwise before" >&2
  exit 1
}}
[ ! -e "$file" ] || cp -a "$file" "$t/old"
mv -T "$new" "$file"
systemctl try-reload-or-restart ssh || {{
  if [ -e "$t/old" ]; then cp -a "$t/old" "$new" && mv -T "$new" "$file"; else rm -f "$file"; fi
  systemctl try-reload-or-restart ssh || :
  echo "sshd did not take $file; it is as it was" >&2; exit 1
}}"""


def missing_packages(wanted: list[str], state: HostState) -> list[str]:
    """Those not installed yet."""
    return [package for package in wanted if package not in state.packages]


def install_command(missing: list[str], lists_fresh: bool) -> str:
    """One apt run for all missing packages; the lists are fetched when older than a day."""
    update = "" if lists_fresh else f"{APT} update && "
    return f"{update}{APT} install --no-install-recommends -- {shlex.join(missing)}"


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
    """Accounts, files, sysctl, swap, time zone: what differs is mended, the rest left alone.

    Whoever leaves is out before anything else is done. Whoever comes or stays has a key in the new
    place before sshd looks there, and keeps the one in an old place until it does.
    """
    settings = context.current().settings
    files = host_files(settings)
    state = machine_now()
    wanted, found = settings.admin_users, state.accounts
    for name in accounts.leaving(wanted, found):
        yield accounts.leave_command(name)
    needless = sorted(state.matches - {file.path for file in files})
    former = [path for path in needless if path.startswith(f"{accounts.FORMER_KEYS}/")]
    for path in sorted(set(needless) - set(former)):
        yield f"rm -f {shlex.quote(path)}"
    changed = differing(files, state.files)
    if changed:
        yield StringCommand(unpack_command("/"), _stdin=archive([staged(f) for f in changed]))
    placed = {file.path: _place(file.path) for file in changed}
    sshd = placed.pop(accounts.SSHD_FILE, "")
    for command in placed.values():
        if command:
            yield command
    yield from _accounts(wanted, found)
    if sshd:
        yield sshd
    for path in former:
        yield f"rm -f {shlex.quote(path)}"
    for file in changed:
        if file.path in _AFTER:
            yield _AFTER[file.path]
    if not changed and state.sysctl != settings.sysctl:
        yield _AFTER["/etc/sysctl.d/60-koprogo.conf"]
    if settings.swap and SWAP_FILE not in state.swap.split():
        yield swap_command(settings.swap)
    if state.timezone != settings.timezone:
        yield f"timedatectl set-timezone {shlex.quote(settings.timezone)}"
    if not changed:
        host.noop("the host is configured")


def _accounts(wanted: Mapping[str, object], found: Mapping[str, Account]) -> Iterator[str]:
    new, joining = accounts.new(wanted, found), accounts.joining(wanted, found)
    if new or joining:
        yield f"getent group {accounts.GROUP} >/dev/null || groupadd --system {accounts.GROUP}"
    for name in new:
        yield accounts.make_command(name)
    for name in joining:
        yield accounts.join_command(name)
    for name in accounts.returning(wanted, found):
        yield accounts.return_command(name)


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
