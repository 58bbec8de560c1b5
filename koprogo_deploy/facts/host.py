"""Facts about the machine: one command gathers all that a stage compares."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from pyinfra.api import FactBase, StringCommand

from koprogo_deploy import accounts
from koprogo_deploy.accounts import Account
from koprogo_deploy.settings import spaced

# Prints "key<TAB>value…" lines. The memory limit is searched upwards from init's own cgroup: on a
# VPS there is none, in the sandbox it is the box's.
_SCRIPT = r"""
. /etc/os-release; printf 'os\t%s\t%s\n' "$ID" "${VERSION_ID:-}"
printf 'arch\t%s\n' "$(uname -m)"
printf 'memtotal\t%s\n' "$(awk '/^MemTotal/ {printf "%.0f", $2 * 1024}' /proc/meminfo)"
for line in $(grep -E ':memory:|^0::' /proc/1/cgroup); do
  path=${line#*:*:}
  while [ -n "$path" ]; do
    for file in "/sys/fs/cgroup/memory$path/memory.limit_in_bytes" "/sys/fs/cgroup$path/memory.max"
    do [ -r "$file" ] && printf 'limit\t%s\n' "$(cat "$file")"; done
    path=${path%/*}
  done
done
printf 'disk\t%s\n' "$(df -PB1 / | awk 'NR==2 {print $2 "\t" $4}')"
for directory in /var/lib/docker /var/lib; do
  [ -d "$directory" ] || continue
  printf 'images\t%s\n' "$(df -PB1 "$directory" | awk 'NR==2 {print $4}')"; break
done
data=/var/lib/docker/volumes/koprogo_postgres_data/_data
[ -d $data/base ] && printf 'database\t%s\t%s\n' \
  "$(du -sB1 $data/base | cut -f1)" "$(df -PB1 $data | awk 'NR==2 {print $4}')"
printf 'swap\t%s\n' "$(awk 'NR>1 {print $1}' /proc/swaps | tr '\n' ' ')"
printf 'timezone\t%s\n' "$(readlink -f /etc/localtime)"
printf 'lists\t%s\n' "$(find /var/lib/apt/lists -name '*_Packages*' -mmin -1440 | head -n 1)"
# Postgres' own directory: it could have a link or a pipe of that name.
[ -f $data/PG_VERSION ] && [ ! -L $data/PG_VERSION ] && printf 'pgversion\t%s\n' \
  "$(timeout 5 head -c 8 $data/PG_VERSION | tr -cd '0-9.')"
"""


@dataclass
class HostState:
    """The machine as it is.

    Attributes:
        memory: bytes the kernel really gives: RAM, or a smaller limit around the whole system.
        disk_free: bytes on the root file system, or on the one that holds images if it has less.
        database: bytes that the databases take.
        data_free: bytes on the file system where they lie; 0 where there are none.
        clock: seconds since 1970 by the host's clock.
        read: the same by our own, when the host had told its.
        files: `sha256 mode owner:group` by path, for those that exist.
        packages: installed ones of those asked for.
        sysctl: values of those asked for.
        units: `active enabled` of each systemd unit asked for.
        accounts: by name those that exist of those asked for, and those that are or were ours.
        matches: files that match the patterns asked for, and keys where earlier versions put them.
        loose: folders from the install root upwards in which others than root may write.
        connected: the account that asks, before sudo.
        own_keys: lines of its own authorized_keys.
        other_logins: accounts that nobody here knows of, and that keys of their own let in.
    """

    os: str = ""
    os_version: str = ""
    architecture: str = ""
    memory: int = 0
    disk_size: int = 0
    disk_free: int = 0
    database: int = 0
    data_free: int = 0
    clock: int = 0
    read: int = 0
    swap: str = ""
    timezone: str = ""
    apt_lists_fresh: bool = False
    postgres_version: str = ""
    files: dict[str, str] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)
    sysctl: dict[str, str] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    matches: set[str] = field(default_factory=set)
    loose: list[str] = field(default_factory=list)
    connected: str = ""
    own_keys: int = 0
    other_logins: list[str] = field(default_factory=list)


def parse(lines: Iterable[str]) -> HostState:
    """Read the script's output. Unknown lines are an error: they mean a broken script."""
    state = HostState()
    limits = []
    for line in lines:
        key, *values = line.split("\t")
        value = values[0] if values else ""
        match key:
            case "os":
                state.os, state.os_version = values[0], values[1]
            case "arch":
                state.architecture = value
            case "memtotal":
                limits.append(int(value))
            case "limit":
                if value.isdigit():
                    limits.append(int(value))
            case "disk":
                state.disk_size, state.disk_free = int(values[0]), int(values[1])
            case "images":
                state.disk_free = min(state.disk_free, int(value))
            case "database":
                state.database, state.data_free = int(values[0]), int(values[1] or 0)
            case "clock":
                state.clock = int(value)
            case "swap":
                state.swap = value.strip()
            case "timezone":
                state.timezone = value.removeprefix("/usr/share/zoneinfo/")
            case "lists":
                state.apt_lists_fresh = bool(value)
            case "pgversion":
                state.postgres_version = value
            case "file":
                state.files[values[0]] = " ".join(values[1:])
            case "package":
                state.packages.add(value)
            case "sysctl":
                state.sysctl[values[0]] = spaced(" ".join(values[1:]))
            case "unit":
                state.units[values[0]] = values[1]
            case "account":
                name, account = accounts.parse(values)
                state.accounts[name] = account
            case "connected":
                state.connected, state.own_keys = values[0], int(values[1] or 0)
            case "loose":
                state.loose.append(value)
            case "login":
                state.other_logins.append(value)
            case "match":
                state.matches.add(value)
            case _:
                raise ValueError(f"unexpected output of the host fact: {line!r}")
    state.memory = min(limits)
    return state


class Host(FactBase[HostState]):
    """Gather `HostState` in one remote command."""

    def command(
        self,
        files: tuple[str, ...] = (),
        packages: tuple[str, ...] = (),
        sysctl: tuple[str, ...] = (),
        units: tuple[str, ...] = (),
        users: tuple[str, ...] = (),
        patterns: tuple[str, ...] = (),
        root: str = "",
    ) -> StringCommand:
        """The script, and a loop for each kind of thing asked for."""
        parts = [_SCRIPT]
        if files:
            parts.append(
                f"for f in {_words(files)}; do [ -f \"$f\" ] && printf 'file\\t%s\\t%s\\t%s\\n' "
                '"$f" "$(sha256sum < "$f" | cut -c1-64)" "$(stat -c \'%a %U:%G\' "$f")"; done'
            )
        if packages:
            parts.append(
                "dpkg-query -W -f '${Package}\\t${db:Status-Abbrev}\\n' "
                f'{_words(packages)} 2>/dev/null | awk \'$2 == "ii" {{print "package\\t" $1}}\''
            )
        if sysctl:
            parts.append(
                f"for k in {_words(sysctl)}; do "
                'printf \'sysctl\\t%s\\t%s\\n\' "$k" "$(sysctl -n "$k" 2>/dev/null)"; done'
            )
        if units:
            parts.append(
                f"for u in {_words(units)}; do printf 'unit\\t%s\\t%s %s\\n' \"$u\" "
                '"$(systemctl is-active "$u" 2>/dev/null)" '
                '"$(systemctl is-enabled "$u" 2>/dev/null)"; done'
            )
        parts.append(accounts.look(users))
        # As they are now; those that are not there yet are made by root.
        parts.append(
            f'd={shlex.quote(root)}; while [ -n "$d" ]; do '
            '[ -z "$(find -H "$d" -maxdepth 0 \\( ! -uid 0 -o -perm /022 \\) 2>/dev/null)" ] || '
            "printf 'loose\\t%s\\n' \"$d\"; d=${d%/*}; done"
        )
        if patterns:
            # Ours, not quoted: the shell expands them.
            parts.append(
                f'for f in {" ".join(patterns)}; do [ -e "$f" ] && '
                "printf 'match\\t%s\\n' \"$f\"; done"
            )
        # Last, and read as it comes: on a slow host all of this takes a minute.
        parts.append("printf 'clock\\t%s\\n' \"$(date +%s)\"")
        return StringCommand("\n".join(parts))

    def process(self, output: list[str]) -> HostState:
        """Parse the lines, and note when they came."""
        return replace(parse(output), read=int(time.time()))


class Certificates(FactBase[bool]):
    """Whether the proxy on the host has a certificate for each of two names."""

    def command(self, names: tuple[str, str]) -> StringCommand:
        """Counts the names for which a TLS handshake succeeds; whose certificate is not asked."""
        return StringCommand(
            f"n=0; for d in {_words(names)}; do curl -sko /dev/null -m 5 "
            '--resolve "$d:443:127.0.0.1" "https://$d/" && n=$((n+1)); done; echo $n'
        )

    def process(self, output: list[str]) -> bool:
        """Both of them."""
        return output[-1:] == ["2"]


def _words(words: Iterable[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)
