"""Content hashes of tables and files: equal content, equal hash, in whatever order rows lie.

A table's hash is over its column names, the number of rows, and the sum of the rows' SHA-256, so
that neither order nor size matters. Rows are read in Postgres' text form under fixed settings.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from koprogo_deploy.data import tree
from koprogo_deploy.data.host import DATABASE, Failed, inside, last_words, psql, sql
from koprogo_deploy.database import quoted

_MODULUS = 1 << 256
_END = b"\\!"  # no row begins so: COPY doubles a backslash or puts a letter behind it

# Every table that holds data of the application: not the catalogs, not what an extension brought,
# and not the schema of our own, which a deploy makes anew.
_TABLES = """
SELECT coalesce(json_agg(json_build_array(nspname, relname,
  (SELECT coalesce(json_agg(attname ORDER BY attname), '[]') FROM pg_attribute
    WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''))
  ORDER BY nspname, relname), '[]')
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind = 'r' AND nspname !~ '^pg_'
  AND nspname NOT IN ('information_schema', 'koprogo_deploy')
  AND NOT EXISTS (SELECT 1 FROM pg_depend
                  WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
"""
_FORM = """SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres';
SET bytea_output = 'hex'; SET extra_float_digits = 1; SET client_encoding = 'UTF8';
"""

Table = tuple[str, str, list[str]]


def table_hash(columns: Iterable[str], rows: int, total: int) -> str:
    """A table's hash from what was counted."""
    heading = json.dumps([*columns])
    return hashlib.sha256(f"{heading} {rows} {total:064x}".encode()).hexdigest()


def read_rows(lines: Iterable[bytes]) -> tuple[int, int]:
    """Rows up to the end of a table: their number, and the sum of their hashes.

    Raises:
        Failed: the lines ended before the table did.
    """
    total = 0
    for rows, line in enumerate(lines):
        row = line.rstrip(b"\n")
        if row == _END:
            return rows, total
        total = (total + int.from_bytes(hashlib.sha256(row).digest(), "big")) % _MODULUS
    raise Failed("the rows ended in the middle of a table")


def script(tables: Iterable[Table], snapshot: str = "") -> str:
    """SQL that writes every row of the tables, the end of each marked.

    Args:
        tables: schema, name and columns of each.
        snapshot: of another transaction, to see exactly what it sees.
    """
    lines = [_FORM, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"]
    if snapshot:
        lines.append(f"SET TRANSACTION SNAPSHOT '{snapshot}';")
    for schema, name, columns in tables:
        names = f"({', '.join(map(quoted, columns))}) " if columns else ""
        lines.append(f"COPY {quoted(schema)}.{quoted(name)} {names}TO STDOUT;")
        lines.append(f"SELECT '{_END.decode()}';")
    return "\n".join([*lines, "COMMIT;", ""])


def tables(container: str, snapshot: str = "", database: str = DATABASE) -> dict[str, Any]:
    """Rows and hash of every table of a server's database, by `schema.table`.

    Args:
        container: the server's.
        snapshot: as for `script`; without one, of this moment.
        database: its name.

    Raises:
        Failed: the server does not answer, or a table cannot be read.
    """
    known: list[Table] = json.loads(sql(container, _TABLES, database))
    found = {}
    with tempfile.TemporaryFile() as text, tempfile.TemporaryFile() as said:
        text.write(script(known, snapshot).encode())
        text.seek(0)
        with subprocess.Popen(
            inside(container, *psql(database)), stdin=text, stdout=subprocess.PIPE, stderr=said
        ) as client:
            assert client.stdout is not None
            try:
                for schema, name, columns in known:
                    rows, total = read_rows(client.stdout)
                    found[f"{schema}.{name}"] = {
                        "rows": rows,
                        "hash": table_hash(columns, rows, total),
                    }
            except Failed:
                pass  # psql says why, below
        said.seek(0)
        if client.returncode or len(found) != len(known):
            words = last_words(said.read().decode(errors="replace"), client.returncode)
            raise Failed(f"the tables of {container} cannot be read: {words}")
    return found


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as the disk gives it: what is still in the page cache is dropped."""
    with path.open("rb") as file:
        return _hash(file.fileno(), os.fstat(file.fileno()).st_size)[1]


def _hash(file: int, size: int) -> tuple[int, str]:
    """Bytes and SHA-256 of an open file, which is read no further than it was long at first: it may
    grow as fast as it is read.
    """
    digest, length = hashlib.sha256(), 0
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    while chunk := os.read(file, min(1 << 20, size - length)):
        digest.update(chunk)
        length += len(chunk)
    return length, digest.hexdigest()


def files(directory: Path, held: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Bytes and SHA-256 of every regular file below a directory, by its path in there.

    Args:
        directory: below which nobody else may write; to the files themselves they may.
        held: told each file that somebody keeps from being read, which is not hashed then.

    Raises:
        BlockingIOError: there is such a file, and nobody is told.
    """
    found: dict[str, Any] = {}
    for path, at in tree.regular(directory):
        try:
            with tree.reading(os.path.basename(path), at) as file:  # noqa: PTH119
                assert file is not None
                length, digest = _hash(file, os.fstat(file).st_size)
        except BlockingIOError:
            if held is None:
                raise
            held(path)
        else:
            found[path] = {"bytes": length, "sha256": digest}
    return dict(sorted(found.items()))


def differences(wanted: dict[str, Any], found: dict[str, Any], what: str) -> list[str]:
    """How two sets of hashes differ, a line each; empty when they are equal.

    Args:
        wanted: as they should be, by name.
        found: as they are.
        what: `table` or `upload`.
    """
    missing, more = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    lines = [f"{what} {tree.shown(name)} is missing" for name in missing]
    lines += [f"{what} {tree.shown(name)} is not in the manifest" for name in more]
    for name in sorted(set(wanted) & set(found)):
        if wanted[name] != found[name]:
            rows = [each.get("rows") for each in (wanted[name], found[name])]
            told = f" ({rows[0]} rows, {rows[1]} found)" if rows[0] != rows[1] else ""
            lines.append(f"{what} {tree.shown(name)} differs{told}")
    return lines
