"""KoproGo as the load test sees it: what to ask, and when an answer is right. Pure.

Revisions differ: later ones write money and shares as text (`"150.50"`) and add fields.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

PER_PAGE = 20
UNIT_TYPES = ("Apartment", "Parking", "Cellar", "Commercial", "Other")
CATEGORIES = (
    "Maintenance", "Repairs", "Insurance", "Utilities", "Cleaning", "Administration", "Works",
    "Other",
)  # fmt: skip

# What a row that a load test wrote looks like: `load-`, the run's own eight characters, a number.
MARK = r"load-[0-9a-f]{8}-[0-9]{6,}"
MAIL_DOMAIN = "load.koprogo.invalid"
_MARKED = re.compile(MARK)


@dataclass(frozen=True)
class Kind:
    """A kind of request.

    Attributes:
        table: where a write's row goes; empty for a read.
        keys: what each item of a list has, or the answer itself.
        listed: the answer is a page of a list.
    """

    name: str
    table: str = ""
    keys: frozenset[str] = frozenset()
    listed: bool = False

    @property
    def method(self) -> str:
        """GET or POST."""
        return self.name.split()[0]

    @property
    def path(self) -> str:
        """Below `/api/v1`."""
        path = self.name.split()[1]
        return f"{path}?page=1&per_page={PER_PAGE}" if self.listed else path

    @property
    def status(self) -> int:
        """Of a right answer."""
        return 201 if self.table else 200


def _list(path: str, keys: str) -> Kind:
    return Kind(f"GET {path}", keys=frozenset(keys.split()), listed=True)


def _post(path: str) -> Kind:
    return Kind(f"POST {path}", table=path.strip("/"))


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("GET /health", keys=frozenset({"status"})),
        Kind("GET /auth/me", keys=frozenset({"id", "email", "role"})),
        _list("/buildings", "id name address city postal_code country total_units"),
        _list("/units", "id building_id unit_number unit_type surface_area quota"),
        _list("/owners", "id first_name last_name email"),
        _list("/expenses", "id building_id category description amount expense_date"),
        _list("/meetings", "id building_id meeting_type title scheduled_date"),
        _post("/buildings"),
        _post("/units"),
        _post("/owners"),
        _post("/expenses"),
    )
}


@dataclass(frozen=True)
class Tenant:
    """Who asks, and what is theirs.

    Attributes:
        organization: its id; every POST's body must have one.
        buildings: ids of its own buildings.
        foreign: ids of other tenants' buildings and owners: in an answer, they are a leak.
        filled: names of lists that had something in them at the start.
    """

    email: str
    organization: str
    buildings: tuple[str, ...]
    foreign: frozenset[str] = frozenset()
    filled: frozenset[str] = field(default_factory=frozenset)


def mark(run: str, number: int) -> str:
    """What a row that a run writes is recognised by.

    Args:
        run: the run's own eight hexadecimal characters.
        number: unique within it.
    """
    return f"load-{run}-{number:06d}"


def body(kind: Kind, tenant: Tenant, run: str, number: int, now: datetime) -> dict[str, Any]:
    """A POST's body: valid, unique, and marked."""
    marked = mark(run, number)
    building = tenant.buildings[number % len(tenant.buildings)]
    made: dict[str, Any] = {"organization_id": tenant.organization}
    match kind.table:
        case "buildings":
            made |= {
                "name": marked, **_address(number), "total_units": 1 + number % 40,
                "construction_year": 1900 + number % 120,
            }  # fmt: skip
        case "units":
            made |= {
                "building_id": building, "unit_number": marked,
                "unit_type": UNIT_TYPES[number % len(UNIT_TYPES)], "floor": number % 9,
                "surface_area": 20.5 + number % 130, "quota": 0.5 + number % 199,
            }  # fmt: skip
        case "owners":
            # Lists are sorted by last name: these come last, so that page 1 stays as it is.
            made |= {
                "first_name": "Load", "last_name": f"Zz {marked}",
                "email": f"{marked}@{MAIL_DOMAIN}", "phone": "+32 2 555 01 00",
                **_address(number),
            }  # fmt: skip
        case "expenses":
            when = now.astimezone(UTC).replace(microsecond=0) - timedelta(minutes=number % 60)
            made |= {
                "building_id": building, "category": CATEGORIES[number % len(CATEGORIES)],
                "description": marked, "amount": 10.25 + number % 5000,
                "expense_date": when.isoformat(), "supplier": "Load SRL",
                "invoice_number": f"L-{number:06d}",
            }  # fmt: skip
        case other:
            raise ValueError(f"no body for {other or kind.name}")
    return made


def _address(number: int) -> dict[str, str]:
    return {
        "address": f"Rue de la Charge {1 + number % 200}", "city": "Bruxelles",
        "postal_code": "1000", "country": "Belgium",
    }  # fmt: skip


def wrong(kind: Kind, tenant: Tenant, sent: Mapping[str, Any] | None, answer: bytes) -> str:
    """What is wrong with the body of an answer that has the right status; empty if nothing is.

    Args:
        kind: what was asked.
        tenant: who asked.
        sent: a POST's body.
        answer: as received.
    """
    try:
        found = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return f"not JSON: {answer[:60]!r}"
    if not isinstance(found, dict):
        return f"not an object: {answer[:60]!r}"
    if kind.listed:
        return _wrong_list(kind, tenant, found)
    if missing := kind.keys - found.keys():
        return f"no {', '.join(sorted(missing))}"
    if kind.name == "GET /health" and found["status"] != "ok":
        return f"status is {found['status']!r}"
    if kind.name == "GET /auth/me" and found["email"] != tenant.email:
        return f"{tenant.email} was told to be {found['email']}"
    return _wrong_echo(sent, found) if sent is not None else ""


def _wrong_list(kind: Kind, tenant: Tenant, found: Mapping[str, Any]) -> str:
    rows, page = found.get("data"), found.get("pagination")
    if not isinstance(rows, list) or not isinstance(page, dict):
        return "no data or no pagination"
    total = page.get("total_items")
    if not isinstance(total, int) or total < 0:
        return f"total_items is {total!r}"
    told = (page.get("current_page"), page.get("per_page"), page.get("total_pages"))
    if told != (1, PER_PAGE, math.ceil(total / PER_PAGE)):
        return f"page, per_page, total_pages are {told} of {total} items"
    if (page.get("has_next"), page.get("has_previous")) != (total > PER_PAGE, False):
        return "has_next or has_previous is not so"
    if len(rows) != min(total, PER_PAGE):
        return f"{len(rows)} rows on a page of {total} items"
    if not rows and kind.name in tenant.filled:
        return "empty, and was not before"
    for row in rows:
        if not isinstance(row, dict) or not kind.keys <= row.keys():
            return f"a row without {', '.join(sorted(kind.keys - set(row)))}"
        if row["id"] in tenant.foreign:
            return f"a row of another tenant: {row['id']}"
    return ""


def _wrong_echo(sent: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    if not found.get("id"):
        return "the created row has no id"
    for name, value in sent.items():
        # The organisation is the token's, and only later revisions show it.
        if name not in found:
            if name in ("organization_id", "supplier", "invoice_number", "phone"):
                continue
            return f"the created row has no {name}"
        if not _same(name, value, found[name]):
            return f"{name} is {found[name]!r}, {value!r} was sent"
    return ""


def _same(name: str, sent: object, found: object) -> bool:
    if sent == found:
        return True
    try:
        if name.endswith("_date"):
            return _instant(str(sent)) == _instant(str(found))
        if isinstance(sent, int | float):
            return math.isclose(float(str(found)), sent, abs_tol=0.005)
    except ValueError:
        return False
    return False


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def is_marked(text: object) -> bool:
    """Whether a name or number is one that a load test wrote."""
    return isinstance(text, str) and _MARKED.search(text) is not None
