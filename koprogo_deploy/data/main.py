"""The command line of `koprogo-data`. Results are JSON on stdout, reasons are on stderr."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from koprogo_deploy.data import dump, hashes, scratch
from koprogo_deploy.data.host import (
    CLIENTS,
    DATA_LOCK,
    POSTGRES,
    Config,
    Failed,
    limit,
    lock,
    read_config,
)

WAIT = 600  # seconds for another command of ours


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    top = argparse.ArgumentParser("koprogo-data", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    server = commands.add_parser("scratch", help="a throw-away Postgres server")
    server.add_argument("what", choices=("up", "down"))
    server.add_argument("--image", default="", help="other than the running server's")
    commands.add_parser("copy", help="the real database into the scratch server")
    out = commands.add_parser("dump", help="the real database to a file")
    out.add_argument("file", type=Path)
    out.add_argument("--hash", action="store_true", help="hash its tables as well")
    back = commands.add_parser("restore", help="a dump into the scratch server")
    back.add_argument("file", type=Path)
    content = commands.add_parser("hash", help="content hash of every table")
    content.add_argument("--scratch", action="store_true", help="of the scratch server")
    return top


def work(config: Config, given: argparse.Namespace) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Do what was asked for, and return the result."""
    match given.command:
        case "scratch" if given.what == "up":
            return scratch.up(config, given.image)
        case "scratch":
            return {"removed": scratch.down()}
        case "copy":
            return dump.copy()
        case "dump":
            return dump.dump(given.file.absolute(), hashed=given.hash)
        case "restore":
            return dump.restore(given.file)
        case "hash":
            return hashes.tables(scratch.NAME if given.scratch else POSTGRES)
    raise AssertionError(given.command)


def main(root: Path, arguments: list[str]) -> int:
    """Run a command within its memory limit, alone.

    Args:
        root: the install root.
        arguments: without the program's name.

    Returns:
        The exit code: 0, or 1 when it failed.
    """
    given = parser().parse_args(arguments)
    os.umask(0o077)
    try:
        config = read_config(root)
        limit(CLIENTS, [sys.executable, "-I", sys.argv[0], *arguments])
        with lock(DATA_LOCK, WAIT, f"koprogo-data {given.command}"):
            print(json.dumps(work(config, given)))
    except Failed as failed:
        print(f"koprogo-data {given.command}: {failed}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"koprogo-data {given.command}: {error}", file=sys.stderr)
        return 1
    return 0
