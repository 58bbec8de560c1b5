"""The POSTs, and DELETE of a building. The order of a POST's checks is part of the contract:

401 text (token) → 400 text (body) → 401 JSON (no organisation) → 400 Validation failed →
400 from the use case or the database → 201.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from starlette.requests import Request
from starlette.responses import Response

from koprogo_standin import context, database, extract, lists, tokens
from koprogo_standin.context import Context
from koprogo_standin.errors import JsonError, answer
from koprogo_standin.extract import Field, f64, i32, one_of, text
from koprogo_standin.lists import Resource
from koprogo_standin.validate import Check, at_least, between, email, length, validate

UNIT_TYPES = ("Apartment", "Parking", "Cellar", "Commercial", "Other")
CATEGORIES = ("Maintenance", "Repairs", "Insurance", "Utilities", "Cleaning", "Administration",
              "Works", "Other")  # fmt: skip
MEETING_TYPES = ("Ordinary", "Extraordinary")


@dataclass(frozen=True)
class Creation:
    resource: Resource
    fields: Mapping[str, Field]
    rules: Mapping[str, Check]
    # Text fields that the use case reads on: what it makes of them, and how it words a failure.
    ids: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    # What a new row has beyond its fields.
    given: Mapping[str, Any] = field(default_factory=dict)


def required(parse: Callable[[Any], Any]) -> Field:
    return Field(parse)


def optional(parse: Callable[[Any], Any]) -> Field:
    return Field(parse, optional=True)


NAMED = {name: required(text) for name in ("address", "city", "postal_code", "country")}
FILLED = {name: length(1) for name in NAMED}
# Demanded in every body, and then replaced by the token's.
TENANT = {"organization_id": required(text)}

BUILDING = Creation(
    lists.BUILDINGS,
    {**TENANT, "name": required(text), **NAMED, "total_units": required(i32),
     "construction_year": optional(i32)},
    {"name": length(1), **FILLED, "total_units": at_least(1)},
)  # fmt: skip
UNIT = Creation(
    lists.UNITS,
    {**TENANT, "building_id": required(text), "unit_number": required(text),
     "unit_type": required(one_of(*UNIT_TYPES)), "floor": optional(i32),
     "surface_area": required(f64), "quota": required(f64)},
    {"unit_number": length(1), "surface_area": at_least(0.1), "quota": between(0.1, 1000.0)},
    ids=("building_id",),
    given={"owner_id": None},
)  # fmt: skip
OWNER = Creation(
    lists.OWNERS,
    {**TENANT, "first_name": required(text), "last_name": required(text),
     "email": required(text), "phone": optional(text), **NAMED},
    {"first_name": length(1), "last_name": length(1), "email": email(), **FILLED},
)  # fmt: skip
EXPENSE = Creation(
    lists.EXPENSES,
    {**TENANT, "building_id": required(text), "category": required(one_of(*CATEGORIES)),
     "description": required(text), "amount": required(f64), "expense_date": required(text),
     "supplier": optional(text), "invoice_number": optional(text)},
    {"description": length(1), "amount": at_least(0.01)},
    ids=("building_id",),
    dates=("expense_date",),
    given={"payment_status": "Pending"},
)  # fmt: skip
MEETING = Creation(
    lists.MEETINGS,
    {"organization_id": required(extract.uuid), "building_id": required(extract.uuid),
     "meeting_type": required(one_of(*MEETING_TYPES)), "title": required(text),
     "description": optional(text), "scheduled_date": required(extract.moment),
     "location": required(text)},
    {},
    given={"status": "Scheduled", "agenda": "[]", "attendees_count": None},
)  # fmt: skip
CREATIONS = (BUILDING, UNIT, OWNER, EXPENSE, MEETING)


class Create:
    def __init__(self, creation: Creation) -> None:
        self.creation = creation
        resource = creation.resource
        columns = [*creation.fields, "id", *creation.given, "created_at", "updated_at"]
        places = [f"${number}" for number in range(1, len(columns) + 1)]
        self.insert = (
            f"INSERT INTO {resource.table} ({', '.join(columns)}) VALUES ({', '.join(places)})"
            f" RETURNING {', '.join(resource.columns)}"
        )

    async def __call__(self, request: Request) -> Response:
        shared, creation = context.of(request), self.creation
        caller = tokens.caller(request)
        values = await extract.json_body(request, creation.fields)
        if caller.organization_id is None:
            # So the superadmin, who has none, can create nothing.
            raise JsonError(401, "User does not belong to an organization")
        values["organization_id"] = caller.organization_id
        validate(values, creation.rules)
        for name in creation.ids:
            values[name] = building_id(values[name])
        for name in creation.dates:
            values[name] = date(values[name])
        if creation is MEETING:
            check_meeting(values)
        try:
            if creation is OWNER:
                await check_email(shared, values["email"])
            return answer(await self.store(shared, values), 201)
        except database.DatabaseError as error:
            # A broken database is a 400 there: not to be told from a bad request by its status.
            raise JsonError(400, database.message(error)) from error

    async def store(self, shared: Context, values: dict[str, Any]) -> dict[str, Any]:
        resource, now = self.creation.resource, datetime.now(UTC)
        row = {**values, "id": uuid4(), **self.creation.given}
        for name in resource.enums:
            row[name] = row[name].lower()
        stored = await shared.row(self.insert, *row.values(), now, now)
        assert stored is not None
        return resource.shown(stored, listed=False)


def building_id(value: str) -> UUID:
    parsed = extract.as_uuid(value)
    if parsed is None:
        raise JsonError(400, "Invalid building ID format")
    return parsed


def date(value: str) -> datetime:
    parsed = extract.as_moment(value)
    if parsed is None:
        raise JsonError(400, "Invalid date format")
    return parsed


def check_meeting(values: dict[str, Any]) -> None:
    for name in ("title", "location"):
        if not values[name]:
            raise JsonError(400, f"{name.capitalize()} cannot be empty")


async def check_email(shared: Context, address: str) -> None:
    if await shared.value("SELECT 1 FROM owners WHERE email = $1", address):
        raise JsonError(400, "Email already exists")


async def delete_building(request: Request) -> Response:
    """With all that is in it, and by anyone with a token, whosever it is, as there."""
    tokens.caller(request)
    return await delete(request, lists.BUILDINGS)


async def delete_meeting(request: Request) -> Response:
    """By anyone at all, without a token, as there; the proxy has to ask for one."""
    return await delete(request, lists.MEETINGS)


async def delete(request: Request, resource: Resource) -> Response:
    wanted = extract.path_id(request)
    try:
        found = await context.of(request).value(
            f"DELETE FROM {resource.table} WHERE id = $1 RETURNING 1", wanted
        )
    except database.DatabaseError as error:
        raise JsonError(500, database.message(error)) from error
    if found is None:
        singular = lists.pascal(resource.table).removesuffix("s")
        raise JsonError(404, f"{singular} not found")
    return Response(status_code=204)
