"""The README's table of what looks at what is true, as far as names in the code can show it."""

from __future__ import annotations

import ast
import re

import pytest

from koprogo_deploy import door

COLUMNS = ("check", "plan", "smoke", "status")
CHECK, PLAN, SMOKE, STATUS = COLUMNS

# What does the looking, by row and column: functions of these files, tests of the smoke tests.
LOOKS: dict[str, dict[str, tuple[str, ...]]] = {
    "settings and secrets": dict.fromkeys(COLUMNS, ("door.py:open_environment",)),
    "memory budget": {
        CHECK: ("door.py:open_environment",),
        PLAN: ("plan/host.py:host_problems",),
        SMOKE: ("test_memory_limit_as_the_kernel_has_it",),
    },
    "the host's system, disk, clock": {
        PLAN: ("plan/host.py:host_problems",),
        SMOKE: ("test_disk_has_room", "test_clock_is_kept", "test_sysctl_is_in_force"),
        STATUS: ("status.py:troubles",),
    },
    "what a deploy would change": {PLAN: ("plan/make.py:make",)},
    "DNS, TLS, a page and `/health`, from here": {
        SMOKE: ("test_api_answers_through_tls", "test_frontend_serves_a_page"),
        STATUS: ("front.py:look", "status.py:front_troubles"),
    },
    "the certificate's end": {
        SMOKE: ("test_certificate_is_not_about_to_end",),
        STATUS: ("front.py:ending",),
    },
    "closed routes, headers, redirects, open ports": {
        SMOKE: (
            "test_closed_routes_are_closed",
            "test_http_redirects_to_https",
            "test_nothing_else_answers",
        ),
    },
    "logins, and a tenant's lists": {
        SMOKE: (
            "test_superadmin_logs_in_with_our_password",
            "test_a_tenant_reads_what_the_database_holds",
        ),
    },
    "containers, routes and spec of the release": {
        PLAN: ("plan/make.py:services_of",),
        SMOKE: ("test_exactly_the_release_runs", "test_routes_are_those_of_the_release"),
        STATUS: ("status.py:troubles",),
    },
    "the database answers; its migrations": {
        PLAN: ("plan/gather.py:migrations_of",),
        SMOKE: (
            "test_schema_is_migrated_and_indexed",
            "test_postgres_settings_are_in_force",
            "test_the_observer_reads_and_cannot_write",
        ),
        STATUS: ("status.py:look_command",),
    },
    "confinement, secrets in logs and `inspect`": {
        SMOKE: ("test_container_is_confined", "test_no_secret_in_inspect_or_logs"),
    },
    "failed units of the system": {STATUS: ("status.py:host_troubles",)},
    "pending reboot, restarts, kernel kills": {STATUS: ("status.py:notes",)},
    "an operation that was cut": {
        PLAN: ("plan/host.py:cut_problems",),
        STATUS: ("status.py:troubles",),
    },
    "age of backups and drills": {STATUS: ("status.py:data_troubles",)},
    "the journal's chain": {STATUS: ("status.py:troubles",)},
    "the journal's head, kept elsewhere": {STATUS: ("journal.py:compared",)},
}


def table() -> dict[str, dict[str, str]]:
    """The cells of the README's table that are not empty, by row and column."""
    text = (door.ROOT / "README.md").read_text(encoding="utf-8")
    part = text.partition("### What looks at what")[2].partition("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")]
    head, _, *rows = lines
    assert [name.strip("` |") for name in head[-4:]] == list(COLUMNS)
    return {
        name: {
            column: cell.strip()
            for column, cell in zip(COLUMNS, cells, strict=True)
            if cell.strip() != "–"
        }
        for name, *cells in rows
    }


def defined(where: str) -> set[str]:
    """Names of the functions of a file, or of all smoke tests."""
    files = [door.ROOT / "koprogo_deploy" / where] if where else []
    files = files or sorted((door.ROOT / "tests" / "smoke").glob("test_*.py"))
    found: set[str] = set()
    for file in files:
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        found |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    return found


def test_each_cell_has_something_that_looks_and_nothing_more() -> None:
    said = {row: set(cells) for row, cells in table().items()}
    assert said == {row: set(looks) for row, looks in LOOKS.items()}


@pytest.mark.parametrize(
    "look", sorted({look for row in LOOKS.values() for looks in row.values() for look in looks})
)
def test_what_looks_is_there(look: str) -> None:
    where, _, name = look.rpartition(":")
    assert name in defined(where)


def test_figures_of_the_table_are_those_of_the_code() -> None:
    from koprogo_deploy import front

    ends = table()["the certificate's end"]
    assert re.findall(r"\d+", ends["status"]) == [str(front.WARN), str(front.FAIL)]
    assert re.findall(r"\d+", ends["smoke"]) == [str(front.FAIL)]
