"""The plan of a tenant's own list, as the application asks for it. Pure: SQL text and decisions.

What the application asks is not ours. `LISTS` is KoproGo's contract at its pinned revision; where
pg_stat_statements has seen the application ask otherwise, its own text is explained instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from koprogo_deploy.debug.ask import literal, one_line
from koprogo_deploy.debug.indexes import SMALL_PAGES

MISESTIMATE = 10  # times; below it a plan seldom becomes another one


@dataclass(frozen=True)
class List:
    """A list of the API: its table, what it selects, how it may be sorted.

    Attributes:
        sorts: columns it sorts by, the default first; empty where the order is fixed.
        fixed: the fixed order.
        filtered: whether KoproGo filters it by the caller's organisation.
        paged: whether it has a count and pages.
    """

    table: str
    columns: tuple[str, ...]
    sorts: tuple[str, ...] = ()
    fixed: str = ""
    filtered: bool = True
    paged: bool = True


def _columns(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LISTS = {
    "buildings": List(
        "buildings",
        _columns(
            "id name address city postal_code country total_units construction_year created_at "
            "updated_at"
        ),
        _columns("created_at name total_units city construction_year"),
    ),
    "units": List(
        "units",
        _columns("id building_id unit_number unit_type floor surface_area quota owner_id"),
        _columns("unit_number floor surface_area created_at"),
        filtered=False,
    ),
    "owners": List(
        "owners",
        _columns("id first_name last_name email phone address city postal_code country"),
        _columns("last_name first_name email created_at"),
    ),
    "expenses": List(
        "expenses",
        _columns(
            "id building_id category description amount expense_date payment_status supplier "
            "invoice_number"
        ),
        _columns("expense_date amount created_at payment_status"),
        filtered=False,
    ),
    "meetings": List(
        "meetings",
        _columns(
            "id building_id meeting_type title description scheduled_date location status agenda "
            "attendees_count created_at updated_at"
        ),
        fixed="scheduled_date DESC",
    ),
    "documents": List(
        "documents",
        _columns(
            "id building_id document_type title description file_path file_size mime_type "
            "uploaded_by related_meeting_id related_expense_id created_at updated_at"
        ),
        fixed="created_at DESC",
    ),
    "users": List(
        "users",
        _columns("id email first_name last_name role organization_id is_active created_at"),
        fixed="created_at DESC",
        filtered=False,
        paged=False,
    ),
}


@dataclass(frozen=True)
class Page:
    """What is asked of a list.

    Raises:
        ValueError: the list cannot be asked so; the message says what it can.
    """

    endpoint: str
    page: int = 1
    per_page: int = 20
    sort: str = ""
    descending: bool = False

    def __post_init__(self) -> None:
        """Refuse what the application refuses."""
        if self.endpoint not in LISTS:
            raise ValueError(f'no list "{self.endpoint}"; there are {", ".join(LISTS)}')
        if self.page < 1:
            raise ValueError(f"page is 1 or more, not {self.page}")
        if not 1 <= self.per_page <= 100:
            raise ValueError(f"per-page is 1 to 100, not {self.per_page}")
        known = self.list.sorts
        if self.sort and self.sort not in known:
            other = f"it can sort by {', '.join(known)}" if known else "its order is fixed"
            raise ValueError(f"{self.endpoint} cannot sort by {self.sort}; {other}")

    @property
    def list(self) -> List:
        """The list asked."""
        return LISTS[self.endpoint]

    @property
    def offset(self) -> int:
        """Rows before the page."""
        return (self.page - 1) * self.per_page

    @property
    def order(self) -> str:
        """Its ORDER BY, such as `unit_number ASC`."""
        if self.list.fixed:
            return self.list.fixed
        return f"{self.sort or self.list.sorts[0]} {'DESC' if self.descending else 'ASC'}"


# --- what the application asks -------------------------------------------------------------------

_PAGE = re.compile(
    r"SELECT (?P<columns>[\w.\s,:*\"()]+?) FROM (?P<table>\w+)"
    r"(?: WHERE organization_id = (?P<org>\$\d+))?"
    r" ORDER BY (?P<order>\w+(?: (?:ASC|DESC))?)"
    r"(?: LIMIT (?P<limit>\$\d+) OFFSET (?P<offset>\$\d+))?",
    re.IGNORECASE,
)
_COUNT = re.compile(
    r"SELECT count\((?:\*|\w+)\)(?: AS \w+)? FROM (?P<table>\w+)"
    r"(?: WHERE organization_id = (?P<org>\$\d+))?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Seen:
    """A statement as pg_stat_statements has it."""

    query: str
    calls: int


@dataclass(frozen=True)
class Query:
    """A statement to explain, with `$n` for what the application binds.

    Attributes:
        arguments: what is bound, in the order of `$1`, `$2`, …: `org`, `limit` or `offset`.
        calls: how often the application sent it; None: never seen, it is the contract's.
    """

    text: str
    arguments: tuple[str, ...]
    filtered: bool
    calls: int | None = None


def seen_sql(page: Page) -> str:
    """One JSON list: statements that read the list's table, most called first."""
    return f"""
SELECT coalesce(json_agg(json_build_object('query', query, 'calls', calls)), '[]') FROM (
  SELECT query, sum(calls) AS calls FROM public.pg_stat_statements
  WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND userid = (SELECT datdba FROM pg_database WHERE datname = current_database())
    AND query ILIKE '%FROM {page.list.table}%' AND query ILIKE 'SELECT%'
  GROUP BY query ORDER BY 2 DESC, 1 LIMIT 200) AS s;
"""  # noqa: S608 - a table of ours


def page_query(page: Page, seen: Sequence[Seen]) -> Query:
    """The query of a page: the application's own if it was seen, else the contract's."""
    for statement in seen:
        text = " ".join(statement.query.split())
        match = _PAGE.fullmatch(text)
        if not match or match["table"].lower() != page.list.table or _unfit(page, match["org"]):
            continue
        order = match["order"].upper()
        order = order if order.endswith(("ASC", "DESC")) else f"{order} ASC"
        if order != page.order.upper() or bool(match["limit"]) != page.list.paged:
            continue
        names = {match[name]: name for name in ("org", "limit", "offset") if match[name]}
        return _seen(statement, text, names, bool(match["org"]))
    where = " WHERE organization_id = $1" if page.list.filtered else ""
    arguments = ["org"] if where else []
    table = page.list.table
    text = f"SELECT {', '.join(page.list.columns)} FROM {table}{where}"  # noqa: S608 - ours
    text += f" ORDER BY {page.order}"
    if page.list.paged:
        text += f" LIMIT ${len(arguments) + 1} OFFSET ${len(arguments) + 2}"
        arguments += ["limit", "offset"]
    return Query(text, tuple(arguments), page.list.filtered)


def count_query(page: Page, seen: Sequence[Seen]) -> Query | None:
    """The query that counts the list's rows for its pagination; None where it has none."""
    if not page.list.paged:
        return None
    for statement in seen:
        text = " ".join(statement.query.split())
        match = _COUNT.fullmatch(text)
        if match and match["table"].lower() == page.list.table and not _unfit(page, match["org"]):
            names = {match["org"]: "org"} if match["org"] else {}
            return _seen(statement, text, names, bool(match["org"]))
    where = " WHERE organization_id = $1" if page.list.filtered else ""
    text = f"SELECT count(*) FROM {page.list.table}{where}"  # noqa: S608 - a table of ours
    return Query(text, ("org",) if where else (), page.list.filtered)


def _unfit(page: Page, org: str | None) -> bool:
    # Without a filter it is the superadmin's. A list that KoproGo forgot to filter may be mended.
    return page.list.filtered and org is None


def _seen(statement: Seen, text: str, names: Mapping[str, str], filtered: bool) -> Query:
    ordered = sorted(names, key=lambda parameter: int(parameter[1:]))
    # pg_stat_statements numbers constants on from the parameters: the order is what counts.
    for number, parameter in enumerate(ordered, start=1):
        text = re.sub(rf"{re.escape(parameter)}\b", f"${number}", text)
    return Query(text, tuple(names[p] for p in ordered), filtered, statement.calls)


def explain_sql(queries: Sequence[Query], organization: str, page: Page) -> str:
    """Prepare each query as the application does, and explain its execution; a JSON for each."""
    values = {
        "org": literal(organization),
        "limit": str(page.per_page),
        "offset": str(page.offset),
    }
    # The application's own text, which names its tables as it does.
    lines = ["SET search_path = pg_catalog, public;"]
    for number, query in enumerate(queries):
        bound = ", ".join(values[name] for name in query.arguments)
        lines.append(f"PREPARE debug_{number} AS {query.text};")
        lines.append(
            "EXPLAIN (ANALYZE, BUFFERS, SETTINGS, FORMAT JSON) "
            f"EXECUTE debug_{number}{f'({bound})' if bound else ''};"
        )
    return "\n".join(lines) + "\n"


# --- whose list ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Organization:
    """An organisation and how many rows of the list are its own."""

    id: str
    name: str
    slug: str
    rows: int


@dataclass(frozen=True)
class About:
    """The list's table: all its rows, pages of 8 kB, and the columns its indexes begin with."""

    rows: int
    pages: int
    analyzed: str | None
    indexes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def about_sql(page: Page) -> str:
    """Two JSON values: organisations with their rows, and the list's table."""
    table = page.list.table
    return f"""
SELECT coalesce(json_agg(json_build_object('id', id, 'name', name, 'slug', slug, 'rows', rows)
                         ORDER BY rows DESC, name), '[]')
FROM (SELECT o.id, o.name, o.slug, coalesce(n.rows, 0) AS rows FROM public.organizations o
      LEFT JOIN (SELECT organization_id, count(*) AS rows FROM public.{table} GROUP BY 1) n
        ON n.organization_id = o.id) AS counted;
SELECT json_build_object(
  'rows', reltuples::bigint, 'pages', pg_relation_size(oid) / current_setting('block_size')::int,
  'analyzed', (SELECT greatest(last_analyze, last_autoanalyze) FROM pg_stat_all_tables s
               WHERE s.relid = c.oid),
  'indexes', (SELECT coalesce(json_object_agg(
      (SELECT relname FROM pg_class i WHERE i.oid = indexrelid),
      (SELECT json_agg(a.attname ORDER BY n) FROM unnest(indkey::int[]) WITH ORDINALITY AS k(key, n)
       JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = key)), '{{}}')
    FROM pg_index WHERE indrelid = c.oid AND indpred IS NULL AND indisvalid))
FROM pg_class c WHERE oid = 'public.{table}'::regclass;
"""  # noqa: S608 - a table of ours


def about(found: Mapping[str, Any]) -> About:
    """The second value of `about_sql`."""
    indexes = {name: tuple(columns or ()) for name, columns in found["indexes"].items()}
    return About(found["rows"], found["pages"], found["analyzed"], indexes)


def choose(organizations: Sequence[Organization], asked: str | None) -> Organization:
    """The organisation asked for by name or slug, or the one with most rows.

    Raises:
        ValueError: there is none, or none of that name.
    """
    if not organizations:
        raise ValueError("the database has no organisation")
    if asked is None:
        return organizations[0]
    wanted = asked.casefold()
    for organization in organizations:
        if wanted in (organization.name.casefold(), organization.slug.casefold(), organization.id):
            return organization
    known = ", ".join(o.slug for o in organizations[:10])
    raise ValueError(f'no organisation is called "{asked}"; there are {known}')


# --- reading a plan ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A node of a plan. Times in ms and rows over all loops; blocks of 8 kB, children's included.

    Attributes:
        estimated: rows that the planner expected; `rows`: those there were.
        cut: a LIMIT above may have stopped it early, so that fewer rows than estimated say nothing.
        notes: what is worth knowing, in plain words.
    """

    title: str
    kind: str
    relation: str | None
    index: str | None
    total_ms: float
    rows: float
    estimated: float
    loops: int
    hit: int
    read: int
    dirtied: int
    written: int
    cut: bool
    details: tuple[str, ...]
    notes: tuple[str, ...]
    steps: tuple[Step, ...]

    @property
    def off(self) -> float:
        """By what factor the estimate was wrong; 1 where it was right or says nothing."""
        estimated, rows = max(self.estimated, 1.0), max(self.rows, 1.0)
        if self.cut and estimated > rows:
            return 1.0
        return max(estimated / rows, rows / estimated)

    def walk(self) -> Iterator[Step]:
        """This step and all below."""
        yield self
        for step in self.steps:
            yield from step.walk()


@dataclass(frozen=True)
class Plan:
    """A plan as it was carried out; times in ms."""

    planning_ms: float
    execution_ms: float
    settings: Mapping[str, str]
    root: Step


# These read all their input before they give a row: a LIMIT above does not stop what is below.
_BLOCKING = ("Sort", "Incremental Sort", "Aggregate", "Hash", "HashAggregate", "Bitmap Index Scan")


@dataclass(frozen=True)
class _Asked:
    """What a plan is for: notes speak of it."""

    page: Page
    table: About
    filtered: bool

    @property
    def order(self) -> str:
        """The column it is sorted by."""
        return self.page.order.split()[0]


def parse_plan(
    found: Sequence[Mapping[str, Any]], page: Page, table: About, filtered: bool
) -> Plan:
    """What EXPLAIN (FORMAT JSON) gave for a query that is filtered by organisation, or not."""
    whole = found[0]
    asked = _Asked(page, table, filtered)
    return Plan(
        planning_ms=float(whole.get("Planning Time", 0)),
        execution_ms=float(whole.get("Execution Time", 0)),
        settings=whole.get("Settings", {}),
        root=_step(whole["Plan"], asked, cut=False),
    )


def _step(node: Mapping[str, Any], asked: _Asked, cut: bool) -> Step:
    kind = node["Node Type"]
    loops = int(node.get("Actual Loops", 1))
    below = (cut and kind not in _BLOCKING) or kind == "Limit"
    steps = tuple(_step(child, asked, below) for child in node.get("Plans", ()))
    index, relation = node.get("Index Name"), node.get("Relation Name")
    title = kind
    if index:
        title += f" using {index}"
    if relation:
        title += f" on {relation}"
    return Step(
        title=title,
        kind=kind,
        relation=relation,
        index=index,
        total_ms=float(node.get("Actual Total Time", 0)) * loops,
        rows=float(node.get("Actual Rows", 0)) * loops,
        estimated=float(node.get("Plan Rows", 0)) * max(loops, 1),
        loops=loops,
        hit=int(node.get("Shared Hit Blocks", 0)),
        read=int(node.get("Shared Read Blocks", 0)),
        dirtied=int(node.get("Shared Dirtied Blocks", 0)),
        written=int(node.get("Temp Written Blocks", 0)),
        # Bitmap steps give no rows of their own that a LIMIT would stop.
        cut=cut,
        details=tuple(_details(node)),
        notes=tuple(_notes(node, loops, asked, cut)),
        steps=steps,
    )


def _details(node: Mapping[str, Any]) -> Iterator[str]:
    for name in ("Index Cond", "Recheck Cond", "Filter", "Hash Cond", "Join Filter"):
        if name in node:
            yield f"{name.lower()}: {one_line(node[name])}"
    if "Sort Key" in node:
        yield f"sort key: {', '.join(node['Sort Key'])}"
    if "Sort Method" in node:
        space = f"{node.get('Sort Space Used', 0)} kB {node.get('Sort Space Type', '').lower()}"
        yield f"sort: {node['Sort Method']}, {space}"


def _notes(node: Mapping[str, Any], loops: int, asked: _Asked, cut: bool) -> Iterator[str]:
    page = asked.page
    kind, relation = node["Node Type"], node.get("Relation Name")
    removed = int(node.get("Rows Removed by Filter", 0)) * loops
    kept = int(node.get("Actual Rows", 0)) * loops
    if kind == "Seq Scan" and relation == page.list.table:
        yield _about_seq_scan(node, removed, kept, asked)
    elif removed > 10 * max(kept, 1):
        yield f"{removed:,} rows read and thrown away for {kept:,} kept: its filter has no index"
    if kind == "Sort" and node.get("Sort Space Type") == "Disk":
        yield f"sorted on disk, {node['Sort Space Used']} kB: work_mem is too small for it"
    if kind in ("Sort", "Incremental Sort") and node.get("Plans"):
        given = int(node["Plans"][0].get("Actual Rows", 0)) * loops
        if cut and given > 10 * page.per_page:
            yield _about_sort(given, asked)
    if kind == "Limit" and node.get("Plans"):
        passed = int(node["Plans"][0].get("Actual Rows", 0)) - kept
        if passed > 10 * page.per_page:
            yield (
                f"{passed:,} rows before this page are made and thrown away: OFFSET costs more "
                "with every page; only paging by the last row seen would not"
            )
    if int(node.get("Heap Fetches", 0)) > 100:
        yield (
            f"{node['Heap Fetches']:,} rows looked up in the table after all: VACUUM {relation} "
            "would let the index alone answer"
        )


def _about_seq_scan(node: Mapping[str, Any], removed: int, kept: int, asked: _Asked) -> str:
    name, table = asked.page.list.table, asked.table
    if table.pages < SMALL_PAGES:
        return (
            f"Seq Scan: {name} is small ({table.pages} pages of 8 kB), reading it whole is "
            "quicker than an index"
        )
    if "Filter" not in node:
        return (
            f"Seq Scan: reads all of {name}, every tenant's rows: the query has no filter. An "
            "index cannot help; WHERE organization_id = … in the application would"
        )
    if removed <= kept:
        return f"Seq Scan: most of {name}'s rows are wanted, so an index would not help"
    have = _index(table, ("organization_id",))
    if have:
        return f"Seq Scan: {have} could serve and was thought dearer; ANALYZE {name} may change it"
    return f"Seq Scan: an index on {name} (organization_id, {asked.order}) would help"


def _about_sort(given: int, asked: _Asked) -> str:
    wanted = ("organization_id", asked.order) if asked.filtered else (asked.order,)
    text = f"{given:,} rows sorted for a page of {asked.page.per_page}: "
    if have := _index(asked.table, wanted):
        return f"{text}{have} has this order and was thought dearer"
    name = asked.page.list.table
    return f"{text}an index on {name} ({', '.join(wanted)}) would give them in order"


def _index(table: About, columns: tuple[str, ...]) -> str | None:
    found = (name for name, c in table.indexes.items() if c[: len(columns)] == columns)
    return next(found, None)
