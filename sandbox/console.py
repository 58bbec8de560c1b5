"""What the user sees: numbered steps with their time, and errors that say what to do."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class SandboxError(Exception):
    """Something the user can act on; printed without a traceback."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def show(self) -> None:
        """Print the message, and below it what to do."""
        err.print(f"[bold red]error:[/] {escape(str(self))}")
        if self.hint:
            err.print(f"[bold]to do:[/] {escape(self.hint)}")


class Steps:
    """A counter of steps: `[ 3/8] build image koprogo/traefik … 4.2 s`."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.number = 0
        self.started = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        """Announce a step, run it, and print what it took; the list takes remarks."""
        self.number += 1
        remarks: list[str] = []
        width = len(str(self.total))
        head = f"\\[{self.number:>{width}}/{self.total}] {escape(title)} … "
        out.print(head, end="")
        sys.stdout.flush()
        began = time.monotonic()
        try:
            yield remarks
        except BaseException:
            out.print("[red]stopped[/]")
            raise
        took = f"{time.monotonic() - began:.1f} s"
        note = f" [dim]({escape('; '.join(remarks))})[/]" if remarks else ""
        out.print(f"[green]{took}[/]{note}")

    @property
    def elapsed(self) -> float:
        """Seconds since the first step began."""
        return time.monotonic() - self.started
