"""Dumps: to a file that is read back before it counts, and from server to server."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
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
    run,
    sql,
    sync,
)

STAYS_FREE = 200 * MB  # of the disk: logs and WAL go on meanwhile
_CHUNK = 1 << 20


@contextlib.contextmanager
def snapshot(container: str = POSTGRES) -> Iterator[str]:
    """Hold a transaction open, and give the id by which others see exactly what it sees."""
    client = subprocess.Popen(
        inside(container, "psql", "-XqAt", "-U", "postgres", "-d", DATABASE),
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
    return int(sql(container, f"SELECT pg_database_size('{DATABASE}')"))


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
    with file.open("rb") as content:
        _read(inside(container, *restore_command(database)), content, "pg_restore")
    return {"file": str(file), "database": database, "seconds": round(time.monotonic() - began, 1)}


def restore_command(database: str = DATABASE) -> list[str]:
    """Command line of pg_restore from standard input."""
    return ["pg_restore", "-U", "postgres", "-d", database, "--exit-on-error"]


def _read(program: list[str], content: IO[bytes] | None, what: str) -> None:
    done = subprocess.run(program, stdin=content, capture_output=True, check=False)
    if done.returncode:
        raise Failed(f"{what}: {last_words(done.stderr.decode(errors='replace'), done.returncode)}")


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
    scratch_size = size()
    room(Path(run("docker", "info", "-f", "{{.DockerRootDir}}").strip()), scratch_size, "the copy")
    result: dict[str, Any] = {"bytes": scratch_size}
    with snapshot() as seen:
        _piped(inside(POSTGRES, *command(0, seen)), inside(scratch.NAME, *restore_command()))
        if hashed:
            result["tables"] = hashes.tables(POSTGRES, seen)
    return {**result, "seconds": round(time.monotonic() - began, 1)}


def _piped(dumping: list[str], restoring: list[str]) -> None:
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(dumping, stdout=subprocess.PIPE, stderr=said) as reader,
    ):
        failed = None
        try:
            _read(restoring, reader.stdout, "pg_restore")
        except Failed as error:
            failed = error
            end(reader)
        assert reader.stdout is not None
        reader.stdout.close()
        code = reader.wait()
        said.seek(0)
        words = last_words(said.read().decode(errors="replace"), code)
    if failed:
        raise failed
    if code:
        raise Failed(f"pg_dump: {words}")
