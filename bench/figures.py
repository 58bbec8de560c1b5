"""What the benchmarks share: timed programs, medians, and a table for people and for the README."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from koprogo_deploy import door
from koprogo_deploy.operations import context
from koprogo_deploy.screen import Screen

RESULTS = door.ROOT / "bench" / "results"

out = Screen(markup=True, width=None if sys.stdout.isatty() else 140)
err = Screen(markup=True, stderr=True)


class Failed(RuntimeError):
    """A program that was measured did not do its work: its time would mean nothing."""


def timed(command: Sequence[str], stdin: str = "", timeout: float = 900) -> tuple[float, str]:
    """Seconds that a program took, and what it printed.

    Raises:
        Failed: it ended with another code than 0; with its last lines.
    """
    began = time.monotonic()
    done = subprocess.run(
        command,
        cwd=door.ROOT,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYINFRA_PROGRESS": "off"},
        check=False,
    )
    took = time.monotonic() - began
    if done.returncode != 0:
        last = "\n".join(done.stdout.splitlines()[-25:])
        raise Failed(f"{' '.join(command)[:200]} ended with {done.returncode}:\n{last}")
    return took, done.stdout


@dataclass
class Figures:
    """A benchmark's outcome: one table, and everything that was measured."""

    title: str
    command: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        """The table for the README, with the command that makes it."""
        lines = [
            f"| {' | '.join(self.columns)} |",
            f"|{'|'.join('---' if n == 0 else '---:' for n in range(len(self.columns)))}|",
            *(f"| {' | '.join(row)} |" for row in self.rows),
            "",
            *(f"- {note}" for note in self.notes),
            "",
            f"Made by `{self.command}` ({self.measured['machine']}, {self.measured['made'][:10]}).",
        ]
        return "\n".join(lines)

    def finish(self, name: str, as_markdown: bool) -> Path:
        """Print the table and write everything as JSON to `bench/results/`."""
        self.measured |= about()
        if as_markdown:
            sys.stdout.write(self.markdown() + "\n")
        else:
            table = Table(title=self.title, title_justify="left")
            for number, column in enumerate(self.columns):
                table.add_column(column, justify="right" if number else "left", overflow="fold")
            for row in self.rows:
                table.add_row(*row)
            out.print(table)
            for note in self.notes:
                out.print(f"- {note}", markup=False)
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
        file.write_text(json.dumps(self.measured, indent=1) + "\n", encoding="utf-8")
        err.print(f"[dim]all runs: {file.relative_to(door.ROOT)}[/]")
        return file


def about() -> dict[str, str]:
    """The machine and the revision that figures were taken with."""
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} CPUs, Linux {platform.release()}",
        "revision": context.revision(),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def seconds(values: Sequence[float]) -> str:
    """Median and range, such as `2.31 s (2.20–2.52)`."""
    if len(values) == 1:
        return f"{values[0]:.2f} s"
    return f"{statistics.median(values):.2f} s ({min(values):.2f}–{max(values):.2f})"
