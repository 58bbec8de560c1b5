"""Dumps: to a file that is read back before it counts, and from server to server."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from koprogo_deploy.data import hashes, scratch
from koprogo_deploy.data.host import (
    DATABASE,
    MB,
    POSTGRES,
    Failed,
    inside,
    last_words,
    psql,
    run,
    sql,
    sync,
)
from koprogo_deploy.database import (
    FORMER_TRIGGER,
    HIDDEN_QUERY,
    OWNER,
    SCHEMA,
    TRIGGER,
    WATCH,
    hidden_told,
    literal,
)

STAYS_FREE = 200 * MB  # of the disk: logs and WAL go on meanwhile
_CHUNK = 1 << 20
_HEAD = 1 << 20  # bytes of a dump in which its list of contents is expected


@contextlib.contextmanager
def snapshot(container: str = POSTGRES) -> Iterator[str]:
    """Hold a transaction open, and give the id by which others see exactly what it sees."""
    client = subprocess.Popen(
        inside(container, *psql(DATABASE)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    try:
        client.stdin.write(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();\n"
        )
        client.stdin.flush()
        identity = client.stdout.readline().strip()
        if not identity:
            raise Failed(f"{container} gives no snapshot: does it run?")
        yield identity
    finally:
        client.stdin.close()
        client.wait()


def size(container: str = POSTGRES) -> int:
    """Bytes of the database on the disk: a dump of it is smaller."""
    return int(sql(container, f"SELECT pg_database_size({literal(DATABASE)})"))


def room(directory: Path, needed: int, what: str, stays: int = STAYS_FREE) -> None:
    """Refuse before anything is written.

    Args:
        directory: where it would be written.
        needed: bytes, at most.
        what: it is.
        stays: bytes that have to stay free.

    Raises:
        Failed: the disk has not enough, with the numbers.
    """
    there = os.statvfs(directory)
    free = there.f_bavail * there.f_frsize
    if free < needed + stays:
        raise Failed(
            f"{what} needs up to {needed // MB} MB in {directory}, and {stays // MB} MB have "
            f"to stay free: {free // MB} MB are. Nothing was written"
        )


def command(compress: int, seen: str = "") -> list[str]:
    """Command line of pg_dump: custom format, to standard output.

    Args:
        compress: level of gzip; 0 for none, where something else compresses.
        seen: id of a snapshot to dump.
    """
    options = [f"--snapshot={seen}"] if seen else []
    return ["pg_dump", "-U", "postgres", "-Fc", "-Z", str(compress), *options, DATABASE]


def refuse_hidden_tables() -> None:
    """Refuse to dump a database of which pg_dump would leave a table out.

    Raises:
        Failed: a table was given to an extension, so that pg_dump passes it over.
    """
    if hidden := json.loads(sql(POSTGRES, HIDDEN_QUERY)):
        raise Failed("; ".join(map(hidden_told, hidden)))


def dump(file: Path, compress: int = 6, hashed: bool = False) -> dict[str, Any]:
    """Dump the real database to a file: written beside, on the disk, read back whole, renamed.

    Args:
        file: where to; one that is there is replaced at the end.
        compress: level of gzip.
        hashed: hash every table as well, of the very same moment.

    Returns:
        `file`, `bytes`, `seconds`, `sha256`, `database` (the bytes of that), and `tables` if they
        were asked for.

    Raises:
        Failed: it could not be made or does not read back; nothing of it is left.
    """
    began = time.monotonic()
    refuse_hidden_tables()
    whole = size()
    room(file.parent, whole, "the dump")
    part = file.with_name(f"{file.name}.part")
    result: dict[str, Any] = {"file": str(file), "database": whole}
    try:
        with snapshot() as seen:
            written, digest = _stream(inside(POSTGRES, *command(compress, seen)), part)
            if hashed:
                result["tables"] = hashes.tables(POSTGRES, seen)
        if hashes.file_hash(part) != digest:
            raise Failed(f"{part} does not read back as it was written")
        check(part)
        part.rename(file)
        sync(file.parent)
    finally:
        part.unlink(missing_ok=True)
    seconds = round(time.monotonic() - began, 1)
    return {**result, "bytes": written, "seconds": seconds, "sha256": digest}


def _stream(program: list[str], to: Path) -> tuple[int, str]:
    digest, written = hashlib.sha256(), 0
    with tempfile.TemporaryFile() as said, to.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=said) as client:
            assert client.stdout is not None
            try:
                while chunk := client.stdout.read(_CHUNK):
                    file.write(chunk)
                    digest.update(chunk)
                    written += len(chunk)
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                end(client)
                raise Failed(f"{to}: {error.strerror} after {written // MB} MB") from None
        said.seek(0)
        if client.returncode:
            words = last_words(said.read().decode(errors="replace"), client.returncode)
            raise Failed(f"pg_dump: {words}")
    return written, digest.hexdigest()


def end(client: subprocess.Popen[bytes]) -> None:
    """End a client whose output nobody wants any more."""
    # It is another user's, to whom the confined unit cannot signal: the closed pipe ends it then.
    with contextlib.suppress(PermissionError):
        client.kill()


def check(file: Path, container: str = POSTGRES) -> None:
    """Read a dump from its beginning to its end as a restore would, without a server.

    Raises:
        Failed: it is cut short or damaged.
    """
    with file.open("rb") as content:
        _read(
            inside(container, "pg_restore", "-f", "/dev/null"), content, f"{file} is no whole dump"
        )


def restore(file: Path, container: str = scratch.NAME, database: str = DATABASE) -> dict[str, Any]:
    """Restore a dump into an empty database; stops at the first error.

    Args:
        file: a dump in custom format.
        container: the server's; the scratch one unless given.
        database: its name.
    """
    began = time.monotonic()

    def whole() -> IO[bytes]:
        return file.open("rb")

    with whole() as content:
        listed = _read(inside(container, *LIST), content, "pg_restore")
    first, rest = entries(listed.decode(), sql(container, _TRUSTED, database).split())
    for names, role in ((first, "postgres"), (rest, OWNER)):
        if not names:
            continue
        with whole() as content, _restoring(container, database, role, names) as program:
            _read(program.command, content, "pg_restore", program.kept)
    return {"file": str(file), "database": database, "seconds": round(time.monotonic() - began, 1)}


LIST = ("pg_restore", "-l")
_ENTRY = re.compile(r"\d+; \d+ \d+ (?P<what>.*)")
# What only the superuser may make, and what is not the application's at all: our own schema with
# the superadmin's guard, which the live database gives a restored one, and what the observer may,
# which a deploy gives it.
_EXTENSION = re.compile(r'(COMMENT - )?EXTENSION (- )?"?(?P<name>[^\s"]+)')
# Those the owner makes, in their order, and owns as before: a schema may have to be there first.
_TRUSTED = "SELECT DISTINCT name FROM pg_available_extension_versions WHERE trusted"
_NOT_THEIRS = re.compile(
    rf"([A-Z ]+ {SCHEMA} |[A-Z]+ - (SCHEMA )?{SCHEMA}( |$)|ACL pg_catalog |"
    rf"(EVENT TRIGGER|COMMENT) - (EVENT TRIGGER )?{WATCH}|"
    rf"(TRIGGER|COMMENT) public (TRIGGER )?users ({TRIGGER}|{FORMER_TRIGGER})( |$))"
)


def entries(listed: str, trusted: Iterable[str]) -> tuple[list[str], list[str]]:
    """Lines of a dump's list of contents: what the superuser restores, and what the owner. Pure.

    Everything else is the owner's: constraints, generated columns and domains of the application
    run its functions while rows come in, and they run as whoever restores.

    Args:
        listed: what `pg_restore -l` printed.
        trusted: extensions that the owner of a database may make.
    """
    first: list[str] = []
    rest: list[str] = []
    for line in listed.splitlines():
        entry = _ENTRY.fullmatch(line)
        if entry is None or _NOT_THEIRS.match(entry["what"]):
            continue
        extension = _EXTENSION.match(entry["what"])
        by_superuser = extension is not None and extension["name"] not in trusted
        (first if by_superuser else rest).append(line)
    return first, rest


def restore_command(database: str, role: str, names: int) -> list[str]:
    """Command line of pg_restore from standard input.

    Args:
        database: an empty one.
        role: that restores.
        names: descriptor of a file with the lines of the list of contents that it restores.
    """
    # Whoever it was in the dump: everything is the owner's, as the application leaves it.
    options = ("--exit-on-error", "--no-owner", "-L", f"/proc/self/fd/{names}")
    return ["pg_restore", "-U", role, "-d", database, *options]


@dataclass(frozen=True)
class _Program:
    command: list[str]
    kept: tuple[int, ...]  # descriptors that it needs


@contextlib.contextmanager
def _restoring(
    container: str, database: str, role: str, names: Iterable[str]
) -> Iterator[_Program]:
    # In memory: there is no path that both we and the container see.
    descriptor = os.memfd_create("contents", 0)
    try:
        os.write(descriptor, "".join(f"{line}\n" for line in names).encode())
        command = inside(container, *restore_command(database, role, descriptor))
        yield _Program(command, (descriptor,))
    finally:
        os.close(descriptor)


def _read(
    program: list[str], content: IO[bytes] | None, what: str, kept: tuple[int, ...] = ()
) -> bytes:
    done = subprocess.run(program, stdin=content, capture_output=True, check=False, pass_fds=kept)
    if done.returncode:
        raise Failed(f"{what}: {last_words(done.stderr.decode(errors='replace'), done.returncode)}")
    return done.stdout


def copy(hashed: bool = False) -> dict[str, Any]:
    """Stream the real database into the scratch server; nothing lies on the disk in between.

    Args:
        hashed: hash every table as well, of the very moment that is copied.

    Returns:
        `bytes`, `seconds`, and `tables` if they were asked for.

    Raises:
        Failed: either end failed; with its words.
    """
    began = time.monotonic()
    refuse_hidden_tables()
    scratch_size = size()
    room(Path(run("docker", "info", "-f", "{{.DockerRootDir}}").strip()), scratch_size, "the copy")
    result: dict[str, Any] = {"bytes": scratch_size}
    with snapshot() as seen:
        _piped(inside(POSTGRES, *command(0, seen)))
        if hashed:
            result["tables"] = hashes.tables(POSTGRES, seen)
    return {**result, "seconds": round(time.monotonic() - began, 1)}


def _piped(dumping: list[str]) -> None:
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(dumping, stdout=subprocess.PIPE, stderr=said) as reader,
    ):
        assert reader.stdout is not None
        failed = None
        try:
            _into_scratch(reader.stdout)
        except Failed as error:
            failed = error
            end(reader)
        reader.stdout.close()
        code = reader.wait()
        said.seek(0)
        words = last_words(said.read().decode(errors="replace"), code)
    if code > 0:  # what it says is why the other end failed, too
        raise Failed(f"pg_dump: {words}")
    if failed:
        raise failed


def _into_scratch(dumped: IO[bytes]) -> None:
    """Restore a stream: its beginning is read once more for each of who restores."""
    head = b""
    while True:
        more = dumped.read(_HEAD)
        head += more
        try:
            listed = _fed(inside(scratch.NAME, *LIST), head)
            break
        except Failed:  # the list of contents goes on, or the dump ended before it
            if not more:
                raise
    first, rest = entries(listed.decode(), sql(scratch.NAME, _TRUSTED).split())
    if first:
        with _restoring(scratch.NAME, DATABASE, "postgres", first) as program:
            _fed(program.command, head, program.kept)
    with _restoring(scratch.NAME, DATABASE, OWNER, rest) as program:
        _fed(program.command, head, program.kept, dumped)


def _fed(
    program: list[str], head: bytes, kept: tuple[int, ...] = (), more: IO[bytes] | None = None
) -> bytes:
    """What a program prints that reads this, and then the rest of a stream."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as printed:
        with subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=printed, stderr=said, pass_fds=kept
        ) as client:
            assert client.stdin is not None
            # One that has what it wants reads no further; one that fails says so below.
            with contextlib.suppress(BrokenPipeError):
                client.stdin.write(head)
                if more is not None:
                    shutil.copyfileobj(more, client.stdin, _CHUNK)
                client.stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                client.stdin.close()
        said.seek(0)
        printed.seek(0)
        if client.returncode:
            words = said.read().decode(errors="replace")
            raise Failed(f"pg_restore: {last_words(words, client.returncode)}")
        return printed.read()
