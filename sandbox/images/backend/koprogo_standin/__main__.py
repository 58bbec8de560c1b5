"""`python -m koprogo_standin`: run the stand-in. Its exit codes are KoproGo's."""

import asyncio
import logging
import sys

import uvloop

from koprogo_standin import server, settings
from koprogo_standin.database import DatabaseError, UnreachableError
from koprogo_standin.migrate import MigrationError
from koprogo_standin.settings import SettingError, Settings

# What a Rust program that panics ends with.
PANIC = 101
LEVELS = {
    "off": logging.CRITICAL + 10,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}


def panic(text: str) -> int:
    print(text, file=sys.stderr, flush=True)
    return PANIC


def run(wanted: Settings) -> int:
    logging.basicConfig(
        level=LEVELS[wanted.log_level],
        format="[%(asctime)s %(levelname)s %(name)s] %(message)s",
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(wanted))
    return 0


def main() -> int:
    try:
        return run(settings.current())
    except SettingError as error:
        return panic(str(error))
    except UnreachableError as error:
        return panic(f"Failed to create database pool: {error}")
    except MigrationError as error:
        return panic(f"Failed to run migrations: {error}")
    except DatabaseError as error:
        return panic(f"{type(error).__name__}: {error}")
    except (asyncio.CancelledError, KeyboardInterrupt):
        # Told to stop before the port was open.
        return 0


if __name__ == "__main__":
    sys.exit(main())
