"""The paged lists, and single records, which KoproGo gives to anyone who knows the id."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from koprogo_standin import context, database, extract, tokens
from koprogo_standin.errors import JsonError, answer, json_error


@dataclass(frozen=True)
class Resource:
    table: str
    columns: tuple[str, ...]
    # The first is the default; an empty one stands for a fixed order.
    sorts: tuple[str, ...] = ()
    fixed_order: str = ""
    # Where KoproGo forgot the filter by organisation, at its revision.
    leaks: bool = False
    # Database enums are lower case, JSON is PascalCase.
    enums: tuple[str, ...] = ()
    # Enums that the list fails to decode, so that every row shows the first variant.
    stuck: Mapping[str, Any] = field(default_factory=dict)
    json: tuple[str, ...] = ()

    def select(self) -> str:
        return f"SELECT {', '.join(self.columns)} FROM {self.table}"

    def shown(self, row: Mapping[str, Any], listed: bool) -> dict[str, Any]:
        item = dict(row)
        for name in self.enums:
            item[name] = pascal(item[name])
        for name in self.json:
            item[name] = orjson.Fragment(item[name])
        if listed:
            item.update(self.stuck)
        if "file_size" in item:
            item["file_size_mb"] = item["file_size"] / (1024 * 1024)
        return item


def pascal(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


BUILDINGS = Resource(
    "buildings",
    ("id", "name", "address", "city", "postal_code", "country", "total_units",
     "construction_year", "created_at", "updated_at"),
    ("created_at", "name", "total_units", "city", "construction_year"),
)  # fmt: skip
UNITS = Resource(
    "units",
    ("id", "building_id", "unit_number", "unit_type", "floor", "surface_area", "quota",
     "owner_id"),
    ("unit_number", "floor", "surface_area", "created_at"),
    leaks=True, enums=("unit_type",), stuck={"unit_type": "Apartment"},
)  # fmt: skip
OWNERS = Resource(
    "owners",
    ("id", "first_name", "last_name", "email", "phone", "address", "city", "postal_code",
     "country"),
    ("last_name", "first_name", "email", "created_at"),
)  # fmt: skip
EXPENSES = Resource(
    "expenses",
    ("id", "building_id", "category", "description", "amount", "expense_date",
     "payment_status", "supplier", "invoice_number"),
    ("expense_date", "amount", "created_at", "payment_status"),
    leaks=True, enums=("category", "payment_status"),
)  # fmt: skip
MEETINGS = Resource(
    "meetings",
    ("id", "building_id", "meeting_type", "title", "description", "scheduled_date", "location",
     "status", "agenda", "attendees_count", "created_at", "updated_at"),
    fixed_order="scheduled_date DESC", enums=("meeting_type", "status"), json=("agenda",),
    stuck={"meeting_type": "Ordinary", "status": "Scheduled"},
)  # fmt: skip
DOCUMENTS = Resource(
    "documents",
    ("id", "building_id", "document_type", "title", "description", "file_path", "file_size",
     "mime_type", "uploaded_by", "related_meeting_id", "related_expense_id", "created_at",
     "updated_at"),
    fixed_order="created_at DESC", enums=("document_type",),
)  # fmt: skip
LISTED = (BUILDINGS, UNITS, OWNERS, EXPENSES, MEETINGS, DOCUMENTS)
SINGLE = (BUILDINGS, OWNERS, EXPENSES, MEETINGS)


class Listing:
    """GET of a list."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource

    async def __call__(self, request: Request) -> Response:
        shared, resource = context.of(request), self.resource
        caller = tokens.caller(request)
        wanted = extract.page_query(request)
        # Out of range is a 500 there, not a 400.
        if wanted.page < 1:
            raise JsonError(500, "page must be >= 1")
        if not 1 <= wanted.per_page <= 100:
            raise JsonError(500, "per_page must be between 1 and 100")
        filtered = not resource.leaks or "tenant_filter" in shared.settings.faults
        where, arguments = "", []
        if filtered and caller.organization_id is not None:
            where, arguments = " WHERE organization_id = $1", [caller.organization_id]
        statement = f"{resource.select()}{where} ORDER BY {self.order(wanted)}"
        try:
            async with shared.connection() as connection:
                total = await connection.fetchval(
                    f"SELECT count(*) FROM {resource.table}{where}", *arguments
                )
                rows = await connection.fetch(
                    f"{statement} LIMIT ${len(arguments) + 1} OFFSET ${len(arguments) + 2}",
                    *arguments, wanted.per_page, (wanted.page - 1) * wanted.per_page,
                )  # fmt: skip
        except database.DatabaseError as error:
            raise JsonError(500, database.message(error)) from error
        return answer(
            {
                "data": [resource.shown(row, listed=True) for row in map(dict, rows)],
                "pagination": envelope(wanted, total),
            }
        )

    def order(self, wanted: extract.Page) -> str:
        if self.resource.fixed_order:
            return self.resource.fixed_order
        column = wanted.sort_by or self.resource.sorts[0]
        if column not in self.resource.sorts:
            raise JsonError(500, f"Invalid sort column: {column}")
        return f"{column} {'DESC' if wanted.descending else 'ASC'}"


def envelope(wanted: extract.Page, total: int) -> dict[str, Any]:
    pages = -(-total // wanted.per_page)
    return {
        "current_page": wanted.page,
        "per_page": wanted.per_page,
        "total_items": total,
        "total_pages": pages,
        "has_next": wanted.page < pages,
        "has_previous": wanted.page > 1,
    }


class Single:
    """GET of one record, without a token and whosever it is, as there."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource

    async def __call__(self, request: Request) -> Response:
        wanted = extract.path_id(request)
        try:
            row = await context.of(request).row(f"{self.resource.select()} WHERE id = $1", wanted)
        except database.DatabaseError as error:
            raise JsonError(500, database.message(error)) from error
        if row is None:
            return json_error(404, f"{pascal(self.resource.table).removesuffix('s')} not found")
        return answer(self.resource.shown(row, listed=False))
