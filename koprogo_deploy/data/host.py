"""What every command of `koprogo-data` starts from: its settings, the containers, the locks."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from koprogo_deploy.database import OWNER, SESSION

SETTINGS = "data/settings.json"  # below the install root
SWAP = "data/restore.json"  # there while a restore has database and uploads change places
RETURN = "data/return.json"  # there while a rollback brings its data back, until it is verified
UPGRADE = "data/upgrade.json"  # there while clusters change places, or did unverified
INCOMING = ".incoming"  # in the uploads' volume: what is not an upload yet
POSTGRES = "koprogo-postgres-1"
DATABASE = "koprogo_db"
# Runs a program of a container's image; -S: it needs nothing of site's, and starts the sooner.
CONFINED = (sys.executable, "-I", "-S", str(Path(__file__).with_name("confined.py")))
MB = 1024 * 1024

# Of the budget's line, for this program and the clients (pg_dump, pg_restore, docker); what is
# left of the line is the scratch server's.
CLIENTS = 64 * MB
LIMITED = "KOPROGO_DATA_LIMITED"  # set where a limit holds for this process already

# Of root's own: who may write where a lock lies may hold it, or have root write elsewhere.
RUN = "/run/koprogo"
DEPLOY_LOCK = f"{RUN}/deploy"  # the one that a deploy holds
DEPLOY_WAIT = 3 * 3600  # seconds that a timer's run waits for a deploy to end
DATA_LOCK = f"{RUN}/data"  # one command of ours at a time: they share one line of memory
LOAD_LOCK = f"{RUN}/load"  # one load test at a time
# Where an earlier version had them, for everybody to write to. Its programs may be at work, or
# wait: these are respected, see `earlier`, until the last host that had them was restarted.
EARLIER = "/run/lock/koprogo-"
FOREIGN = 2  # seconds after which a lock of there that nobody of ours has signed is nobody's
LIST_WAIT = 30  # seconds that a list of backups waits for another one


AT_THE_DATA = ("a backup of ", "a drill of ")  # how `holder` begins: these end by themselves


def holder(kind: str, by: str) -> str:
    """What a backup or a drill that holds a lock says of itself, for others to read."""
    return f"a {kind} of {by} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


def is_at_the_data(holder: str) -> bool:
    """Whether who holds a lock is a backup or a drill, and no deploy. Pure."""
    return holder.startswith(AT_THE_DATA)


class Failed(Exception):
    """Why a command could not do its work, in words for a person."""


@dataclass(frozen=True)
class Config:
    """What the deploy wrote down for this host; sizes in bytes.

    Attributes:
        root: the install root.
        environment: its name, for the journal.
        memory: the budget's line `backup, rehearsal`.
        backup: settings of the backups, by name without `backup_`.
    """

    root: Path
    environment: str
    memory: int
    backup: dict[str, Any] = field(default_factory=dict)

    @property
    def scratch_memory(self) -> int:
        """Limit of the scratch server's container."""
        return self.memory - CLIENTS


def read_config(root: Path) -> Config:
    """The settings as the deploy left them.

    Raises:
        Failed: they are not there, or not readable.
    """
    file = root / SETTINGS
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return Config(root, values["environment"], values["memory"], values.get("backup", {}))
    except (OSError, ValueError, KeyError) as error:
        raise Failed(f"{file} cannot be read ({error!r}); run deploys/full.py") from None


_UNFINISHED = {
    UPGRADE: "an upgrade was cut: deploys/postgres_upgrade.py ends it, or takes it back",
    SWAP: "the swap of a restore was cut: deploys/restore.py --data backup=drop_old ends it, and "
    "drops nothing then",
    RETURN: "a rollback with its data was cut: koprogo status has the command that ends it",
}


def settled(config: Config, *files: str) -> None:
    """Refuse while what serves changes places, or did and is not verified yet.

    Args:
        config: for the install root.
        files: which say so; `UPGRADE`, `SWAP` and `RETURN` unless given.

    Raises:
        Failed: it does, with the command that ends it.
    """
    for file in files or _UNFINISHED:
        if (config.root / file).exists():
            raise Failed(_UNFINISHED[file])


def limit(memory: int, arguments: Sequence[str]) -> None:
    """Start this program again within a memory limit of the kernel's, unless one holds already.

    Args:
        memory: bytes.
        arguments: the command line.
    """
    if LIMITED in os.environ or not Path("/run/systemd/system").is_dir():
        return
    os.environ[LIMITED] = "1"
    properties = [f"MemoryMax={memory}", "MemorySwapMax=0"]
    options = [word for each in properties for word in ("-p", each)]
    os.execvp("systemd-run", ["systemd-run", "--scope", "-q", "--collect", *options, *arguments])  # noqa: S606


@contextlib.contextmanager
def lock(path: str, wait: float, holder: str = "") -> Iterator[None]:
    """Hold a lock file; it dies with this process.

    Args:
        path: of the file.
        wait: seconds to wait for whoever holds it.
        holder: who holds it and why, for others to read.

    Raises:
        Failed: somebody else still holds it.
    """
    Path(path).parent.mkdir(mode=0o700, exist_ok=True)
    end = time.monotonic() + wait
    with contextlib.ExitStack() as held:
        file = held.enter_context(open(path, "a"))  # noqa: PTH123
        _acquire(file.fileno(), path, end, wait)
        if (old := earlier(path)) is not None:
            held.callback(os.close, old)
            _acquire(old, f"{EARLIER}{Path(path).name}", end, wait)
        note = Path(f"{path}.holder")
        if holder:
            note.write_text(f"{holder}\n", encoding="utf-8")
        try:
            yield
        finally:
            if holder:
                note.unlink(missing_ok=True)


def _acquire(file: int, path: str, end: float, wait: float) -> None:
    began = time.monotonic()
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            now, holder = time.monotonic(), _holder(path)
            if path.startswith(EARLIER) and not holder and now - began >= FOREIGN:
                return  # any user may hold a file that he can read
            if now >= end:
                told = holder or "another one"
                raise Failed(f"{told} holds {path}; waited {wait:.0f} s") from None
            time.sleep(0.2)


def earlier(path: str) -> int | None:
    """An open descriptor of the lock that a program of an earlier version holds, if there is one.

    Nothing is made, written or followed there: a file of root's stays under its name, since the
    directory is sticky; whatever else has that name is nobody's lock.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(f"{EARLIER}{Path(path).name}", flags)
    except OSError:
        return None
    if _is_ours(os.fstat(file)):
        return file
    os.close(file)
    return None


def _is_ours(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def _holder(path: str) -> str:
    """Who holds a lock, as root wrote it down; empty if nobody did."""
    note = Path(f"{path}.holder")
    try:
        return note.read_text(encoding="utf-8").strip() if _is_ours(note.lstat()) else ""
    except (OSError, ValueError):
        return ""


def run(*command: str, stdin: str | None = None) -> str:
    """Run a command and return what it prints.

    Raises:
        Failed: it failed; with its last words.
    """
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Failed(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        words = last_words(done.stderr, done.returncode)
        # The clients of Postgres say who they are.
        confined = command[: len(CONFINED)] == CONFINED
        raise Failed(words if confined else f"{command[0]}: {words}")
    return done.stdout


def last_words(said: str, code: int) -> str:
    """The end of what a command wrote to stderr, on one line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return " | ".join(lines[-4:]) or f"exit code {code}"


def inside(container: str, *command: str) -> list[str]:
    """Command line that runs a program of a container's, confined as it, in our own memory limit.

    `docker exec` would charge it to the container's limit, and is itself no small program.

    Raises:
        Failed: the container does not run.
    """
    look = "{{.State.Running}} {{.State.Pid}} {{json .Config.User}} {{json .Config.Env}}"
    try:
        found = run("docker", "inspect", "-f", look, container)
    except Failed as error:
        raise Failed(f"{container} cannot be asked: {error}") from None
    return entered(found, container, *command)


def entered(found: str, container: str, *command: str) -> list[str]:
    """As `inside`, from what `docker inspect` said. Pure."""
    running, pid, asked, variables = found.strip().split(" ", 3)
    if running != "true":
        raise Failed(f"{container} does not run: docker logs {container}")
    user = str(json.loads(asked))
    uid, _, gid = user.partition(":")
    ids = (uid, gid or uid)
    if not all(each.isdigit() and int(each) for each in ids):
        raise Failed(
            f'{container} runs as "{user}": only of one with a user and group by number, and '
            "not root's, is a program run from here"
        )
    path = next((v for v in json.loads(variables) if v.startswith("PATH=")), "PATH=/usr/bin:/bin")
    given = (path, "LC_ALL=C.UTF-8", f"PGOPTIONS={SESSION}")
    return [*CONFINED, pid, *ids, *given, "--", *command]


def psql(database: str, user: str = "postgres") -> tuple[str, ...]:
    """Command line of psql that stops at an error; the script comes on standard input."""
    return ("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", database)


def sql(container: str, text: str, database: str = DATABASE) -> str:
    """What a script prints, run as the superuser of a Postgres container; stops at an error.

    For catalogs, roles, databases. What sets off anything of the application's is `owner_sql`'s.
    """
    return run(*inside(container, *psql(database)), stdin=text).strip()


def owner_sql(container: str, text: str, database: str = DATABASE) -> str:
    """As `sql`, as the application's own role: triggers, functions and operators run as that."""
    return run(*inside(container, *psql(database, OWNER)), stdin=text).strip()


def sync(path: Path) -> None:
    """Have a file or a directory on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def keep(file: Path, text: str) -> None:
    """Write a file so that after a loss of power it is the old one or the new one, whole."""
    part = file.with_name(f"{file.name}.part")
    part.write_text(text, encoding="utf-8")
    sync(part)
    part.rename(file)
    sync(file.parent)
