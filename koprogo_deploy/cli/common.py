"""What the commands share: the environments, and where they print to."""

from __future__ import annotations

import enum
import sys
from typing import Annotated

import typer
from rich.console import Console

# Piped output is as wide as a wide terminal: a table in a log stays readable.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


class Where(enum.StrEnum):
    """The environments there are."""

    production = "production"
    staging = "staging"
    sandbox = "sandbox"


Environment = Annotated[Where, typer.Argument(help="whose inventory and group data to use")]
EnvironmentOption = Annotated[
    Where, typer.Option("--env", "-e", help="whose inventory and group data to use")
]
