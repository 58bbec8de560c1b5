"""The rows of a seed, one class a table; the fields are the columns, in the order of the COPY.

Source: KoproGo's schema at f88f8439 (migrations 20240101000000 to 20250103000003).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class UnitType(StrEnum):
    """Postgres enum `unit_type`, as far as the seed uses it."""

    APARTMENT = "apartment"
    PARKING = "parking"
    CELLAR = "cellar"
    COMMERCIAL = "commercial"


class Category(StrEnum):
    """Postgres enum `expense_category`."""

    MAINTENANCE = "maintenance"
    REPAIRS = "repairs"
    INSURANCE = "insurance"
    UTILITIES = "utilities"
    CLEANING = "cleaning"
    ADMINISTRATION = "administration"
    WORKS = "works"
    OTHER = "other"


class PaymentStatus(StrEnum):
    """Postgres enum `payment_status`, as far as the seed uses it."""

    PENDING = "pending"
    PAID = "paid"
    OVERDUE = "overdue"


@dataclass(frozen=True)
class Organization:
    """A syndic's office: the tenant that everything else belongs to."""

    id: UUID
    name: str
    slug: str
    contact_email: str
    contact_phone: str
    subscription_plan: str
    max_buildings: int
    max_users: int
    is_active: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class User:
    """A login of an organisation."""

    id: UUID
    email: str
    password_hash: str = field(repr=False)
    first_name: str
    last_name: str
    role: str
    organization_id: UUID
    is_active: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Building:
    """A building under management; `total_units` is the number of its units in the data set."""

    id: UUID
    organization_id: UUID
    name: str
    address: str
    city: str
    postal_code: str
    country: str
    total_units: int
    construction_year: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Owner:
    """A person who owns at least one unit."""

    id: UUID
    organization_id: UUID
    first_name: str
    last_name: str
    email: str
    phone: str | None
    address: str
    city: str
    postal_code: str
    country: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Unit:
    """A lot: surface in m², quota in thousandths of the building (1000 together)."""

    id: UUID
    organization_id: UUID
    building_id: UUID
    owner_id: UUID | None
    unit_number: str
    unit_type: UnitType
    floor: int
    surface_area: float
    quota: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Expense:
    """An invoice to a building: amount in EUR, VAT included."""

    id: UUID
    organization_id: UUID
    building_id: UUID
    category: Category
    description: str
    amount: float
    expense_date: datetime
    payment_status: PaymentStatus
    supplier: str
    invoice_number: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Dataset:
    """A whole seed, ready to be written."""

    number: int
    scale: int
    organizations: tuple[Organization, ...]
    users: tuple[User, ...]
    buildings: tuple[Building, ...]
    owners: tuple[Owner, ...]
    units: tuple[Unit, ...]
    expenses: tuple[Expense, ...]


def summary(dataset: Dataset) -> dict[str, int]:
    """How many rows of each kind a data set holds, by table name."""
    return {
        "organizations": len(dataset.organizations),
        "users": len(dataset.users),
        "buildings": len(dataset.buildings),
        "units": len(dataset.units),
        "owners": len(dataset.owners),
        "expenses": len(dataset.expenses),
    }
