"""The SQL that removes a run's rows."""

from __future__ import annotations

import re

import pytest

from koprogo_deploy.load import application, rows
from koprogo_deploy.load.application import KINDS, Tenant
from tests.unit.load.test_application import NOW

TENANT = Tenant("a@b.be", "org", ("b",))
COLUMNS = {"buildings": "name", "units": "unit_number", "owners": "email",
           "expenses": "description"}  # fmt: skip


def patterns(script: str) -> dict[str, str]:
    return dict(re.findall(r"DELETE FROM (\w+) WHERE \w+ ~ '(.*?)' RETURNING", script))


@pytest.mark.parametrize("table", COLUMNS)
def test_what_a_run_writes_is_what_is_removed(table: str) -> None:
    kind = KINDS[f"POST /{table}"]
    written = application.body(kind, TENANT, "0123abcd", 1_234_567, NOW)[COLUMNS[table]]
    assert re.match(patterns(rows.clean_sql(None))[table], written)
    assert re.match(patterns(rows.clean_sql("0123abcd"))[table], written)
    assert not re.match(patterns(rows.clean_sql("fedcba98"))[table], written)


@pytest.mark.parametrize(
    "text", ["load-", "load-balancer-000001", "xload-0123abcd-000001", "load-0123abcd-1 B",
             "load-0123abcd-000001@gmail.com", "Load-0123ABCD-000001"]
)  # fmt: skip
def test_what_people_write_is_left_alone(text: str) -> None:
    for pattern in patterns(rows.clean_sql(None)).values():
        assert not re.match(pattern, text)


def test_one_transaction_then_the_tables_are_as_before() -> None:
    script = rows.clean_sql("0123abcd", ["u:1:x", "u:2:y"])
    assert script.count("BEGIN;") == script.count("COMMIT;") == 1
    assert script.index("DELETE FROM refresh_tokens") < script.index("COMMIT;")
    assert script.index("COMMIT;") < script.index("VACUUM (ANALYZE)")
    assert "token IN ('u:1:x', 'u:2:y')" in script


def test_a_token_that_could_be_sql_is_left_out() -> None:
    assert "token IN (NULL)" in rows.clean_sql("0123abcd", ["x'); DROP TABLE users; --"])


def test_counts_are_read_from_the_last_line() -> None:
    assert rows.removed('noise\n{"expenses": 3, "units": 0}\n') == {"expenses": 3}
    with pytest.raises(ValueError, match="unexpected output"):
        rows.removed("[]")
