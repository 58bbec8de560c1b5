"""Runs on the host: migrates a copy of the database with the new image, and watches its locks.

The copy lies in the scratch server of `koprogo-data`, on a network where nothing else is. Whatever
happens, both are gone at the end; what a run that was killed left, the next one removes.
"""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

BACKEND = "koprogo-rehearsal-1"
SCRATCH = "koprogo-scratch-1"
OWNER = "koprogo"
# As in koprogo_deploy.database, which does not come along: nothing of the application's is taken
# for something of Postgres' own.
SESSION = (
    "-c search_path=pg_catalog,pg_temp -c role=none -c standard_conforming_strings=on "
    "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c lock_timeout=0 "
    "-c default_transaction_read_only=off -c client_encoding=UTF8"
)
INTERVAL = 0.1  # seconds between two looks at the locks
ROOM_INTERVAL = 0.5  # and at the disk
# Those that somebody who reads or writes a row has to wait for.
BLOCKING = ("ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")
# Of whoever writes rows: others wait who write the same ones.
ROWS = "RowExclusiveLock"

# The tables that the serving release may use: those of before the migration.
_TABLES = """
SELECT coalesce(string_agg(c.oid::text, ','), '0') FROM pg_class c
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'm')
   AND relname <> '_sqlx_migrations';
"""
_COLUMNS = """
SELECT coalesce(json_object_agg(table_name || '.' || column_name, json_build_array(
    udt_name || coalesce('(' || character_maximum_length || ')', ''), is_nullable = 'NO',
    column_default IS NOT NULL OR is_identity = 'YES' OR is_generated = 'ALWAYS')), '{}')
  FROM information_schema.columns
 WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations';
"""
_SIZE = "SELECT pg_database_size(current_database());"
_EXECUTIONS = """
SELECT coalesce(json_object_agg(version, execution_time), '{}') FROM public._sqlx_migrations;
"""

Say = Callable[[str], None]


class Failed(Exception):
    """The rehearsal cannot be made: the host's fault, not the release's."""


def run(*command: str, stdin: str = "") -> str:
    """What a command prints.

    Raises:
        Failed: it failed; with its last words.
    """
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.strip()]
        raise Failed((words or [f"{command[0]}: exit code {done.returncode}"])[-1])
    return done.stdout


def psql(script: str, user: str = "postgres") -> str:
    """What the copy answers: the superuser of catalogs, the owner of what is the application's."""
    return run(*client(user), stdin=script).strip()


def client(user: str = "postgres") -> list[str]:
    """Command line of psql in the copy's server."""
    return [
        *("docker", "exec", "-e", f"PGOPTIONS={SESSION}", "-i", SCRATCH),
        *("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", "koprogo_db"),
    ]


def lock_query(tables: str) -> str:
    """One look at the locks: time, transaction, table and mode of each that makes others wait."""
    modes = ", ".join(f"'{mode}'" for mode in (*BLOCKING, ROWS))
    return f"""
SELECT extract(epoch FROM clock_timestamp())::numeric(14,3), l.virtualtransaction, c.relname,
       l.mode
  FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_stat_activity a USING (pid)
 WHERE l.locktype = 'relation' AND l.granted AND l.mode IN ({modes})
   AND a.usename ~ '^koprogo(_[0-9a-f]+)?$' AND c.oid IN ({tables});
"""  # noqa: S608 - names and numbers of ours


def longest(lines: Iterable[str]) -> list[dict[str, Any]]:
    """How long each table was locked at most by one transaction, by mode; the longest first.

    A lock that was seen once was held for one interval, as far as anybody knows.

    Args:
        lines: `time|transaction|table|mode`, a line for each lock of each look.
    """
    seen: dict[tuple[str, str, str], tuple[float, float]] = {}
    for line in lines:
        if not line.strip():
            continue
        moment, transaction, table, mode = line.strip().split("|")
        key = (transaction, table, mode)
        first, _ = seen.get(key, (float(moment), 0.0))
        seen[key] = (first, float(moment))
    held: dict[tuple[str, str], float] = {}
    for (_, table, mode), (first, last) in seen.items():
        held[table, mode] = max(held.get((table, mode), 0.0), last - first + INTERVAL)
    ordered = sorted(held.items(), key=lambda item: (-item[1], item[0]))
    return [{"table": t, "mode": m, "seconds": round(s, 1)} for (t, m), s in ordered]


class Room:
    """Looks at the disk all the while; ends the rehearsal before what serves has no room left.

    How much a migration writes is known when it has: the copy lies on the disk of the real data.
    """

    def __init__(self, disk: str, least: int) -> None:
        self._disk, self._least = disk, least
        self.reason = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._end.wait(ROOM_INTERVAL):
            found = os.statvfs(self._disk)
            free = found.f_bavail * found.f_frsize
            if free < self._least:
                mb = 1024 * 1024
                self.reason = (
                    f"migrating the copy filled the disk: {free // mb} MB were left, and "
                    f"{self._least // mb} MB are what serves its own"
                )
                for name in (BACKEND, SCRATCH):
                    subprocess.run(
                        ["docker", "rm", "-f", "-v", name], capture_output=True, check=False
                    )
                return

    def left(self) -> None:
        """Whether what failed may be the release's own doing.

        Raises:
            Failed: the rehearsal was ended for want of room.
        """
        if self.reason:
            raise Failed(self.reason)

    def end(self) -> None:
        """Look no more."""
        self._end.set()
        self._thread.join()


class Locks:
    """Looks at the locks of the copy all the while, through one connection."""

    def __init__(self, tables: str) -> None:
        self._query = lock_query(tables)
        self._found = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by end()
        self._client = subprocess.Popen(
            client(),
            stdin=subprocess.PIPE,
            stdout=self._found,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        assert self._client.stdin is not None
        with contextlib.suppress(OSError):
            while not self._end.wait(INTERVAL):
                self._client.stdin.write(self._query)
                self._client.stdin.flush()
            self._client.stdin.close()

    def end(self) -> list[dict[str, Any]] | None:
        """What was seen; None if the looking broke off."""
        self._end.set()
        self._thread.join()
        try:
            failed = self._client.wait(30) != 0
        except subprocess.TimeoutExpired:
            self._client.kill()
            failed = True
        with self._found as found:
            found.seek(0)
            return None if failed else longest(found)


def healthy(address: str) -> bool:
    """Whether the backend answers; its port opens when it has migrated."""
    line = http.client.HTTPConnection(address, 8080, timeout=5)
    try:
        line.request("GET", "/api/v1/health")
        return line.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        line.close()


def come_up(command: list[str], seconds: int) -> str:
    """Start the new backend and wait for it; why it did not come up, empty if it did."""
    run(*command)
    form = (
        "{{.State.Status}} {{.State.ExitCode}} "
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    )
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        status, code, *address = run("docker", "inspect", "-f", form, BACKEND).split()
        if status != "running":
            return f"it ended with exit code {code}"
        if address and healthy(address[0]):
            return ""
        time.sleep(0.2)
    return f"it was not healthy within {seconds} s"


def log() -> list[str]:
    """The end of what the backend said."""
    done = subprocess.run(
        ["docker", "logs", "--tail", "20", BACKEND],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout.splitlines()


def bears() -> None:
    """Whether the copy's server is well, so that what failed is the backend's own doing.

    Raises:
        Failed: it is not: the backend had nothing to come up on.
    """
    killed = run("docker", "inspect", "-f", "{{.State.OOMKilled}}", SCRATCH).strip() == "true"
    ready = ("pg_isready", "-q", "-h", "127.0.0.1", "-U", "postgres")
    try:
        run("docker", "exec", SCRATCH, *ready)
    except Failed as failed:
        raise Failed(f"the copy's server does not answer: {failed}") from None
    if killed:
        raise Failed("the copy's server had too little memory for it")


def rehearse(asked: dict[str, Any]) -> dict[str, Any]:
    """The whole of it; see `koprogo_deploy.rehearsal.Rehearsed`."""
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it gives
        began = time.monotonic()
        try:
            return work()
        finally:
            seconds[name] = round(time.monotonic() - began, 2)

    result: dict[str, Any] = {"seconds": seconds, "log": [], "locks": [], "failures": []}
    room = Room(asked["disk"], asked["least"])
    try:
        timed("server", lambda: run(asked["data"], "scratch", "up"))
        timed("copy", lambda: run(asked["data"], "copy"))
        run(asked["data"], *asked["let_in"])
        before, size = json.loads(psql(_COLUMNS)), int(psql(_SIZE))
        locks = Locks(psql(_TABLES))
        try:
            reason = timed("start", lambda: come_up(asked["run"], asked["timeout"]))
        finally:
            result["locks"] = locks.end()
        if reason:
            room.left()
            bears()
            return {**result, "fault": "release", "reason": reason, "log": log()}
        result["found"] = psql(asked["query"])
        result["executions"] = json.loads(psql(_EXECUTIONS, OWNER))
        result["columns"] = [before, json.loads(psql(_COLUMNS))]
        result["grown"] = max(0, int(psql(_SIZE)) - size)
        program = [sys.executable, "-c", asked["ask"]]
        login = asked["login"] and known(asked["data"], asked["login"])
        answer = run(*program, stdin=json.dumps({"backend": BACKEND, "login": login}))
        result["failures"] = json.loads(answer)["failures"]
        result["log"] = log() if result["failures"] else []
        room.left()
    except Failed as failed:
        return {**result, "fault": "host", "reason": room.reason or str(failed)}
    finally:
        room.end()
    return {**result, "fault": "", "reason": ""}


def known(data: str, login: dict[str, Any]) -> dict[str, Any] | None:
    """The login with a password that it has on the copy alone; None if the copy lacks it."""
    made = json.loads(run(data, "scratch", "login", "--email", login["email"]))
    return made and {**login, "password": made["password"]}


def clean(data: str) -> None:
    """Remove container and server; it does not matter how much of them is there."""
    subprocess.run(["docker", "rm", "-f", "-v", BACKEND], capture_output=True, check=False)
    run(data, "scratch", "down")


def end_earlier(mark: Path) -> None:
    """End a rehearsal whose deployer was killed or cut off, if it is still at it."""
    try:
        pid = int(mark.read_text())
        ours = __doc__ is not None and __doc__.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return
    end = time.monotonic() + 60
    with contextlib.suppress(ProcessLookupError):
        if ours and pid != os.getpid():
            os.kill(pid, signal.SIGTERM)
            while time.monotonic() < end:
                os.kill(pid, 0)
                time.sleep(0.1)


def main() -> None:
    """Rehearse, or only `clean` up after a run that was killed."""
    asked = json.load(sys.stdin)
    mark = Path(asked["mark"])
    end_earlier(mark)
    mark.write_text(f"{os.getpid()}\n")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    try:
        clean(asked["data"])
        result = {} if asked.get("clean") else rehearse(asked)
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        clean(asked["data"])
        mark.unlink(missing_ok=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
