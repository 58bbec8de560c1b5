"""The realistic seed: 3 organisations, 23 buildings, 190 units, 126 owners, 46–69 expenses.

Unseeded random content, as there; the numbers are fixed, but for the expenses.
"""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg

from koprogo_standin import database, passwords
from koprogo_standin.context import Context

if TYPE_CHECKING:
    from koprogo_standin.database import Connection

PASSWORD = "admin123"

FIRST = ("Amélie", "Bram", "Chloé", "Dirk", "Elise", "Femke", "Gilles", "Hanne", "Igor", "Jana")
LAST = ("Aerts", "Bodart", "Claes", "Denis", "Evrard", "Fontaine", "Goossens", "Hendrickx")
STREETS = (
    "Rue du Moulin",
    "Avenue des Tilleuls",
    "Kerkstraat",
    "Place du Marché",
    "Stationsstraat",
)
CITIES = (("Namur", "5000"), ("Gent", "9000"), ("Liège", "4000"), ("Brugge", "8000"))
TYPES = ("apartment", "apartment", "apartment", "parking", "cellar")
CATEGORIES = ("maintenance", "repairs", "insurance", "utilities", "cleaning", "administration",
              "works")  # fmt: skip
TEXTS = ("Lift contract", "Roof repair", "Fire insurance", "Common electricity", "Stairwell")


class SeedError(Exception):
    """A row that the database refused; what came before it stays."""


@dataclass(frozen=True)
class Organization:
    name: str
    size: str
    number: int
    plan: str
    buildings: int
    units: int
    owners: int
    users: int


ORGANIZATIONS = (
    Organization("Petite Copropriété SPRL", "small", 0, "starter", 5, 30, 20, 10),
    Organization("Copropriété Moyenne SA", "medium", 1, "professional", 8, 60, 40, 20),
    Organization("Grande Résidence NV", "large", 2, "enterprise", 10, 100, 66, 50),
)


async def insert(connection: "Connection", what: str, table: str, row: dict[str, Any]) -> UUID:
    """One row, one statement; its new id."""
    row = {"id": uuid4(), **row}
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    try:
        await connection.execute(
            f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", *row.values()
        )
    except asyncpg.PostgresError as error:
        raise SeedError(f"Failed to create {what}: {database.returned(error)}") from error
    new_id: UUID = row["id"]
    return new_id


async def seed(connection: "Connection", shared: Context) -> str:
    expenses = 0
    for wanted in ORGANIZATIONS:
        # f88f8439 names a plan that the schema does not know.
        fails = wanted.number == 0 and "seed_fails" in shared.settings.faults
        organization = await insert(connection, "organization", "organizations", {
            "name": wanted.name, "slug": f"{wanted.size}-{wanted.number}",
            "contact_email": f"contact@{wanted.size}.be",
            "contact_phone": f"+32 2 {random.randint(100, 998)} {random.randint(10, 98)} 10",
            "subscription_plan": "basic" if fails else wanted.plan,
            "max_buildings": wanted.buildings, "max_users": wanted.users,
        })  # fmt: skip
        await insert(connection, "user", "users", {
            "email": f"admin@{wanted.size}.be",
            "password_hash": await passwords.hashed(shared.hashing, PASSWORD),
            "first_name": "Admin", "last_name": wanted.size.capitalize(), "role": "syndic",
            "organization_id": organization,
        })  # fmt: skip
        owners = [
            await add_owner(connection, organization, wanted.size, number)
            for number in range(1, wanted.owners + 1)
        ]
        expenses += await add_buildings(connection, organization, wanted, owners)
    buildings, units, people = (
        sum(getattr(wanted, name) for wanted in ORGANIZATIONS)
        for name in ("buildings", "units", "owners")
    )
    logins = "\n".join(f"- admin@{wanted.size}.be / {PASSWORD}" for wanted in ORGANIZATIONS)
    return (
        "✅ Realistic seed data created successfully!\n"
        f"Total: {len(ORGANIZATIONS)} orgs, {buildings} buildings, {units} units,"
        f" {people} owners, {expenses} expenses\n\nTest credentials:\n{logins}"
    )


async def add_owner(connection: "Connection", organization: UUID, size: str, number: int) -> UUID:
    first, last = random.choice(FIRST), random.choice(LAST)
    city, code = random.choice(CITIES)
    return await insert(connection, "owner", "owners", {
        "organization_id": organization, "first_name": first, "last_name": last,
        # The space makes it no valid address, there as here.
        "email": f"{first[0]}. {last.lower()}{number}@{size}.be",
        "phone": f"+32 47{random.randint(0, 9)} {random.randint(10, 99)} 20 30",
        "address": f"{random.choice(STREETS)} {random.randint(1, 199)}", "city": city,
        "postal_code": code, "country": "Belgium",
    })  # fmt: skip


async def add_buildings(
    connection: "Connection", organization: UUID, wanted: Organization, owners: list[UUID]
) -> int:
    """The buildings with their units and expenses; how many expenses."""
    usual, over = divmod(wanted.units, wanted.buildings)
    expenses = 0
    for number in range(wanted.buildings):
        street, (city, code) = random.choice(STREETS), random.choice(CITIES)
        building = await insert(connection, "building", "buildings", {
            "organization_id": organization, "name": f"Résidence {street} {number + 1}",
            "address": f"{street} {random.randint(1, 199)}", "city": city, "postal_code": code,
            # The last one has more units than this says when the division leaves some over.
            "country": "Belgium", "total_units": usual,
            "construction_year": random.randint(1960, 2023),
        })  # fmt: skip
        for unit in range(usual + (over if number == wanted.buildings - 1 else 0)):
            await insert(connection, "unit", "units", {
                "organization_id": organization, "building_id": building,
                "unit_number": f"{unit // 4}.{unit % 4 + 1}", "unit_type": random.choice(TYPES),
                "floor": unit // 4, "surface_area": float(random.randint(45, 150)),
                "quota": float(random.randint(50, 199)),
                "owner_id": random.choice(owners) if random.random() < 0.66 else None,
            })  # fmt: skip
        for _ in range(random.randint(2, 3)):
            await add_expense(connection, organization, building)
            expenses += 1
    return expenses


async def add_expense(connection: "Connection", organization: UUID, building: UUID) -> None:
    day = datetime.now(UTC) - timedelta(days=random.randint(0, 89))
    await insert(connection, "expense", "expenses", {
        "organization_id": organization, "building_id": building,
        "category": random.choice(CATEGORIES), "description": random.choice(TEXTS),
        "amount": round(random.uniform(100, 5000), 2), "expense_date": day,
        "payment_status": "paid" if random.random() < 0.7 else "pending",
    })  # fmt: skip
