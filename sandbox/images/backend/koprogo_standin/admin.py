"""What only the superadmin sees."""

from starlette.requests import Request
from starlette.responses import Response

from koprogo_standin import context, database, tokens
from koprogo_standin.errors import JsonError, answer

USERS = """
SELECT id, email, first_name, last_name, role, organization_id, is_active, created_at
FROM users ORDER BY created_at DESC"""
ORGANIZATIONS = """
SELECT id, name, slug, contact_email, contact_phone, subscription_plan, max_buildings, max_users,
       is_active, created_at
FROM organizations ORDER BY created_at DESC"""
STATS = """
SELECT (SELECT count(*) FROM organizations) AS total_organizations,
       (SELECT count(*) FROM users) AS total_users,
       (SELECT count(*) FROM buildings) AS total_buildings,
       (SELECT count(*) FROM organizations WHERE is_active) AS active_subscriptions,
       (SELECT count(*) FROM owners) AS total_owners,
       (SELECT count(*) FROM units) AS total_units,
       (SELECT count(*) FROM expenses) AS total_expenses,
       (SELECT count(*) FROM meetings) AS total_meetings"""


def superadmin(request: Request, refusal: str) -> None:
    if tokens.caller(request).role != tokens.SUPERADMIN:
        raise JsonError(403, f"Only SuperAdmin can access {refusal}")


async def users(request: Request) -> Response:
    superadmin(request, "all users")
    try:
        return answer({"data": await context.of(request).rows(USERS)})
    except database.DatabaseError as error:
        text = f"Failed to fetch users: {database.message(error)}"
        raise JsonError(500, text) from error


async def organizations(request: Request) -> Response:
    superadmin(request, "all organizations")
    try:
        return answer({"data": await context.of(request).rows(ORGANIZATIONS)})
    except database.DatabaseError as error:
        text = f"Failed to fetch organizations: {database.message(error)}"
        raise JsonError(500, text) from error


async def stats(request: Request) -> Response:
    superadmin(request, "dashboard statistics")
    try:
        return answer(await context.of(request).row(STATS))
    except database.DatabaseError as error:
        raise JsonError(500, "Failed to fetch dashboard statistics") from error
