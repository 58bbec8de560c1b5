"""Rehearsed migrations: what is pending, how the new image is run on a copy, what follows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from koprogo_deploy.data.scratch import FILES, SECRETS
from koprogo_deploy.database import OWNER, USER, not_migrated
from koprogo_deploy.database import answer as read_answer
from koprogo_deploy.on_host.rehearse import BACKEND, ROWS

NETWORK = "koprogo-scratch"
CPU_WEIGHT = 256  # a quarter of the live backend's: who is served goes first


def pending(applied: Mapping[str, bool], image: set[str]) -> list[str]:
    """Migrations that an image would apply to a database that holds data; oldest first.

    An empty database has nothing to rehearse and nothing to lose.
    """
    return sorted(image - set(applied)) if applied else []


def let_in(definition: Mapping[str, Any]) -> list[str]:
    """Arguments of `koprogo-data` that make what a release's backend needs to work on the copy.

    Args:
        definition: the backend's, of the release's manifest.
    """
    login = definition["environment"].get(USER, OWNER)
    uid = definition["user"].partition(":")[0]
    names = [file.rpartition("/")[2] for file in definition["secrets"]]
    return ["scratch", "let-in", "--role", login, "--owner", uid, "--secrets", *names]


def run_command(definition: Mapping[str, Any], root: str, name: str = BACKEND) -> list[str]:
    """Command line that runs a release's backend on the copy, confined and limited as the real one.

    Its secrets are the copy's own, which `let_in` made: what it signs, nothing else takes. It is on
    the scratch network alone, where `postgres` is the scratch server: it cannot reach the real one,
    and has no uploads.

    Args:
        definition: the backend's, of the release's manifest.
        root: the install root.
        name: of the container.
    """
    limit = definition["mem_limit"]
    options = [
        *("--name", name, "--pull", "never", "--network", NETWORK, "--no-healthcheck"),
        *("--memory", limit, "--memory-swap", definition["memswap_limit"]),
        *("--cpu-shares", str(CPU_WEIGHT), "--pids-limit", str(definition["pids_limit"])),
        *("--user", definition["user"], "--entrypoint", definition["entrypoint"][0]),
    ]
    options += [word for each in definition["cap_drop"] for word in ("--cap-drop", each)]
    options += [word for each in definition["security_opt"] for word in ("--security-opt", each)]
    options += ["--read-only"] if definition["read_only"] else []
    for key, value in definition["environment"].items():
        options += ["--env", f"{key}={_plain(value)}"]
    for file in definition["secrets"]:
        secret = file.rpartition("/")[2]
        options += ["--volume", f"{root}/{FILES}/backend/{secret}:{SECRETS}{secret}:ro"]
    owner = definition["user"].replace(":", ",gid=")
    for volume in definition["volumes"]:
        source, target, *_ = volume.split(":")
        if source.startswith("/"):
            options += ["--volume", volume]
        else:
            options += ["--tmpfs", f"{target}:size=16m,mode=0700,uid={owner}"]
    options += [word for each in definition["tmpfs"] for word in ("--tmpfs", each)]
    program = [*definition["entrypoint"][1:], *definition["command"]]
    return ["docker", "run", "-d", *options, definition["image"], *map(_plain, program)]


def _plain(text: str) -> str:
    return str(text).replace("$$", "$")  # as Compose reads it


@dataclass(frozen=True)
class Rehearsed:
    """What a rehearsal showed.

    Attributes:
        fault: `release` or `host` where it could not be ended; empty if it could.
        reason: in words.
        seconds: of `server`, `copy` and `start`, which is from the container's start until it
            answered, migrations included.
        locks: tables of before that were locked so that others had to wait, or whose rows were
            written: `table`, `mode`, `seconds` at most; looked at each 0.1 s. None if the looking
            broke off.
        migrations: seconds of each pending one, as the application measured it.
        contracted: what the serving release may miss on the new schema.
        grown: bytes that the database has more, migrated.
        log: the end of what the backend said, where something was wrong.
    """

    fault: str
    reason: str
    seconds: Mapping[str, float]
    locks: Sequence[Mapping[str, Any]] | None
    migrations: Mapping[str, float] = field(default_factory=dict)
    contracted: Sequence[str] = ()
    grown: int = 0
    log: Sequence[str] = ()

    @property
    def migrating(self) -> float:
        """Seconds that the migrations took, all of them."""
        return round(sum(self.migrations.values()), 2)

    @property
    def longest(self) -> float:
        """Seconds of the longest lock of a whole table; 0 if there was none."""
        return max((lock["seconds"] for lock in tables(self.locks or ())), default=0.0)


def judge(
    answer: Mapping[str, Any], waiting: Sequence[str], image: set[str], limit: float | None
) -> Rehearsed:
    """Read what the host's program found.

    Args:
        answer: its JSON.
        waiting: the pending migrations.
        image: all of the image's.
        limit: seconds of a lock from which on the release is refused; None for none.
    """
    before, after = answer.get("columns", ({}, {}))
    executions = answer.get("executions", {})
    found = Rehearsed(
        fault=answer["fault"],
        reason=answer["reason"],
        seconds=answer["seconds"],
        locks=answer["locks"],
        migrations={v: max(0, executions[v]) / 1e9 for v in waiting if v in executions},
        contracted=contracted(before, after),
        grown=int(answer.get("grown", 0)),
        log=answer["log"],
    )
    if found.fault:
        return found
    schema = read_answer(answer["found"])
    wrong = not_migrated({**schema, "statements": True}, image) + answer["failures"]
    if wrong:
        return replace(found, fault="release", reason="; ".join(wrong))
    if limit is not None and found.locks is None:
        reason = (
            "its locks could not be watched to the end, so nobody can say that they stay below "
            f"migration_lock_limit ({limit:g} s). Where it stays so: migration_lock_limit = None"
        )
        return replace(found, fault="host", reason=reason)
    if limit is not None and found.longest > limit:
        worst = tables(found.locks or ())[0]
        reason = (
            f"{_lock(worst)}, and migration_lock_limit is {limit:g} s. Write a migration that "
            "locks for less, or raise the limit and give --data retry_bad_release=true"
        )
        return replace(found, fault="release", reason=reason)
    return found


def contracted(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What a migration took from the release that serves: more than adding (expand).

    Args:
        before: type, NOT NULL and default of each column, by `table.column`.
        after: the same, migrated.
    """
    tables = {name.partition(".")[0] for name in after}
    known = {name.partition(".")[0] for name in before}
    lost = sorted(known - tables)
    found = [f"table {name} is gone" for name in lost]
    for name, (kind, required, _) in sorted(before.items()):
        if name.partition(".")[0] in lost:
            continue
        if name not in after:
            found.append(f"column {name} is gone")
            continue
        now, needed, _ = after[name]
        if now != kind:
            found.append(f"column {name} is {now}, and was {kind}")
        if needed and not required:
            found.append(f"column {name} must have a value now")
    for name, (_, required, default) in sorted(after.items()):
        new = name not in before and name.partition(".")[0] in known
        if new and required and not default:
            found.append(f"new column {name} must have a value, and has no default")
    return found


def tables(locks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those for which everybody waits who writes to the table, whichever rows. Pure."""
    return [lock for lock in locks if lock["mode"] != ROWS]


def _lock(lock: Mapping[str, Any]) -> str:
    if lock["mode"] == ROWS:
        return (
            f"rows of {lock['table']} written in one transaction of {lock['seconds']:g} s "
            "(who writes the same rows waits)"
        )
    whom = "readers and writers" if lock["mode"] == "AccessExclusiveLock" else "writers"
    mode = lock["mode"].removesuffix("Lock")
    return f"{lock['table']} locked for {lock['seconds']:g} s ({mode}: {whom} wait)"


def told(found: Rehearsed, warn_from: float) -> tuple[list[str], list[str]]:
    """What to say of a rehearsal that ended: lines to read, and warnings.

    Args:
        found: it.
        warn_from: seconds of a lock that is warned of.
    """
    of = {name: f"{seconds:.1f} s" for name, seconds in found.seconds.items()}
    lines = [
        f"rehearsed on a copy: copied in {of.get('copy')}, migrated in {found.migrating:.2f} s, "
        f"answered {of.get('start')} after its start"
    ]
    warnings = []
    if found.locks is None:
        warnings.append("its locks could not be watched to the end")
    elif not tables(found.locks):
        lines.append("no lock of 0.1 s or more on a table that was there before")
    for lock in found.locks or ():
        if lock["seconds"] >= warn_from:
            warnings.append(_lock(lock))
        elif lock["mode"] != ROWS:
            lines.append(_lock(lock))
    if found.contracted:
        warnings.append(
            "it does more than add, and the release that serves runs on it until the switch: "
            + "; ".join(found.contracted)
        )
    return lines, warnings


def noted(found: Rehearsed) -> dict[str, Any]:
    """For the journal."""
    return {
        "passed": not found.fault,
        "seconds": dict(found.seconds),
        "migrations": dict(found.migrations),
        "locks": found.locks if found.locks is None else list(found.locks)[:20],
        "contracted": list(found.contracted),
        "grown": found.grown,
    }
