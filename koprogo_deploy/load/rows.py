"""Rows that a load test leaves in the database, and the SQL that removes them. Pure.

KoproGo has no DELETE for most of them. Each carries a mark of its own run, and nothing else is
touched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from koprogo_deploy.load.application import MAIL_DOMAIN, MARK

TABLES = ("expenses", "units", "owners", "buildings")  # in an order that no key stands in the way
_COLUMNS = {
    "expenses": "description",
    "units": "unit_number",
    "owners": "email",
    "buildings": "name",
}
_TOKEN = re.compile(r"[0-9A-Za-z:._-]+")


def clean_sql(run: str | None, tokens: Iterable[str] = ()) -> str:
    """A psql script that removes what load tests wrote, in one transaction, and prints how much.

    Args:
        run: a run's eight characters; None for every run's rows.
        tokens: refresh tokens of the run's own logins.

    Returns:
        Its output is `{"expenses": 3, …}`. The tables are vacuumed and analysed, if anything was
        removed, so that the next run finds them as this one did.
    """
    mark = MARK if run is None else MARK.replace("[0-9a-f]{8}", run)
    parts = [
        "\\set ON_ERROR_STOP on\n\\set QUIET on\n\\pset tuples_only on\n\\pset format unaligned\n"
        "BEGIN;\nSET LOCAL lock_timeout = '10s';\nSET LOCAL statement_timeout = '5min';\n"
    ]
    for table in TABLES:
        pattern = f"^{mark}$"
        if table == "owners":
            pattern = f"^{mark}@{MAIL_DOMAIN.replace('.', '[.]')}$"
        parts.append(_delete(table, f"{_COLUMNS[table]} ~ '{pattern}'"))
    kept = [token for token in tokens if _TOKEN.fullmatch(token)]
    listed = ", ".join(f"'{token}'" for token in kept) or "NULL"
    parts.append(_delete("refresh_tokens", f"token IN ({listed})"))
    counts = ", ".join(f"'{table}', :{table}" for table in (*TABLES, "refresh_tokens"))
    total = " + ".join(f":{table}" for table in (*TABLES, "refresh_tokens"))
    parts.append(
        f"COMMIT;\nSELECT {total} > 0 AS any \\gset\n\\if :any\n"
        f"VACUUM (ANALYZE) {', '.join((*TABLES, 'refresh_tokens'))};\n\\endif\n"
        f"SELECT json_build_object({counts});\n"
    )
    return "".join(parts)


def _delete(table: str, condition: str) -> str:
    return (
        f"WITH gone AS (DELETE FROM {table} WHERE {condition} RETURNING 1)\n"  # noqa: S608
        f"SELECT count(*) AS {table} FROM gone \\gset\n"
    )


def removed(output: str) -> dict[str, int]:
    """What the script says it removed, by table; tables without any left out.

    Raises:
        ValueError: that is not its output.
    """
    lines = output.strip().splitlines()
    found = json.loads(lines[-1]) if lines else None
    if not isinstance(found, dict):
        raise ValueError(f"unexpected output: {output[:200]!r}")
    return {table: int(count) for table, count in found.items() if count}
