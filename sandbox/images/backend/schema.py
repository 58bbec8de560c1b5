"""KoproGo's tables until 20250103000003, described once; writes them as the image's migrations.

    python3 schema.py FOLDER      writes FOLDER/<version>_<name>.sql

Names, types, keys, defaults, indexes, and which version brings what are KoproGo's: its contract,
which the deploy, the seed and the benchmarks rely on. The same description always gives the same
bytes, for the application keeps a checksum of each file.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

NOW = "now()"
RESERVED = ("timestamp",)  # of the columns' names those that SQL has a meaning for
WIDTH = 96  # of a line of columns
# Of rows with an organisation: their tables, those of KoproGo's first day first.
OF_TENANTS = ("buildings", "units", "owners", "expenses", "meetings", "documents")


# --- columns: each function is a kind; a name that ends in ? may be null -------------------------


@dataclass(frozen=True)
class Column:
    """One column; `rules` are its constraints, by what their names end in."""

    name: str
    type: str
    default: str = ""
    rules: tuple[tuple[str, str], ...] = ()

    def sql(self) -> str:
        plain = self.name.rstrip("?")
        name = f'"{plain}"' if plain in RESERVED else plain
        filled = "" if self.name.endswith("?") else " NOT NULL"
        return f"{name} {self.type}{f' DEFAULT {self.default}' if self.default else ''}{filled}"


def text(name: str, longest: int = 0, only: tuple[str, ...] = (), unique: bool = False) -> Column:
    """Of at most so many characters, if any number is given; one of `only`; in one row alone."""
    plain, rules = name.rstrip("?"), []
    if only:
        rules.append((f"{plain}_check", f"CHECK ({plain} IN ({_quoted(only)}))"))
    if unique:
        rules.append((f"{plain}_key", f"UNIQUE ({plain})"))
    return Column(name, f"character varying({longest})" if longest else "text", "", tuple(rules))


def number(name: str, type: str = "integer", default: str = "", holds: str = "") -> Column:
    """A number; `holds` is what must be true of it."""
    rule = (f"{name}_check", f"CHECK ({holds})")
    return Column(name, type, default, (rule,) if holds else ())


def flag(name: str, default: bool) -> Column:
    return Column(name, "boolean", str(default).lower())


def choice(name: str, type: str = "", default: str = "") -> Column:
    """A value of an enumeration, which has the column's name unless told."""
    return Column(name, type or name, f"'{default}'" if default else "")


def moment(name: str, default: str = "") -> Column:
    return Column(name, "timestamp with time zone", default)


def json(name: str, default: str = "") -> Column:
    return Column(name, "jsonb", default)


def identity(name: str) -> Column:
    """Some row's id, that Postgres does not follow."""
    return Column(name, "uuid")


def link(name: str, table: str, gone: str = "CASCADE") -> Column:
    """A row of another table; `gone` is what becomes of this one when that is deleted."""
    plain = name.rstrip("?")
    rule = f"FOREIGN KEY ({plain}) REFERENCES public.{table} (id) ON DELETE {gone}"
    return Column(name, "uuid", "", ((f"{plain}_fkey", rule),))


def _filled(parts: Iterable[str]) -> str:
    """The parts of a list, as many on a line as it takes."""
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part) > WIDTH:
            lines.append("")
        lines[-1] += f"  {part}," if not lines[-1] else f" {part},"
    return "\n".join(lines).rstrip(",")


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


ID, CREATED, UPDATED = identity("id"), moment("created_at", NOW), moment("updated_at", NOW)
BUILDING = link("building_id", "buildings")
ORGANIZATION = link("organization_id?", "organizations")


# --- steps: what a migration is made of, each a few statements -----------------------------------


@dataclass(frozen=True)
class Extension:
    name: str

    def sql(self) -> Iterator[str]:
        yield f'CREATE EXTENSION IF NOT EXISTS "{self.name}"'


@dataclass(frozen=True)
class Enumeration:
    name: str
    values: str

    def sql(self) -> Iterator[str]:
        values = [f"'{value}'" for value in self.values.split()]
        yield f"CREATE TYPE public.{self.name} AS ENUM (\n{_filled(values)}\n)"


@dataclass(frozen=True)
class Table:
    """A table with its constraints; `more` are those that are of no single column."""

    name: str
    columns: tuple[Column, ...]
    primary: str = "id"
    more: tuple[tuple[str, str], ...] = ()

    def sql(self) -> Iterator[str]:
        parts = [column.sql() for column in self.columns]
        parts.append(f"CONSTRAINT {self.name}_pkey PRIMARY KEY ({self.primary})")
        rules = [rule for column in self.columns for rule in column.rules]
        for end, rule in (*rules, *self.more):
            # Those of the audit log have names of their own.
            name = end if end.startswith("fk_") else f"{self.name}_{end}"
            parts.append(f"CONSTRAINT {name} {rule}")
        yield f"CREATE TABLE public.{self.name} (\n{_filled(parts)}\n)"


@dataclass(frozen=True)
class NewColumn:
    table: str
    column: Column

    def sql(self) -> Iterator[str]:
        yield f"ALTER TABLE public.{self.table} ADD {self.column.sql()}"
        for end, rule in self.column.rules:
            yield f"ALTER TABLE public.{self.table} ADD CONSTRAINT {self.table}_{end} {rule}"


@dataclass(frozen=True)
class Index:
    """An index; `end` is its name's, after that of the table."""

    table: str
    end: str
    columns: str = ""
    where: str = ""
    method: str = "btree"
    maybe: bool = False

    @property
    def name(self) -> str:
        return f"idx_{self.table}_{self.end}"

    def sql(self) -> Iterator[str]:
        made = "CREATE INDEX IF NOT EXISTS" if self.maybe else "CREATE INDEX"
        where = f" WHERE {self.where}" if self.where else ""
        over = f"USING {self.method} ({self.columns or self.end})"
        yield f"{made} {self.name}\n  ON public.{self.table} {over}{where}"


@dataclass(frozen=True)
class Statement:
    """What is said in SQL as it is."""

    text: str

    def sql(self) -> Iterator[str]:
        yield self.text


Step = Extension | Enumeration | Table | NewColumn | Index | Statement


def indexes(table: str, *ends: str, maybe: bool = False) -> Iterator[Index]:
    """Indexes of a table, each as `column`, `end: columns` or `end: columns if condition`."""
    for each in ends:
        end, _, rest = each.partition(": ")
        columns, _, where = rest.partition(" if ")
        yield Index(table, end, columns, where, maybe=maybe)


# --- the migrations -------------------------------------------------------------------------------


def _extensions() -> Iterator[Step]:
    """Trusted ones both: who owns the database may create them."""
    yield Extension("pgcrypto")
    yield Extension("uuid-ossp")


def _address() -> tuple[Column, ...]:
    return (
        text("address"), text("city", 100), text("postal_code", 20), text("country", 100),
    )  # fmt: skip


def _buildings() -> Iterator[Step]:
    units = number("total_units", holds="total_units > 0")
    columns = (units, number("construction_year?"), CREATED, UPDATED)
    yield Table("buildings", (ID, text("name", 255), *_address(), *columns))
    yield from indexes("buildings", "city", "created_at")


def _owners() -> Iterator[Step]:
    names = (text("first_name", 100), text("last_name", 100))
    reached = (text("email", 255, unique=True), text("phone?", 20))
    yield Table("owners", (ID, *names, *reached, *_address(), CREATED, UPDATED))
    yield from indexes("owners", "email", "last_name")


def _units() -> Iterator[Step]:
    yield Enumeration("unit_type", "apartment parking cellar commercial other")
    columns = (
        ID,
        BUILDING,
        text("unit_number", 50),
        choice("unit_type"),
        number("floor?"),
        number("surface_area", "double precision", holds="surface_area > 0"),
        number("quota", "double precision", holds="quota > 0 AND quota <= 1000"),
        link("owner_id?", "owners", "SET NULL"),
        CREATED,
        UPDATED,
    )
    numbered = ("building_id_unit_number_key", "UNIQUE (building_id, unit_number)")
    yield Table("units", columns, more=(numbered,))
    yield from indexes("units", "building: building_id", "owner: owner_id", "unit_number")


def _expenses() -> Iterator[Step]:
    categories = "maintenance repairs insurance utilities cleaning administration works other"
    yield Enumeration("expense_category", categories)
    yield Enumeration("payment_status", "pending paid overdue cancelled")
    columns = (
        ID,
        BUILDING,
        choice("category", "expense_category"),
        text("description"),
        number("amount", "double precision", holds="amount > 0"),
        moment("expense_date"),
        choice("payment_status", default="pending"),
        text("supplier?", 255),
        text("invoice_number?", 100),
        CREATED,
        UPDATED,
    )
    yield Table("expenses", columns)
    by = ("building: building_id", "date: expense_date", "status: payment_status", "category")
    yield from indexes("expenses", *by)


def _meetings() -> Iterator[Step]:
    yield Enumeration("meeting_type", "ordinary extraordinary")
    yield Enumeration("meeting_status", "scheduled completed cancelled")
    columns = (
        ID,
        BUILDING,
        choice("meeting_type"),
        text("title", 255),
        text("description?"),
        moment("scheduled_date"),
        text("location", 255),
        choice("status", "meeting_status", "scheduled"),
        json("agenda", "'[]'"),
        number("attendees_count?"),
        CREATED,
        UPDATED,
    )
    yield Table("meetings", columns)
    yield from indexes("meetings", "building: building_id", "date: scheduled_date", "status")


def _documents() -> Iterator[Step]:
    kinds = "meeting_minutes financial_statement invoice contract regulation works_quote other"
    yield Enumeration("document_type", kinds)
    columns = (
        ID,
        BUILDING,
        choice("document_type"),
        text("title", 255),
        text("description?"),
        text("file_path"),
        number("file_size", "bigint", holds="file_size > 0"),
        text("mime_type", 100),
        identity("uploaded_by"),
        link("related_meeting_id?", "meetings", "SET NULL"),
        link("related_expense_id?", "expenses", "SET NULL"),
        CREATED,
        UPDATED,
    )
    yield Table("documents", columns)
    related = ("meeting: related_meeting_id", "expense: related_expense_id")
    by = ("building: building_id", "type: document_type", *related, "created_at")
    yield from indexes("documents", *by)


def _accounts() -> Iterator[Step]:
    plans, roles = "free starter professional enterprise", "superadmin syndic accountant owner"
    columns = (
        ID,
        text("name", 255),
        text("slug", 255, unique=True),
        text("contact_email", 255),
        text("contact_phone?", 50),
        text("subscription_plan", 20, only=tuple(plans.split())),
        number("max_buildings", default="1"),
        number("max_users", default="3"),
        flag("is_active", True),
        CREATED,
        UPDATED,
    )
    yield Table("organizations", columns)
    columns = (
        ID,
        text("email", 255, unique=True),
        text("password_hash", 255),
        text("first_name", 100),
        text("last_name", 100),
        text("role", 20, only=tuple(roles.split())),
        ORGANIZATION,
        flag("is_active", True),
        CREATED,
        UPDATED,
    )
    yield Table("users", columns)
    may = (flag("can_read", True), flag("can_write", False), flag("can_delete", False))
    columns = (link("user_id", "users"), BUILDING, *may, moment("granted_at", NOW))
    yield Table("user_building_access", columns, primary="user_id, building_id")
    yield NewColumn("buildings", ORGANIZATION)
    yield from indexes("organizations", "slug")
    yield from indexes("users", "email", "organization_id", "role")
    yield from indexes("user_building_access", "user_id", "building_id")
    yield from indexes("buildings", "organization_id")
    # No password has this hash: the application writes a real one at each start.
    yield Statement(
        "INSERT INTO public.users (id, role, email, first_name, last_name, password_hash)\n"
        "SELECT '00000000-0000-0000-0000-000000000001', 'superadmin', 'admin@koprogo.com',\n"
        "       'Admin', 'System', 'set when the application starts'"
    )


def _sessions() -> Iterator[Step]:
    token, revoked = text("token", 512, unique=True), flag("revoked", False)
    columns = (link("user_id", "users"), token, moment("expires_at"), revoked, CREATED, UPDATED)
    yield Table("refresh_tokens", (ID, *columns))
    yield from indexes("refresh_tokens", "user_id", "token", "expires_at", "revoked")
    # KoproGo has it and calls it nowhere, so that the table grows by a row for each login.
    yield Statement(
        "CREATE FUNCTION public.cleanup_expired_refresh_tokens() RETURNS void LANGUAGE sql\n"
        "AS $$ DELETE FROM refresh_tokens WHERE revoked OR expires_at < now() $$"
    )


def _tenants() -> Iterator[Step]:
    for table in OF_TENANTS[1:]:
        yield NewColumn(table, ORGANIZATION)
        yield from indexes(table, "organization_id")
    mine = "organization_id::text = current_setting('app.organization', true)"
    for table in OF_TENANTS:
        yield from indexes(table, "org_created: organization_id, created_at DESC")
        yield Statement(f"ALTER TABLE public.{table} ENABLE ROW LEVEL SECURITY")
        yield Statement(f"CREATE POLICY tenant ON public.{table} USING ({mine})")


def _audit() -> Iterator[Step]:
    columns = (
        ID,
        moment("timestamp", NOW),
        text("event_type"),
        identity("user_id?"),
        identity("organization_id?"),
        text("resource_type?"),
        identity("resource_id?"),
        text("ip_address?"),
        text("user_agent?"),
        json("metadata?"),
        flag("success", True),
        text("error_message?"),
        CREATED,
    )
    followed = {"user_id": "users", "organization_id": "organizations"}
    more = tuple(
        (f"fk_audit_logs_{name}", link(name, table, "SET NULL").rules[0][1])
        for name, table in followed.items()
    )
    yield Table("audit_logs", columns, more=more)
    yield from indexes(
        "audit_logs",
        'timestamp: "timestamp" DESC',
        "event_type",
        "user_id: user_id if user_id IS NOT NULL",
        "organization_id: organization_id if organization_id IS NOT NULL",
        "success: success if success = false",
        'org_timestamp: organization_id, "timestamp" DESC if organization_id IS NOT NULL',
    )
    yield Index("audit_logs", "metadata", where="metadata IS NOT NULL", method="gin")


def _no_policies() -> Iterator[Step]:
    for table in OF_TENANTS:
        yield Statement(f"DROP POLICY tenant ON public.{table}")
        yield Statement(f"ALTER TABLE public.{table} DISABLE ROW LEVEL SECURITY")


# Of the seventeen names eight are there already, and those indexes stay as they are: the last one
# would have been partial, and is not.
_FASTER = {
    "units": ("owner_id: owner_id if owner_id IS NOT NULL",
              "org_number: organization_id, unit_number"),
    "buildings": ("org_name: organization_id, name",),
    "owners": ("org_name: organization_id, last_name, first_name",),
    "expenses": ("org_date: organization_id, expense_date DESC",),
    "meetings": (),
    "documents": (),
}  # fmt: skip


def _faster() -> Iterator[Step]:
    for table, ends in _FASTER.items():
        both = () if table in ("buildings", "owners") else ("building_id",)
        yield from indexes(table, "organization_id", *both, *ends, maybe=True)
    valid = "expires_at: expires_at if NOT revoked"
    yield from indexes("refresh_tokens", "user_id", valid, maybe=True)


MIGRATIONS: dict[str, Callable[[], Iterator[Step]]] = {
    "20240101000000_create_extensions": _extensions,
    "20240101000001_create_buildings": _buildings,
    "20240101000002_create_owners": _owners,
    "20240101000003_create_units": _units,
    "20240101000004_create_expenses": _expenses,
    "20240101000005_create_meetings": _meetings,
    "20240101000006_create_documents": _documents,
    "20250102000000_create_auth_and_multi_tenancy": _accounts,
    "20250102000001_create_refresh_tokens": _sessions,
    "20250103000000_add_organization_id_to_all_tables": _tenants,
    "20250103000001_create_audit_logs": _audit,
    "20250103000002_disable_rls_policies": _no_policies,
    "20250103000003_add_performance_indexes": _faster,
}


def steps(name: str) -> list[Step]:
    """What a migration does, by its name as in `MIGRATIONS`."""
    return list(MIGRATIONS[name]())


def files() -> dict[str, str]:
    """Every migration's SQL by its file name."""
    return {
        f"{name}.sql": "".join(f"{sql};\n" for step in steps(name) for sql in step.sql())
        for name in MIGRATIONS
    }


def write(folder: Path) -> None:
    """Write the migrations into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, sql in files().items():
        (folder / name).write_bytes(sql.encode())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
