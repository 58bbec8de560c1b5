"""bcrypt in a thread.

The real image hashes on its async worker: there each login holds up every other request of that
worker for the time of a hash. Here it only takes its share of the CPU.
"""

import asyncio
from concurrent.futures import Executor

import bcrypt

COST = 12
# bcrypt looks at 72 bytes. The Rust library cuts the rest off, the Python one refuses.
LIMIT = 72


async def hashed(executor: Executor, password: str) -> str:
    def work() -> str:
        return bcrypt.hashpw(password.encode()[:LIMIT], bcrypt.gensalt(COST)).decode()

    return await asyncio.get_running_loop().run_in_executor(executor, work)


async def matches(executor: Executor, password: str, password_hash: str) -> bool:
    """Raises ValueError when the hash is none."""

    def work() -> bool:
        return bcrypt.checkpw(password.encode()[:LIMIT], password_hash.encode())

    return await asyncio.get_running_loop().run_in_executor(executor, work)
