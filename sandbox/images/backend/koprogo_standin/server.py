"""From the environment to an open port, in KoproGo's order, and back on SIGTERM."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import uvicorn

from koprogo_standin import app, auth, database, migrate
from koprogo_standin.context import Context
from koprogo_standin.settings import Settings

log = logging.getLogger("koprogo_standin")

# actix-web's defaults, which KoproGo leaves: seconds that an idle connection is kept, and that
# requests under way have after SIGTERM. The proxy has to cope with both.
KEEP_ALIVE = 5
GRACE = 30
CRASH_AFTER = 1.0


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: they end the process by the signal, not with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def prepare(settings: Settings, hashing: ThreadPoolExecutor) -> Context:
    """Connect, migrate, write the superadmin, make the upload folder."""
    migrations = migrate.read(migrate.FOLDER, settings.extra_migrations)
    if "migration_fails" in settings.faults:
        migrations.append(migrate.BROKEN)
    connection = await database.wait(settings)
    try:
        await migrate.run(connection, migrations)
    finally:
        await connection.close()
    shared = Context(settings, await database.pool(settings), hashing)
    async with shared.connection() as pooled:
        await auth.write_superadmin(pooled, shared)
    settings.upload_dir.mkdir(parents=True, exist_ok=True)
    return shared


async def serve(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    starting = asyncio.current_task()
    assert starting is not None
    server: Server | None = None

    def stop() -> None:
        if "hang_on_term" in settings.faults:
            log.warning("stand-in fault: hang_on_term, going on")
        elif server is None:
            starting.cancel()
        else:
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    with ThreadPoolExecutor(settings.workers, thread_name_prefix="bcrypt") as hashing:
        shared = await prepare(settings, hashing)
        try:
            config = uvicorn.Config(
                app.build(shared), host=settings.host, port=settings.port, loop="none",
                http="httptools", ws="none", lifespan="off", access_log=False, log_config=None,
                server_header=False, proxy_headers=False, timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=GRACE,
            )  # fmt: skip
            server = Server(config)
            log.info("starting server at %s:%d", settings.host, settings.port)
            if "crash_loop" in settings.faults:
                loop.call_later(CRASH_AFTER, crash)
            await server.serve()
            log.info("stopped")
        finally:
            # Also drops what a handler that was cut off still holds.
            shared.pool.terminate()


def crash() -> None:
    log.error("stand-in fault: crash_loop")
    os._exit(1)
