"""What every handler shares."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import asyncpg
from starlette.requests import Request

from koprogo_standin.settings import Settings

if TYPE_CHECKING:
    from asyncpg.pool import PoolAcquireContext

    from koprogo_standin.database import Pool


@dataclass(frozen=True)
class Context:
    settings: Settings
    pool: "Pool"
    hashing: ThreadPoolExecutor

    # The pool's own fetchrow and the like wait for a connection for ever.

    def connection(self) -> "PoolAcquireContext[asyncpg.Record]":
        return self.pool.acquire(timeout=self.settings.acquire_timeout)

    async def row(self, statement: str, *arguments: object) -> dict[str, Any] | None:
        async with self.connection() as connection:
            found = await connection.fetchrow(statement, *arguments)
        return None if found is None else dict(found)

    async def rows(self, statement: str, *arguments: object) -> list[dict[str, Any]]:
        async with self.connection() as connection:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]

    async def value(self, statement: str, *arguments: object) -> Any:  # noqa: ANN401
        async with self.connection() as connection:
            return await connection.fetchval(statement, *arguments)

    async def execute(self, statement: str, *arguments: object) -> None:
        async with self.connection() as connection:
            await connection.execute(statement, *arguments)


def of(request: Request) -> Context:
    return cast(Context, request.app.state.context)
