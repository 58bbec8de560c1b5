"""Accounts of administrators: which of the host's are managed, who comes, and who leaves. Pure.

An account is managed once it is in a group of its own. sshd takes the keys of that group from a
directory of root's alone, so that a key in somebody's own `~/.ssh` opens nothing; and who leaves
`admin_users` stays in the group, locked. The account that a deploy connects with was there before
and is not managed: it keeps its own `authorized_keys`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from koprogo_deploy.problems import Problem

GROUP = "koprogo-admins"
KEYS = "/etc/ssh/koprogo-keys.d"
SUDOERS = "/etc/sudoers.d/60-koprogo-"
FORMER_KEYS = "/etc/ssh/authorized_keys.d"  # where earlier versions put the keys
SSHD_FILE = "/etc/ssh/sshd_config.d/00-koprogo.conf"
FILES = (f"{SUDOERS}*", f"{KEYS}/*")  # all of them ours, whoever's they are

# Ways of authentication that sshd does not offer any more afterwards.
_CLOSED_METHODS = ("password", "keyboard-interactive", "none")
_LOCKED = "1"  # day of expiry in /etc/shadow, counted from 1970


@dataclass(frozen=True)
class Account:
    """An account on the host that `admin_users` names, or that is or was ours.

    Attributes:
        managed: it is in our group.
        marked: it is not, but has sudo by a file of ours: an earlier version made it, or a run
            was interrupted in between.
        locked: it has expired, and its password is locked.
        remains: of one that `admin_users` does not name: a process, a crontab, a job of at or
            lingering.
    """

    managed: bool = False
    marked: bool = False
    locked: bool = False
    remains: bool = False

    @property
    def ours(self) -> bool:
        """Whether it is ours to lock."""
        return self.managed or self.marked


@dataclass(frozen=True)
class Arrival:
    """How a run came to the host.

    Attributes:
        method: `publickey`, `password` or another one of SSH's; `local` on the host itself.
        key: the public key as authorized_keys has it, without a comment; empty if not known.
    """

    method: str
    key: str = ""


def parse(values: list[str]) -> tuple[str, Account]:
    """Read one line of `look`: name, group or mark, day of expiry, what remains."""
    name, kind, expiry, remains = values
    return name, Account(
        managed=kind == "managed",
        marked=kind == "marked",
        locked=expiry == _LOCKED,
        remains=remains == "remains",
    )


def look(names: Iterable[str]) -> str:
    """Shell that prints each account that we know something of, and files of an earlier version.

    Args:
        names: those of `admin_users`.
    """
    return f"""{_REMAINS}
listed={shlex.quote(f" {' '.join(names)} ")}
members=$(getent group {GROUP} | cut -d: -f4 | tr , ' ')
marks=$(for f in {SUDOERS}*; do [ -e "$f" ] && printf '%s\\n' "${{f#{SUDOERS}}}"; done)
for u in $(printf '%s\\n' $listed $members $marks | sort -u); do
  id -- "$u" >/dev/null 2>&1 || continue
  kind=foreign
  [ ! -e "{SUDOERS}$u" ] || kind=marked
  case " $members " in *" $u "*) kind=managed;; esac
  left=
  case "$listed" in *" $u "*) ;; *) ! remains "$u" || left=remains;; esac
  printf 'account\\t%s\\t%s\\t%s\\t%s\\n' \\
    "$u" $kind "$(getent shadow -- "$u" 2>/dev/null | cut -d: -f8)" $left
  [ $kind = foreign ] || [ ! -e "{FORMER_KEYS}/$u" ] || printf 'match\\t%s\\n' "{FORMER_KEYS}/$u"
done
who=${{SUDO_USER:-$(id -un)}}; home=$(getent passwd -- "$who" | cut -d: -f6)
printf 'connected\\t%s\\t%s\\n' "$who" \\
  "$(grep -csv '^ *\\(#\\|$\\)' "$home/.ssh/authorized_keys")"
{_OTHER_LOGINS}"""


# Whoever has expired is not let in by sshd, whatever their keys.
_OTHER_LOGINS = r"""
today=$(($(date +%s) / 86400)); known=" $(printf '%s ' $listed $members $marks)"
getent passwd | while IFS=: read -r u _ uid _ _ home shell; do
  [ "$uid" -ge 1000 ] && [ "$uid" -lt 65534 ] && [ "$u" != "$who" ] || continue
  case "$shell" in */nologin | */false) continue ;; esac
  case "$known" in *" $u "*) continue ;; esac
  grep -qsv '^ *\(#\|$\)' "$home/.ssh/authorized_keys" "$home/.ssh/authorized_keys2" || continue
  end=$(getent shadow -- "$u" 2>/dev/null | cut -d: -f8)
  [ -n "$end" ] && [ "$end" -le "$today" ] || printf 'login\t%s\n' "$u"
done"""


# A container's processes may have the same number as somebody's account: only those in the host's
# own PID namespace are looked at.
_REMAINS = r"""
init=$(readlink /proc/1/ns/pid)
processes() {
  for p in $(find /proc -maxdepth 1 -name '[0-9]*' -user "$1" 2>/dev/null); do
    [ "$(readlink "$p/ns/pid" 2>/dev/null)" != "$init" ] || echo "${p#/proc/}"
  done
}
remains() {
  [ -n "$(processes "$1")" ] || [ -e "/var/spool/cron/crontabs/$1" ] ||
    [ -e "/var/lib/systemd/linger/$1" ] ||
    [ -n "$(find /var/spool/cron/atjobs -type f -user "$1" 2>/dev/null)" ]
}"""


def new(wanted: Iterable[str], found: Mapping[str, Account]) -> list[str]:
    """Those that are to be made."""
    return sorted(set(wanted) - set(found))


def joining(wanted: Iterable[str], found: Mapping[str, Account]) -> list[str]:
    """Those that an earlier version made, or an interrupted run: they are not in the group yet."""
    return sorted(name for name in set(wanted) & set(found) if not found[name].managed)


def returning(wanted: Iterable[str], found: Mapping[str, Account]) -> list[str]:
    """Those that left and are named again."""
    return sorted(name for name in set(wanted) & set(found) if found[name].locked)


def leaving(wanted: Iterable[str], found: Mapping[str, Account]) -> list[str]:
    """Those of ours that are not named any more, and are not locked and empty yet."""
    gone = set(found) - set(wanted)
    return sorted(
        name
        for name in gone
        if found[name].ours
        and (not found[name].managed or not found[name].locked or found[name].remains)
    )


def make_command(name: str) -> str:
    """Make an account that has no password, in our group."""
    user = shlex.quote(name)
    return f"adduser --disabled-password --gecos '' {user} && usermod -aG {GROUP} {user}"


def join_command(name: str) -> str:
    """Take an account into our group."""
    return f"usermod -aG {GROUP} {shlex.quote(name)}"


def return_command(name: str) -> str:
    """Unlock the account of somebody who left; one without a password stays without."""
    user = shlex.quote(name)
    return f"usermod --expiredate '' {user} && {{ usermod --unlock {user} 2>/dev/null || :; }}"


def leave_command(name: str) -> str:
    """End whatever somebody has on the host: login, keys, sudo, groups, jobs, processes.

    The files in the home directory stay. Locked before anything is ended, so that nothing comes
    back meanwhile.
    """
    user = shlex.quote(name)
    return f"""set -e
{_REMAINS}
u={user}
getent group {GROUP} >/dev/null || groupadd --system {GROUP}
usermod --lock --expiredate {_LOCKED} --groups {GROUP} "$u"
rm -f "{KEYS}/$u" "{SUDOERS}$u" "{FORMER_KEYS}/$u"
rm -f "/var/lib/systemd/linger/$u" "/var/spool/cron/crontabs/$u"
find /var/spool/cron/atjobs -type f -user "$u" -delete 2>/dev/null || :
loginctl terminate-user "$u" 2>/dev/null || :
n=0
while left=$(processes "$u"); [ -n "$left" ]; do
  [ $n -lt 50 ] || {{ echo "processes of $u do not end: $left" >&2; exit 1; }}
  kill -KILL $left 2>/dev/null || :
  n=$((n + 1)); sleep 0.1
done
# Its manager was killed, which is no trouble of the host's.
systemctl reset-failed "user@$(id -u "$u").service" 2>/dev/null || :"""


def problems(
    wanted: Mapping[str, Iterable[str]],
    found: Mapping[str, Account],
    connected: str,
    arrival: Arrival,
    *,
    own_keys: int,
    closed: bool,
) -> list[Problem]:
    """What about accounts and logins would lock somebody out, or take over a stranger's account.

    Args:
        wanted: keys by name, of `admin_users`.
        found: the accounts on the host.
        connected: the account that the run came with, before sudo.
        arrival: how it came.
        own_keys: lines of that account's own authorized_keys.
        closed: sshd has our configuration already: nobody comes in by a password any more.
    """
    told = []
    for name in sorted(set(wanted) & set(found)):
        if not found[name].ours:
            what = f"{name} is an account of the host that was not made by this project"
            fix = "choose another name; that account keeps its own sudo and ~/.ssh/authorized_keys"
            told.append(Problem("admin_users", what, fix))
    ours = connected in found and found[connected].ours
    if ours and connected not in wanted:
        what = f"{connected} is not in it, and is the account that this run came with"
        fix = "put it back, or connect as another one: ssh_user in the inventory"
        told.append(Problem("admin_users", what, fix))
    elif ours and arrival.key and arrival.key not in {_bare(key) for key in wanted[connected]}:
        what = f"the key that this run came with is not among those of {connected}"
        fix = "add it (the line of its .pub file), or come with one that is listed"
        told.append(Problem("admin_users", what, fix))
    fix = f"put a key on the host first: ssh-copy-id {shlex.quote(connected)}@HOST"
    if arrival.method in _CLOSED_METHODS:
        what = f"this run came by {arrival.method}, and sshd will take nothing but keys"
        told.append(Problem("ssh", what, f"{fix}; then come with it: ssh_key in the inventory"))
    elif arrival.method == "local" and not (closed or own_keys or wanted):
        what = f"{connected} has no key in ~/.ssh/authorized_keys, and sshd will take nothing else"
        told.append(Problem("ssh", what, f"{fix}; or name an account with a key in admin_users"))
    return told


def warnings(logins: Iterable[str]) -> list[str]:
    """What to say of accounts that can log in and are nobody's that this project knows.

    An earlier version left such ones behind: of who had left, it took sudo and their file of keys.
    """
    return [
        f"{name} can log in by ~/.ssh/authorized_keys, and is not in admin_users: if nobody "
        f"should, on the host: usermod --lock --expiredate {_LOCKED} {shlex.quote(name)}"
        for name in logins
    ]


def _bare(key: str) -> str:
    return " ".join(key.split()[:2])
