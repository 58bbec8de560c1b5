"""Migrations at start, with the bookkeeping of sqlx so that the real image can follow."""

import hashlib
import logging
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from koprogo_standin import database

if TYPE_CHECKING:
    from koprogo_standin.database import Connection

log = logging.getLogger("koprogo_standin")

FOLDER = Path(__file__).resolve().parent.parent / "migrations"
LOCK = 0x3D32AD9E

# sqlx's columns, in its order; times are nanoseconds, and -1 while one is not known.
COLUMNS = {
    "version": "bigint",
    "description": "text",
    "installed_on": "timestamp with time zone DEFAULT now()",
    "success": "boolean",
    "checksum": "bytea",
    "execution_time": "bigint",
}
TABLE = (
    "CREATE TABLE IF NOT EXISTS _sqlx_migrations (PRIMARY KEY (version), "
    + ", ".join(f"{name} {type} NOT NULL" for name, type in COLUMNS.items())
    + ")"
)
RECORD = (
    "INSERT INTO _sqlx_migrations (execution_time, success, version, description, checksum) "
    "SELECT -1, true, $1::bigint, $2::text, $3::bytea"
)


class MigrationError(Exception):
    """The schema and this program's migrations do not fit; it must not start."""


class VersionMissingError(MigrationError):
    def __init__(self, version: int) -> None:
        super().__init__(f"VersionMissing({version}): applied before, and unknown to this program")


class VersionMismatchError(MigrationError):
    def __init__(self, version: int) -> None:
        super().__init__(f"VersionMismatch({version}): modified since it was applied")


class DirtyError(MigrationError):
    def __init__(self, version: int) -> None:
        super().__init__(f"Dirty({version}): applied in part; repair it and remove its row")


@dataclass(frozen=True)
class Migration:
    version: int
    description: str
    sql: str

    @property
    def checksum(self) -> bytes:
        return hashlib.sha384(self.sql.encode()).digest()


BROKEN = Migration(29991231235959, "fault migration fails", "SELECT 1 / 0")


def read(*folders: Path | None) -> list[Migration]:
    """All of the migrations by version; a later folder replaces what it has as well."""
    found: dict[int, Migration] = {}
    for folder in filter(None, folders):
        for path in folder.glob("*.sql"):
            number, _, name = path.stem.partition("_")
            # Bytes, not text mode: a translated line end would be another checksum.
            sql = path.read_bytes().decode()
            if number.isdigit() and not name.endswith(".down"):
                found[int(number)] = Migration(int(number), name.replace("_", " "), sql)
    return [found[version] for version in sorted(found)]


async def run(connection: "Connection", migrations: Iterable[Migration]) -> list[int]:
    """Apply what is pending; the versions applied."""
    name = await connection.fetchval("SELECT current_database()")
    lock = LOCK * zlib.crc32(name.encode())
    # A session lock, so that of two starting at once the second finds nothing left to do.
    await connection.execute("SELECT pg_advisory_lock($1)", lock)
    try:
        return await apply(connection, list(migrations))
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", lock)


async def apply(connection: "Connection", migrations: list[Migration]) -> list[int]:
    await connection.execute(TABLE)
    rows = await connection.fetch("SELECT * FROM _sqlx_migrations ORDER BY version")
    for row in rows:
        if not row["success"]:
            raise DirtyError(row["version"])
    known = {migration.version for migration in migrations}
    for row in rows:
        if row["version"] not in known:
            raise VersionMissingError(row["version"])
    applied = {row["version"]: row["checksum"] for row in rows}
    done = []
    for migration in migrations:
        if migration.version not in applied:
            await apply_one(connection, migration)
            done.append(migration.version)
        elif applied[migration.version] != migration.checksum:
            raise VersionMismatchError(migration.version)
    return done


async def apply_one(connection: "Connection", migration: Migration) -> None:
    started = time.perf_counter_ns()
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                RECORD, migration.version, migration.description, migration.checksum
            )
    except database.DatabaseError as error:
        raise MigrationError(f"ExecuteMigration({migration.version}): {error}") from error
    elapsed = time.perf_counter_ns() - started
    await connection.execute(
        "UPDATE _sqlx_migrations SET execution_time = $1 WHERE version = $2",
        elapsed,
        migration.version,
    )
    log.info("migration %d %s applied", migration.version, migration.description)
