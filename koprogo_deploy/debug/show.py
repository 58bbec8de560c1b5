"""What `koprogo debug` prints: for a tired person at 2 a.m., 100 columns wide."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from koprogo_deploy.debug import explain, indexes, locks, logs, statements
from koprogo_deploy.visible import visible

KEPT = 400  # characters of a query that are shown unless all are asked for


def milliseconds(value: float | None) -> str:
    """A duration as a person reads it: `0.04 ms`, `12 ms`, `3.4 s`, `2.1 h`."""
    if value is None:
        return "-"
    if value < 10:
        return f"{value:.2f} ms"
    if value < 1000:
        return f"{value:.0f} ms"
    if value < 60_000:
        return f"{value / 1000:.1f} s"
    if value < 3_600_000:
        return f"{value / 60_000:.1f} min"
    return f"{value / 3_600_000:.1f} h"


def size(value: float | None) -> str:
    """Bytes as a person reads them."""
    if value is None:
        return "-"
    for unit in ("B", "kB", "MB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GB"


def percent(value: float | None) -> str:
    """A share of 1; never rounded up to all or down to nothing."""
    if value is None:
        return "-"
    if 0.999 < value < 1:
        return ">99.9 %"
    if 0 < value < 0.001:
        return "<0.1 %"
    return f"{value * 100:.1f} %"


def since(moment: str | None, now: str) -> str:
    """A moment and how long ago it was."""
    if moment is None:
        return "an unknown time"
    then = datetime.fromisoformat(moment)
    return f"{then:%Y-%m-%d %H:%M} UTC ({age(datetime.fromisoformat(now) - then)} ago)"


def age(span: timedelta) -> str:
    """How long: `3 days`, `2 hours`, `5 minutes`."""
    seconds = max(0.0, span.total_seconds())
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{seconds:.0f} s"


def _table(*columns: str, left: str = "", wrap: str = "") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        is_left = column in left.split()
        table.add_column(
            column, justify="left" if is_left else "right", no_wrap=column not in wrap.split()
        )
    return table


def _shortened(query: str, full: bool) -> str:
    return query if full or len(query) <= KEPT else f"{query[:KEPT]} …"


# --- slow queries --------------------------------------------------------------------------------


def slow(found: statements.Slow, by: str, full: bool) -> Iterator[RenderableType]:
    """The statements, each with its text below its figures."""
    yield Text(f"Slowest statements by {by}", style="bold")
    yield Text(
        f"counted since {since(found.since, found.now)}: {found.statements} statements, "
        f"{milliseconds(found.total_ms)} in all; pg_stat_statements {found.extension}, "
        f"Postgres {found.server // 10000}",
        style="dim",
    )
    if found.dropped:
        yield Text(
            f"The counts of the rarest statements were thrown away {found.dropped} times, as there "
            f"is room for {found.room}: what is rare may be missing, and the shares are too high. "
            'Raise it: postgres_settings = {"pg_stat_statements.max": "5000"}',
            style="yellow",
        )
    if not found.top:
        yield Text("no statement was counted yet")
        return
    for number, statement in enumerate(found.top, start=1):
        yield Text()
        table = _table(
            "#", "total", "share", "calls", "mean", "max", "stddev", "rows", "hit", "WAL", "role",
            left="role",
        )  # fmt: skip
        table.add_row(
            str(number),
            milliseconds(statement.total_ms),
            percent(statement.share),
            f"{statement.calls:,}",
            milliseconds(statement.mean_ms),
            milliseconds(statement.max_ms),
            milliseconds(statement.stddev_ms),
            f"{statement.rows:,}",
            percent(statement.hit),
            size(statement.wal_bytes),
            statement.role,
        )
        yield table
        extra = []
        if statement.read_ms and statement.read_ms > statement.total_ms / 50:
            extra.append(f"{milliseconds(statement.read_ms)} of it waiting for the disk")
        if statement.temp_blocks_written:
            spilled = statement.temp_blocks_written * 8192
            extra.append(
                f"{size(spilled)} written to temporary files: work_mem is too small for it"
            )
        if extra:
            yield Padding(Text("; ".join(extra), style="yellow"), (0, 0, 0, 3))
        yield Padding(Text(_shortened(statement.query, full), style="cyan"), (0, 0, 0, 3))


# --- indexes -------------------------------------------------------------------------------------


_WHY = {
    "same": "the same definition",
    "partial": "the other has these rows, and more",
    "constraint": "a constraint needs the other one",
}


def index_report(found: indexes.Indexes, everything: bool) -> Iterator[RenderableType]:
    """Indexes and tables, what is wrong first."""
    yield Text("Indexes", style="bold")
    if found.since:
        counted = since(found.since, found.now)
    else:
        started = datetime.fromisoformat(found.started)
        ago = age(datetime.fromisoformat(found.now) - started)
        counted = f"the database was made, or the last crash (the server started {ago} ago)"
    total = sum(index.size for index in found.indexes)
    yield Text(
        f"{len(found.indexes)} of {size(total)}; scans are counted since {counted}. "
        "Nothing is dropped here: that is a migration of the application.",
        style="dim",
    )
    if found.invalid:
        yield from _heading("Invalid: written to, never read; drop and make them anew", "red")
        for index in found.invalid:
            yield Text(f"  {index.name} on {index.table}, {size(index.size)}")
    doubles = [r for r in found.redundant if r.kind != "prefix"]
    yield from _heading(f"Twice the same: {len(doubles)}", "yellow" if doubles else "green")
    if doubles:
        yield _redundant(doubles)
    yield from _heading(
        f"Foreign keys without an index: {len(found.missing)}",
        "yellow" if found.missing else "green",
    )
    for key in found.missing:
        yield Text(f"  {key.table} ({', '.join(key.columns)}): {key.harm}")
    unused = found.unused
    yield from _heading(
        f"Not used once: {len(unused)}, {size(sum(i.size for i in unused))}",
        "yellow" if unused else "green",
    )
    if unused:
        table = _table("size", "table", "index", "definition", left="table index definition",
                       wrap="definition")  # fmt: skip
        for index in unused if everything else unused[:10]:
            shown = index.definition.partition(" USING ")[2]
            table.add_row(size(index.size), index.table, index.name, Text(shown, style="dim"))
        yield Padding(table, (0, 0, 0, 2))
        if len(unused) > 10 and not everything:
            yield Text(f"  … and {len(unused) - 10} more: --all", style="dim")
    yield Text(
        f"  {len(found.unused_but_needed)} more were not used and are needed: they enforce "
        "uniqueness or a key. Unused so far is not useless: look over weeks, and at what is rare "
        "(a yearly report, deleting an organisation).",
        style="dim",
    )
    prefixes = [r for r in found.redundant if r.kind == "prefix"]
    yield from _heading(
        f"Begun by a longer one: {len(prefixes)}", "yellow" if prefixes else "green"
    )
    if prefixes:
        yield _redundant(prefixes, why=False)
        yield Text(
            "  The longer index serves the same searches; the shorter is smaller, and each write "
            "pays for both.",
            style="dim",
        )
    yield from _tables(found, everything)
    if everything:
        yield from _used(found)


def _redundant(rows: list[indexes.Redundant], why: bool = True) -> RenderableType:
    columns = ["size", "table", "needless", "because of", *(["why"] if why else [])]
    table = _table(*columns, left="table needless why", wrap="why")
    table.columns[3].justify = "left"
    for row in rows:
        reason = [Text(_WHY[row.kind], style="dim")] if why else []
        table.add_row(size(row.index.size), row.index.table, row.index.name, row.by.name, *reason)
    return Padding(table, (0, 0, 0, 2))


def _heading(text: str, style: str) -> Iterator[RenderableType]:
    yield Text()
    yield Text(text, style=f"bold {style}")


def _tables(found: indexes.Indexes, everything: bool) -> Iterator[RenderableType]:
    yield from _heading("Tables read whole", "default")
    ordered = sorted(found.tables, key=lambda t: (-t.sequential_rows, t.name))
    rows = [t for t in ordered if t.sequential_rows or everything]
    if not rows:
        yield Text("  none", style="dim")
        return
    table = _table("rows", "size", "indexes", "seq scans", "index scans", "table", "",
                   left="table", wrap="")  # fmt: skip
    table.columns[6].justify, table.columns[6].no_wrap = "left", False
    for one in rows if everything else rows[:10]:
        table.add_row(
            f"{one.rows:,}", size(one.size), size(one.index_size), f"{one.sequential:,}",
            f"{one.by_index:,}", one.name,
            Text(one.hint, style="dim" if one.pages < indexes.SMALL_PAGES else "yellow"),
        )  # fmt: skip
    yield Padding(table, (0, 0, 0, 2))
    if any(one.hint.startswith("read whole") for one in rows):
        yield Text("  koprogo debug explain units|expenses|… shows why.", style="dim")


def _used(found: indexes.Indexes) -> Iterator[RenderableType]:
    yield from _heading("Used", "default")
    table = _table("scans", "size", "table", "index", left="table index")
    for index in sorted(found.indexes, key=lambda i: (-i.scans, i.name)):
        if index.scans:
            table.add_row(f"{index.scans:,}", size(index.size), index.table, index.name)
    yield Padding(table, (0, 0, 0, 2))


# --- explain -------------------------------------------------------------------------------------


def explained(
    page: explain.Page,
    organization: explain.Organization,
    table: explain.About,
    plans: list[tuple[str, explain.Query, explain.Plan]],
) -> Iterator[RenderableType]:
    """The plans of a list: its text, then its steps."""
    yield Text(f"GET /{page.endpoint} as {organization.name} ({organization.slug})", style="bold")
    asked = f"page {page.page}, {page.per_page} a page, ORDER BY {page.order}; "
    if not page.list.paged:
        asked = f"no pages, ORDER BY {page.order}; "
    yield Text(
        f"{asked}{organization.rows:,} rows are its own, about {max(table.rows, 0):,} in all "
        f"in {table.pages:,} pages of 8 kB",
        style="dim",
    )
    if table.analyzed is None and table.rows > 0:
        yield Text(f"{table.rows:,} rows and never analysed: ANALYZE {page.list.table}", "yellow")
    if page.endpoint == "users":
        yield Text("The superadmin's list: users of all organisations, without pages.", "dim")
    elif not plans[-1][1].filtered:
        yield Text(
            "Not filtered by organisation: at this revision KoproGo lists every tenant's "
            f"{page.endpoint}.",
            style="yellow",
        )
    for title, query, plan in plans:
        yield Text()
        source = "by KoproGo's contract; the application was not seen asking so"
        if query.calls is not None:
            often = "once" if query.calls == 1 else f"{query.calls:,} times"
            source = f"as the application asks it, {often} (pg_stat_statements)"
        yield Text.assemble((title, "bold"), (f", {source}", "dim"))
        yield Padding(Text(query.text, style="cyan"), (0, 0, 0, 2))
        yield Padding(_plan(plan), (0, 0, 0, 2))
        yield Text(
            f"  {milliseconds(plan.execution_ms)} to run, {milliseconds(plan.planning_ms)} to plan"
        )
    changed = ", ".join(f"{name} = {value}" for name, value in plans[0][2].settings.items())
    if changed:
        yield Text()
        yield Text(f"Planned with {changed}", style="dim")


def _plan(plan: explain.Plan) -> Tree:
    def add(step: explain.Step, above: Tree | None) -> Tree:
        label = Group(*_step(step))
        tree = Tree(label) if above is None else above.add(label)
        for below in step.steps:
            add(below, tree)
        return tree

    return add(plan.root, None)


def _step(step: explain.Step) -> Iterator[RenderableType]:
    line = Text.assemble((step.title, "bold"), f"  {milliseconds(step.total_ms)}")
    line.append(
        f"  {step.rows:,.0f} {'row' if step.rows == 1 else 'rows'} "
        f"(estimated {step.estimated:,.0f})"
    )
    if step.loops > 1:
        line.append(f", in {step.loops:,} rounds")
    blocks = []
    if step.hit or step.read:
        blocks.append(f"{step.hit:,} blocks from cache, {step.read:,} read")
    if step.written:
        blocks.append(f"{step.written:,} to temporary files")
    yield line
    if blocks:
        yield Text("; ".join(blocks), style="dim")
    for detail in step.details:
        yield Text(detail, style="dim")
    if step.off >= explain.MISESTIMATE:
        yield Text(
            f"! the estimate is wrong {step.off:,.0f} times: ANALYZE"
            f"{f' {step.relation}' if step.relation else ''}, or the columns depend on each other",
            style="red",
        )
    for note in step.notes:
        yield Text(f"! {note}", style="yellow")


# --- locks ---------------------------------------------------------------------------------------


def lock_report(found: locks.Locks) -> Iterator[RenderableType]:
    """Who waits for whom: those that hold at the root."""
    now = datetime.fromisoformat(found.now)
    yield Text(f"Locks at {now:%H:%M:%S} UTC", style="bold")
    if not found.waiting:
        yield Text("Nothing waits for a lock.", style="green")
    for node in locks.tree(found):
        yield _lock_tree(node, None)
    if found.prepared:
        yield Text(
            f"{found.prepared} of them wait for a prepared transaction, which no session has: "
            "it is in pg_prepared_xacts",
            style="yellow",
        )
    if found.waiting:
        yield Text(
            "To end a session that holds: SELECT pg_terminate_backend(<pid>), as superuser",
            style="dim",
        )
    open_for = found.oldest_transaction_s
    if found.idle_in_transaction or (open_for or 0) > 1:
        yield Text(
            f"{found.idle_in_transaction} sessions are idle in a transaction; the oldest "
            f"transaction is {milliseconds((open_for or 0) * 1000)} old",
            style="dim",
        )


def _lock_tree(node: locks.Node, above: Tree | None) -> Tree:
    session = node.session
    who = Text.assemble((f"{session.pid}", "bold"), f" {session.role or session.kind}")
    if session.application:
        who.append(f" ({session.application})")
    if session.client:
        who.append(f" from {session.client}")
    lines: list[RenderableType] = []
    if session.blockers:
        waited = milliseconds((session.waits_s or 0) * 1000)
        who.append(f"  waits {waited}", style="red")
        where = f" on {session.relation}" if session.relation else ""
        lines.append(Text(f"for {session.mode}{where}: {session.meaning}", style="red"))
        if len(session.blockers) > 1:
            others = ", ".join(str(pid) for pid in session.blockers)
            lines.append(Text(f"waits for all of {others}", style="red"))
    else:
        who.append("  holds", style="yellow")
        age_ms = (session.transaction_s or 0) * 1000
        state = session.state or "?"
        since_ms = (session.state_s or 0) * 1000
        lines.append(
            Text(
                f"{state} for {milliseconds(since_ms)}, transaction {milliseconds(age_ms)} old",
                style="yellow",
            )
        )
    if session.holds:
        lines.append(Text(f"has {', '.join(session.holds)}", style="dim"))
    last = "" if session.state == "active" else "last: "
    lines.append(Text(f"{last}{_shortened(session.query, full=False)}", style="cyan"))
    label = Group(who, *lines)
    tree = Tree(label) if above is None else above.add(label)
    for below in node.waiting:
        _lock_tree(below, tree)
    return tree


# --- logs ----------------------------------------------------------------------------------------

_STYLES = {"error": "bold red", "warn": "yellow", "info": "default", "debug": "dim", "trace": "dim"}
_SERVICES = {"backend": "cyan", "frontend": "magenta", "postgres": "blue", "traefik": "green"}


def repeated(last: logs.Repeat | None) -> Iterator[Text]:
    """How often an entry came again, where it did."""
    if last and last.count:
        yield Text(f"{'':14}… and {last.count} more like it until {last.until:%H:%M:%S}", "dim")


def log_entry(entry: logs.Entry) -> Iterator[Text]:
    """An entry: time, container, level, text; its further lines indented below."""
    level = entry.level or "?"
    line = Text.assemble(
        (f"{entry.time:%H:%M:%S}.{entry.time.microsecond // 1000:03d} ", "dim"),
        (f"{entry.container:14} ", _SERVICES.get(entry.service, "default")),
        (f"{level:5} ", _STYLES.get(level, "bold")),
        visible(entry.text),
    )
    if entry.status is not None and entry.duration_ms is not None and " ms" not in entry.text:
        line.append(f"  ({milliseconds(entry.duration_ms)})", style="dim")
    yield line
    for further in entry.more:
        words = further.strip() if not further[:1].isspace() else further
        yield Text(f"{'':19}| {visible(words)}", "dim")


def lines(out: Console, parts: Iterator[RenderableType]) -> None:
    """Print each."""
    for part in parts:
        out.print(part)
