"""The demo seed: 3 organisations, 4 buildings, and a few rows of everything else."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from koprogo_standin import passwords
from koprogo_standin.context import Context
from koprogo_standin.realistic import insert

if TYPE_CHECKING:
    from koprogo_standin.database import Connection

PLACE: dict[str, Any] = {"city": "Bruxelles", "postal_code": "1000", "country": "Belgique"}

ORGANIZATIONS = (
    ("Résidence Grand Place", "residence-grand-place", "professional", 20, 50),
    ("Copropriété Bruxelles", "copro-bruxelles", "starter", 5, 10),
    ("Syndic Liège", "syndic-liege", "enterprise", 50, 100),
)
USERS = (
    ("syndic@grandplace.be", "syndic123", "syndic", 0),
    ("comptable@grandplace.be", "comptable123", "accountant", 0),
    ("proprietaire1@grandplace.be", "owner123", "owner", 0),
    ("proprietaire2@grandplace.be", "owner123", "owner", 0),
    ("syndic@copro-bruxelles.be", "syndic123", "syndic", 1),
    ("syndic@syndic-liege.be", "syndic123", "syndic", 2),
)
BUILDINGS = (("Résidence Grand Place", 0), ("Les Jardins", 0), ("Le Parc", 1), ("La Meuse", 2))


async def seed(connection: "Connection", shared: Context) -> str:
    organizations = [
        await insert(connection, f"demo organization {number}", "organizations", {
            "name": name, "slug": slug, "contact_email": f"contact@{slug}.be",
            "subscription_plan": plan, "max_buildings": buildings, "max_users": users,
        })
        for number, (name, slug, plan, buildings, users) in enumerate(ORGANIZATIONS, 1)
    ]  # fmt: skip
    users = []
    for address, password, role, number in USERS:
        users.append(await insert(connection, f"user {address}", "users", {
            "email": address, "password_hash": await passwords.hashed(shared.hashing, password),
            "first_name": role.capitalize(), "last_name": "Demo", "role": role,
            "organization_id": organizations[number],
        }))  # fmt: skip
    buildings = [
        await insert(connection, f"building {name}", "buildings", {
            "organization_id": organizations[number], "name": name, "address": "Grand Place 1",
            **PLACE, "total_units": 10, "construction_year": 1985,
        })
        for name, number in BUILDINGS
    ]  # fmt: skip
    await fill(connection, organizations, buildings, users[0])
    logins = "\n".join(f"- {address} / {password}" for address, password, _, _ in USERS)
    return (
        "✅ Demo data seeded successfully!\n\n"
        "📊 3 organizations, 4 buildings, 4 units, 3 owners, 4 expenses,"
        " 3 meetings, 2 documents\n\n"
        f"👤 Credentials:\n{logins}"
    )


async def fill(
    connection: "Connection", organizations: list[UUID], buildings: list[UUID], author: UUID
) -> None:
    tenant = {"organization_id": organizations[0]}
    owners = [
        await insert(connection, f"owner {number}", "owners", {
            **tenant, "first_name": "Marie", "last_name": f"Dubois {number}",
            "email": f"owner{number}@grandplace.be", "address": "Grand Place 1", **PLACE,
        })
        for number in range(1, 4)
    ]  # fmt: skip
    for number, owner in enumerate([*owners, None], 1):
        await insert(connection, f"unit {number}", "units", {
            **tenant, "building_id": buildings[number // 4], "unit_number": f"A{number}",
            "unit_type": "apartment", "floor": number, "surface_area": 80.5, "quota": 100.0,
            "owner_id": owner,
        })  # fmt: skip
        await insert(connection, "expense", "expenses", {
            **tenant, "building_id": buildings[number // 4], "category": "maintenance",
            "description": "Lift contract", "amount": 125.5 * number,
            "expense_date": datetime(2025, number, 15, tzinfo=UTC),
        })  # fmt: skip
    for month in (3, 6, 9):
        await insert(connection, "meeting", "meetings", {
            **tenant, "building_id": buildings[0], "meeting_type": "ordinary",
            "title": f"Assemblée générale {month}/2026", "location": "Grand Place 1",
            "scheduled_date": datetime(2026, month, 1, 18, tzinfo=UTC),
        })  # fmt: skip
    for number in (1, 2):
        await insert(connection, "document", "documents", {
            **tenant, "building_id": buildings[0], "document_type": "regulation",
            "title": f"Règlement {number}", "file_path": f"/uploads/demo/{number}.pdf",
            "file_size": 1024 * number, "mime_type": "application/pdf", "uploaded_by": author,
        })  # fmt: skip
