"""Connections: waiting for the server at start, and the pool."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg

from koprogo_standin.settings import Settings

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    # At run time asyncpg's classes take no type argument.
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
else:
    Connection = Pool = Any

log = logging.getLogger("koprogo_standin")

# What a query may raise when the database, the network or the data is at fault.
DatabaseError = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
RETRIED = (
    OSError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.PostgresConnectionError,
    TimeoutError,
)
IDLE_SECONDS = 600


class UnreachableError(Exception):
    """No connection within the acquire timeout, or one refused for good."""


async def wait(settings: Settings) -> "Connection":
    """A connection, tried for until the acquire timeout is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + settings.acquire_timeout
    pause = 0.1
    while True:
        left = deadline - loop.time()
        try:
            return await asyncpg.connect(settings.database_url, timeout=max(left, 0.1))
        except RETRIED as error:
            if loop.time() + pause >= deadline:
                raise UnreachableError(f"{type(error).__name__}: {error}") from error
            log.warning("database not ready (%s), trying again", type(error).__name__)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise UnreachableError(f"{type(error).__name__}: {error}") from error
        await asyncio.sleep(pause)
        pause = min(pause * 2, 2.0)


async def keep(connection: object) -> None:
    """Leave the session as it is: nothing here changes it, and asyncpg's reset is a round trip."""


async def pool(settings: Settings) -> "Pool":
    return await asyncpg.create_pool(
        settings.database_url,
        min_size=settings.pool_min,
        max_size=settings.pool_max,
        max_inactive_connection_lifetime=IDLE_SECONDS,
        timeout=settings.acquire_timeout,
        reset=keep,
    )


def message(error: BaseException) -> str:
    """The error as KoproGo's database library words it; clients see it, as there."""
    if isinstance(error, TimeoutError):
        return "Database error: pool timed out while waiting for an open connection"
    if isinstance(error, asyncpg.PostgresError):
        return f"Database error: {returned(error)}"
    return f"Database error: error communicating with database: {error}"


def returned(error: asyncpg.PostgresError) -> str:
    """Without the DETAIL that asyncpg adds."""
    return f"error returned from database: {error.args[0] if error.args else error}"
