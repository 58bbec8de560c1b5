"""restic: the repository that backups lie in. Encrypted, deduplicated, off-site where it is set."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from koprogo_deploy.data.host import MB, Config, Failed, last_words

TAG = "koprogo"
SECRETS = "data/backup"  # below the install root; 0700, each file 0400
KEPT_WHOLE = "2d"  # before the newest one: every backup of this time is kept
_NO_REPOSITORY = ("Is there a repository at the following location", "unable to open config file")
_NO_SESSION = "unable to start the sftp session"
_HOST_KEY = "Host key verification failed"
_WRONG_KEY = "wrong password or no key found"
_AT_THE_DATA = ("backup", "check", "dump", "forget", "prune")  # the others only look
_GRACE = 10  # seconds between a request to end and a kill


class NoRepository(Failed):
    """There is nothing at the place yet."""


def is_local(repository: str) -> bool:
    """Whether it is a directory of the host's: lost with it."""
    return repository.startswith("/")


def environment(config: Config) -> dict[str, str]:
    """restic's variables: where, the password's file, and how much memory. No secret in argv."""
    secrets, work = config.root / SECRETS, config.root / "data"
    variables = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": "/root",
        "RESTIC_REPOSITORY": config.backup["repository"],
        "RESTIC_PASSWORD_FILE": str(secrets / "password"),
        "RESTIC_CACHE_DIR": str(work / "cache"),
        # /tmp may be memory, and its pages would be ours.
        "TMPDIR": str(work / "tmp"),
        # The limit is for the whole process; Go collects before it gets there.
        "GOMEMLIMIT": f"{config.scratch_memory * 3 // 4}",
        "GOGC": "20",
        "RESTIC_READ_CONCURRENCY": "1",
        "RESTIC_PACK_SIZE": "8",
    }
    keys = secrets / "s3.json"
    if keys.exists():
        variables |= json.loads(keys.read_text(encoding="utf-8"))
    return variables


def storage(repository: str) -> tuple[str, str, str] | None:
    """User, host and port of an `sftp:` repository; None for other places. Pure."""
    if found := re.match(r"sftp://([^@/]+)@([^:/]+)(?::(\d+))?/", repository):
        return found[1], found[2], found[3] or "22"
    if found := re.match(r"sftp:([^@/]+)@([^:/]+):", repository):
        return found[1], found[2], "22"
    return None


def options(config: Config) -> list[str]:
    """restic's options that depend on where the repository is."""
    repository, secrets = config.backup["repository"], config.root / SECRETS
    target = storage(repository)
    if target is None:
        kind = "local" if is_local(repository) else repository.partition(":")[0]
        return ["-o", f"{kind}.connections=2"]
    user, host, port = target
    # BatchMode: nobody is there to answer; a host key that is not the one we know is refused.
    ssh = (
        f"ssh -i {secrets}/ssh_key -o IdentitiesOnly=yes -o BatchMode=yes "
        f"-o UserKnownHostsFile={secrets}/known_hosts -o GlobalKnownHostsFile=/dev/null "
        "-o StrictHostKeyChecking=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 "
        f"-p {port} {user}@{host} -s sftp"
    )
    return ["-o", "sftp.connections=2", "-o", f"sftp.command={ssh}"]


def command(config: Config, *words: str) -> list[str]:
    """Command line of restic, in the memory that is otherwise the scratch server's."""
    limits = [f"MemoryMax={config.scratch_memory}", "MemorySwapMax=0", "CPUWeight=20"]
    scope = ["systemd-run", "--scope", "-q", "--collect"]
    for each in limits:
        scope += ["-p", each]
    if not Path("/run/systemd/system").is_dir():
        scope = []
    # In its scope it would outlive us: it dies with us.
    dies = ["setpriv", "--pdeathsig", "KILL"]
    return [*scope, *dies, "restic", "--retry-lock", "2m", *options(config), *words]


def bound(config: Config, word: str) -> tuple[int, str]:
    """Seconds that a restic command may take, and the setting that says so. Pure."""
    name = "timeout" if word in _AT_THE_DATA else "list_timeout"
    return config.backup[name], f"backup_{name}"


def late(config: Config, word: str) -> Failed:
    """What is said of one that took longer. Pure."""
    seconds, setting = bound(config, word)
    place = config.backup["repository"]
    return Failed(
        f"restic {word} was not done after {seconds} s and was ended: is {place} full, slow or "
        f"away? If it needs longer: {setting} in group data"
    )


def end(process: subprocess.Popen[Any]) -> None:
    """End a process that was started in a session of its own, and all of its group."""
    if process.poll() is not None:
        return
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        # One that waits for a dead disk cannot even be killed: it is not waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)


def restic(config: Config, *words: str) -> str:
    """Run restic and return what it prints.

    Raises:
        NoRepository: nothing is there yet.
        Failed: anything else, in words; also where it takes longer than it may.
    """
    (config.root / "data/tmp").mkdir(mode=0o700, exist_ok=True)
    if shutil.which("restic") is None:
        raise Failed("restic is not installed; run deploys/full.py")
    process = subprocess.Popen(
        command(config, *words),
        env=environment(config),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, said = process.communicate(timeout=bound(config, words[0])[0])
    except subprocess.TimeoutExpired:
        raise late(config, words[0]) from None
    finally:
        end(process)
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()
    if process.returncode:
        raise told(config.backup["repository"], said, process.returncode)
    return out


def told(repository: str, said: str, code: int) -> Failed:
    """What restic's failure means. Pure."""
    if code == 12 or _WRONG_KEY in said:
        return Failed(
            f"{repository} was made with another BACKUP_PASSWORD than that of the secrets file"
        )
    if code == 10 or any(words in said for words in _NO_REPOSITORY):
        return NoRepository(f"there is no repository at {repository}")
    if code < 0 or code == 137:
        return Failed(f"restic was killed (signal {-code if code < 0 else 9}): out of memory?")
    reason = f"restic: {last_words(said, code)}"
    if _NO_SESSION in said and _HOST_KEY not in reason:
        # ssh says why by a pipe of its own, which restic may not have read to its end.
        reason += ". Does the storage answer, and is its key the one of backup_host_key?"
    return Failed(reason)


class Reader:
    """The files of a snapshot, as one tar on a pipe. A context."""

    def __init__(self, config: Config, snapshot: Mapping[str, Any]) -> None:
        self._config = config
        self._where = f"{snapshot['id']}:{snapshot['paths'][0]}"
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._late = False

    def __enter__(self) -> IO[bytes]:
        (self._config.root / "data/tmp").mkdir(mode=0o700, exist_ok=True)
        self._process = subprocess.Popen(
            command(self._config, "dump", "--no-lock", "--archive", "tar", self._where, "/"),
            env=environment(self._config),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,
        )
        self._timer = threading.Timer(bound(self._config, "dump")[0], self._too_long)
        self._timer.daemon = True
        self._timer.start()
        assert self._process.stdout is not None
        return self._process.stdout

    def _too_long(self) -> None:
        self._late = True
        end(self._process)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        assert self._process.stdout is not None
        # To the end, for its exit code: a tar's end comes before the pipe's.
        while kind is None and self._process.stdout.read(1 << 20):
            pass
        self._process.stdout.close()
        if kind is not None:
            end(self._process)
        code = self._process.wait()
        self._timer.cancel()
        with self._said:
            self._said.seek(0)
            said = self._said.read().decode(errors="replace")
        if self._late:
            raise late(self._config, "dump")
        # What restic says is the reason of whatever else went wrong; a broken pipe is our doing.
        if code > 0 and (kind is None or "Fatal" in said):
            raise told(self._config.backup["repository"], said, code)


def content(config: Config, snapshot: Mapping[str, Any], name: str) -> str:
    """One text file of a snapshot.

    Raises:
        Failed: it cannot be read.
    """
    where = f"{snapshot['id']}:{snapshot['paths'][0]}"
    return restic(config, "dump", "--no-lock", where, f"/{name}")


def ensure(config: Config) -> bool:
    """Have a repository that can be written to: one is made if there is none, and locks that dead
    processes left are let go, such as that of a prune that was killed.

    Returns:
        Whether it was made now.
    """
    try:
        restic(config, "cat", "config", "--no-lock")  # or such a lock would end it here
    except NoRepository:
        repository = config.backup["repository"]
        if is_local(repository):
            Path(repository).mkdir(mode=0o700, parents=True, exist_ok=True)
        restic(config, "init")
        return True
    restic(config, "unlock", "--quiet")
    return False


def snapshots(config: Config) -> list[dict[str, Any]]:
    """Backups of this environment in the repository, oldest first."""
    found = json.loads(
        restic(
            config, "snapshots", "--json", "--no-lock", "--tag", TAG, "--host", config.environment
        )
    )
    return sorted(found or [], key=lambda each: datetime.fromisoformat(each["time"]))


def check(config: Config) -> None:
    """Look at the repository's structure. Whoever only reads takes no lock: one of a process that
    was killed would keep it waiting.

    Raises:
        Failed: something is missing or damaged.
    """
    restic(config, "check", "--quiet", "--no-lock")


def find(snapshots: list[dict[str, Any]], asked: str) -> dict[str, Any]:
    """The snapshot that was asked for: `latest`, or the beginning of an id. Pure.

    Raises:
        Failed: there is none, or more than one.
    """
    known = ", ".join(each["short_id"] for each in snapshots) or "none at all"
    if asked == "latest":
        if not snapshots:
            raise Failed("the repository has no backup")
        return snapshots[-1]
    found = [each for each in snapshots if asked and each["id"].startswith(asked)]
    if len(found) != 1:
        raise Failed(
            f"{'no' if not found else 'more than one'} backup is {asked!r}; there are: {known}"
        )
    return found[0]


def summary(output: str) -> dict[str, Any]:
    """The last word of `restic backup --json`. Pure."""
    for line in reversed(output.splitlines()):
        said = json.loads(line)
        if said.get("message_type") == "summary":
            return dict(said)
    raise Failed("restic did not say which snapshot it made")


def store(config: Config, directory: Path, release: str, *tags: str) -> dict[str, Any]:
    """Back a directory up, and say as which snapshot; `tags` are further ones of it."""
    # Hard links change a file's ctime, not its content.
    said = restic(
        config,
        *("backup", "--json", "--quiet", "--ignore-ctime", "--group-by", "host"),
        *("--host", config.environment, "--tag", ",".join((TAG, f"release:{release}", *tags))),
        str(directory),
    )
    found = summary(said)
    return {
        "id": found["snapshot_id"],
        "paths": [str(directory)],
        "added": found.get("data_added", 0),
    }


def forget(config: Config) -> None:
    """Let go what the rule does not keep, and the data that nothing else needs.

    A day's rule keeps its newest one alone: every one of the last days is kept besides, or one that
    is made by hand, of data that was damaged meanwhile, would take the place of the good one.
    """
    keep = [
        f"--keep-{name}={config.backup[f'keep_{name}']}" for name in ("daily", "weekly", "monthly")
    ]
    keep.append(f"--keep-within={KEPT_WHOLE}")
    restic(
        config,
        *("forget", "--quiet", "--tag", TAG, "--host", config.environment, "--group-by", "host"),
        *keep,
        *("--prune", "--max-repack-size", f"{64 * MB}B"),
    )


def tidy(config: Config) -> None:
    """Let go what a backup that failed half-way left in the repository, so that there is room."""
    restic(config, "unlock", "--quiet")
    restic(config, "prune", "--quiet")


def discard(config: Config, snapshot: str) -> None:
    """Take one snapshot out: it is no backup."""
    restic(config, "forget", "--quiet", "--prune", snapshot)
