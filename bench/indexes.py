"""Indexes of the lists' tables: which a benchmark drops, and that they come back as they were."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.box import Box, undisturbed
from bench.figures import RESULTS, Failed, err
from sandbox import standin

MIGRATION = "20250103000003_add_performance_indexes.sql"
_AGAIN = "-- again --"
TABLES = ("buildings", "units", "owners", "expenses")
# Names of the dropped ones with their definitions, until they are back.
DROPPED = RESULTS / "dropped-indexes.json"


def of_migration(sql: str) -> set[str]:
    """Names of the indexes that the migration is about, of the lists' tables."""
    found = re.findall(r"CREATE INDEX IF NOT EXISTS (\w+)\s+ON (?:public\.)?(\w+)", sql)
    return {name for name, table in found if table in TABLES}


def columns(definition: str) -> tuple[str, ...]:
    """The columns of an index, from its definition."""
    match = re.search(r"USING \w+ \(([^)]*)\)", definition)
    return tuple(match[1].replace(" DESC", "").split(", ")) if match else ()


def same_service(definitions: Mapping[str, str], names: set[str]) -> set[str]:
    """Those of `names` that exist, and others that would serve in their place.

    Another one does if its first column is the first of one of them, on the same table.

    Args:
        definitions: of all indexes that may be dropped, by name.
        names: of those that must not serve.
    """

    def first(name: str) -> tuple[str, str]:
        definition = definitions[name]
        table = re.search(r" ON (?:\w+\.)?(\w+) ", definition)
        return (table[1] if table else "", columns(definition)[0])

    replaced = {first(name) for name in names & set(definitions)}
    return {name for name in definitions if first(name) in replaced}


def secondary(box: Box) -> dict[str, str]:
    """Definitions of the lists' indexes that no constraint needs, by name."""
    tables = ", ".join(f"'{table}'" for table in TABLES)
    query = (
        "SELECT json_object_agg(indexname, indexdef) FROM pg_indexes "
        f"WHERE schemaname = 'public' AND tablename IN ({tables}) AND indexname LIKE 'idx\\_%';"
    )
    found: dict[str, str] = json.loads(box.sql(query))
    return found


def restore(box: Box, definitions: Mapping[str, str]) -> None:
    """Make dropped indexes again, each exactly as it was.

    Raises:
        Failed: one is not as it was.
    """
    again = (d.replace("INDEX ", "INDEX IF NOT EXISTS ", 1) for d in definitions.values())
    box.sql("\n".join(f"{definition};" for definition in again) + "\nANALYZE;")
    now = secondary(box)
    wrong = [name for name, definition in definitions.items() if now.get(name) != definition]
    if wrong:
        raise Failed(f"not as they were before: the indexes {', '.join(sorted(wrong))}")
    DROPPED.unlink(missing_ok=True)


@contextlib.contextmanager
def without(box: Box, names: set[str]) -> Iterator[None]:
    """The database without these indexes for a while."""
    gone = {name: text for name, text in secondary(box).items() if name in names}
    if not gone:
        yield
        return
    # On disk first: what a killed benchmark dropped is made again by the next one.
    DROPPED.parent.mkdir(exist_ok=True)
    DROPPED.write_text(json.dumps(gone, indent=1) + "\n", encoding="utf-8")
    try:
        box.sql("\n".join(f"DROP INDEX {name};" for name in sorted(gone)) + "\nANALYZE;")
        yield
    finally:
        with undisturbed():
            restore(box, gone)


@contextlib.contextmanager
def added(box: Box, definitions: Mapping[str, str]) -> Iterator[None]:
    """Further indexes for a while; their names begin with `bench_`."""
    try:
        if definitions:
            box.sql("\n".join(f"{text};" for text in definitions.values()) + "\nANALYZE;")
        yield
    finally:
        if definitions:
            with undisturbed():
                box.sql("\n".join(f"DROP INDEX IF EXISTS {name};" for name in definitions))


def clean(box: Box) -> None:
    """Bring back what a killed benchmark dropped, and drop what it added."""
    if DROPPED.exists():
        err.print("[dim]a benchmark before this one was killed: its dropped indexes are made[/]")
        restore(box, json.loads(DROPPED.read_text(encoding="utf-8")))
    listed = "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'bench\\_%';"
    left = box.sql(listed).split()
    if left:
        box.sql("\n".join(f"DROP INDEX {name};" for name in left))


@dataclass(frozen=True)
class Plan:
    """How Postgres answered a statement, of EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON).

    Attributes:
        nodes: outermost first, each with the index or table it reads.
        milliseconds: planning and execution.
        rows: that the scans read.
        blocks: of 8 kB, found in the cache or read.
    """

    nodes: tuple[str, ...]
    milliseconds: float
    rows: int
    blocks: int

    @property
    def indexes(self) -> tuple[str, ...]:
        """Names of the indexes it used."""
        return tuple(node.partition(" by ")[2] for node in self.nodes if " by " in node)

    def __str__(self) -> str:
        return (
            f"{' < '.join(self.nodes)}: {self.milliseconds:.2f} ms, {self.rows} rows, "
            f"{self.blocks} blocks"
        )


def parse_plan(explained: str) -> Plan:
    """Read Postgres' JSON."""
    answer = json.loads(explained)[0]
    nodes = list(_walk(answer["Plan"]))
    scans = [node for node in nodes if "Relation Name" in node]
    top = answer["Plan"]
    return Plan(
        nodes=tuple(_named(node) for node in nodes),
        milliseconds=answer["Planning Time"] + answer["Execution Time"],
        rows=sum(round(n["Actual Rows"] * n["Actual Loops"]) for n in scans)
        + sum(round(n.get("Rows Removed by Filter", 0) * n["Actual Loops"]) for n in scans),
        blocks=int(top.get("Shared Hit Blocks", 0) + top.get("Shared Read Blocks", 0)),
    )


def _walk(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for inner in node.get("Plans", ()):
        yield from _walk(inner)


def _named(node: Mapping[str, Any]) -> str:
    name = str(node["Node Type"])
    if "Relation Name" in node:
        name += f" {node['Relation Name']}"
    if "Index Name" in node:
        name += f" by {node['Index Name']}"
    return name


def explain(box: Box, statement: str) -> Plan:
    """The plan of a statement that is run for real, the second time in a session: all is warm."""
    explained = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement};"
    answers = box.sql(f"{explained}\n\\echo {_AGAIN}\n{explained}")
    return parse_plan(answers.partition(_AGAIN)[2])


def statements(table: str, sort: str, where: str) -> Sequence[str]:
    """What the application asks for the first page of a list: the count, then the rows."""
    return (
        f"SELECT count(*) FROM {table}{where}",
        f"SELECT * FROM {table}{where} ORDER BY {sort} ASC LIMIT 20 OFFSET 0",
    )


def migration() -> set[str]:
    """Names of the indexes of 20250103000003."""
    return of_migration(standin.migrations()[MIGRATION])
