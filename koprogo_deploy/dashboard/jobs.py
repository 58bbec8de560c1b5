"""One job at a time: a command of this project as a subprocess, its output line by line.

A job is what a person would have typed; the dashboard watches it, interrupts it as Ctrl-C would,
and says afterwards what is there by looking, not by the exit code.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from koprogo_deploy.door import ROOT
from koprogo_deploy.problems import Refusal

State = Literal["running", "stopping", "done", "failed", "stopped"]
LINES = 400  # of output that are kept
LONGEST_LINE = 1 << 20
# After an interrupt a load run removes what it wrote; then it is asked less politely.
GRACE = ((signal.SIGINT, 30.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def program(name: str) -> str:
    """A program of this project's environment, such as `koprogo` or `pyinfra`."""
    return str(Path(sys.executable).with_name(name))


@dataclass(frozen=True)
class Result:
    """What came of a job, seen by looking: `words` for people, and the run it made, if any."""

    good: bool
    words: str
    run: str = ""


@dataclass(frozen=True)
class Plan:
    """A job to be: what it does, the command line, and how to look at what came of it.

    Attributes:
        kind: `generate`, `clear` or `load`.
        title: for people, such as `Clear the seeded data of sandbox`.
        look: called with the job when the command has ended.
    """

    kind: str
    title: str
    command: Sequence[str]
    look: Callable[[Job], Awaitable[Result]]


@dataclass
class Job:
    """A job that was started."""

    number: int
    plan: Plan
    began: float
    state: State = "running"
    code: int | None = None
    ended: float | None = None
    result: Result | None = None
    lines: list[str] = field(default_factory=list)
    dropped: int = 0
    progress: dict[str, Any] | None = None
    finished: dict[str, Any] | None = None
    version: int = 0

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.state in ("running", "stopping")

    def feed(self, line: str) -> None:
        """Take one line of output: an event of `--json`, or text."""
        self.version += 1
        event = _event(line)
        if event is None:
            self._say(line)
            return
        match event["event"]:
            case "progress":
                self.progress = event
            case "finished":
                self.finished = event
            case _:  # a step, or why it failed
                self._say(_told(event))

    def _say(self, line: str) -> None:
        self.lines.append(line)
        if len(self.lines) > LINES:
            self.lines.pop(0)
            self.dropped += 1

    def show(self) -> dict[str, Any]:
        """What the page gets."""
        return {
            "number": self.number,
            "kind": self.plan.kind,
            "title": self.plan.title,
            "state": self.state,
            "running": self.running,
            "seconds": round((self.ended or time.time()) - self.began),
            "lines": self.lines,
            "dropped": self.dropped,
            "progress": self.progress,
            "result": None
            if self.result is None
            else {"good": self.result.good, "words": self.result.words, "run": self.result.run},
        }


def _event(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict) and isinstance(found.get("event"), str):
            return found
    return None


def _told(event: dict[str, Any]) -> str:
    text = event.get("text")
    return text if isinstance(text, str) else json.dumps(event)


class Busy(Exception):
    """There is a job already; its title is the text."""


class Jobs:
    """Starts jobs, one at a time. All of it runs in one event loop."""

    def __init__(self, grace: Sequence[tuple[signal.Signals, float]] = GRACE) -> None:
        self.job: Job | None = None
        self._grace = grace
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None

    def start(self, plan: Plan) -> Job:
        """Start a job.

        Raises:
            Busy: another one runs; nothing was started.
        """
        if self.job is not None and self.job.running:
            raise Busy(self.job.plan.title)
        number = self.job.number + 1 if self.job else 1
        self.job = Job(number, plan, time.time())
        self._task = asyncio.create_task(self._run(self.job))
        return self.job

    def cancel(self, number: int) -> bool:
        """Interrupt the job of this number as Ctrl-C would; False if it does not run (any more)."""
        job = self.job
        if job is None or job.number != number or not job.running:
            return False
        if job.state == "running":
            job.state = "stopping"
            job.version += 1
            self._stopping = asyncio.create_task(self._end())
        return True

    async def close(self) -> None:
        """Stop the running job, if any, and wait for its end."""
        if self.job is not None and self.job.running:
            self.cancel(self.job.number)
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, job: Job) -> None:
        try:
            self._process = await asyncio.create_subprocess_exec(
                *job.plan.command,
                cwd=ROOT,
                env={**os.environ, "PYINFRA_PROGRESS": "off", "PYTHONUNBUFFERED": "1"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                # Ctrl-C in the terminal is the dashboard's; it interrupts the job itself, once.
                start_new_session=True,
                limit=LONGEST_LINE,
            )
            reading = asyncio.create_task(self._read(self._process, job))
            job.code = await self._process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)  # what it may have left behind
            await asyncio.wait((reading,), timeout=3)
            reading.cancel()
            stopped = job.state == "stopping"
            job.result = await job.plan.look(job)
            job.state = "stopped" if stopped else "done" if job.result.good else "failed"
        except Refusal as refusal:
            job.state = "failed"
            job.result = Result(False, f"could not look at what came of it: {words(refusal)}")
        except OSError as error:
            job.state = "failed"
            job.result = Result(False, f"{job.plan.command[0]}: {error.strerror or error}")
        except Exception as error:  # the page has to say it; a job that never ends blocks the next
            job.state = "failed"
            job.result = Result(False, f"{type(error).__name__}: {error}")
        finally:
            job.ended = time.time()
            job.version += 1
            self._process = None

    async def _read(self, process: asyncio.subprocess.Process, job: Job) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                job.feed(f"(a line of more than {LONGEST_LINE} bytes)")
                continue
            if not line:
                return
            text = _ESCAPES.sub("", line.decode(errors="replace")).rstrip()
            if text:
                job.feed(text)

    async def _end(self) -> None:
        for _ in range(50):  # asked to stop before it was started
            if self._process is not None:
                break
            await asyncio.sleep(0.1)
        process = self._process
        if process is None:
            return
        for signal_, seconds in self._grace:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal_)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), seconds)
                return


def words(refusal: Refusal) -> str:
    """A refusal in one line, without the heading that is for a terminal."""
    return "; ".join(
        f"{p.where}: {p.what.removeprefix(f'{p.where}: ')}" + (f" ({p.fix})" if p.fix else "")
        for p in refusal.problems
    )
