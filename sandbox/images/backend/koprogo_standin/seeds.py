"""The seed routes: row by row, without a transaction, into an empty database only, as there."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from koprogo_standin import context, database, demo, realistic, tokens
from koprogo_standin.context import Context
from koprogo_standin.errors import JsonError, answer

if TYPE_CHECKING:
    from koprogo_standin.database import Connection

Work = Callable[["Connection", Context], Awaitable[str]]

# Everything, not only what was seeded: the danger of the route. Children before parents.
CLEARED = ("documents", "meetings", "expenses", "units", "owners", "buildings")


async def clear_all(connection: "Connection", shared: Context) -> str:
    for table in CLEARED:
        await connection.execute(f"DELETE FROM {table}")
    await connection.execute("DELETE FROM users WHERE role <> 'superadmin'")
    await connection.execute("DELETE FROM organizations")
    return "✅ Demo data cleared successfully!"


class Seed:
    def __init__(self, work: Work, what: str, occupied: str | None = None) -> None:
        self.work = work
        self.what = what
        self.occupied = occupied

    async def __call__(self, request: Request) -> Response:
        shared = context.of(request)
        if tokens.caller_json(request).role != tokens.SUPERADMIN:
            raise JsonError(403, f"Only SuperAdmin can {self.what}")
        try:
            async with shared.connection() as connection:
                taken = await connection.fetchval("SELECT count(*) FROM organizations")
                if self.occupied and taken:
                    raise JsonError(400, self.occupied)
                message = await self.work(connection, shared)
        except realistic.SeedError as error:
            raise JsonError(400, str(error)) from error
        except database.DatabaseError as error:
            raise JsonError(400, database.message(error)) from error
        return answer({"success": True, "message": message})


demo_data = Seed(
    demo.seed,
    "seed demo data",
    "Demo data already exists. Please clean the database first.",
)
realistic_data = Seed(
    realistic.seed,
    "seed realistic data",
    "Data already exists. Please clear the database first.",
)
clear = Seed(clear_all, "clear demo data")
