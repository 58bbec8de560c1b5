"""What the dashboard does: looks at the host, and makes the jobs, with the commands' own code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from koprogo_deploy import door, remote, seed
from koprogo_deploy.dashboard import view
from koprogo_deploy.dashboard.jobs import Job, Jobs, Plan, Result, program
from koprogo_deploy.dashboard.watch import Watch
from koprogo_deploy.facts.stack import StackState
from koprogo_deploy.problems import Refusal
from koprogo_deploy.runs import store
from koprogo_deploy.runs.model import Run

RUNS_SHOWN = 20
REASON = 8  # last lines of output that say why there is no run


class Wanted(BaseModel):
    """A job that the page asks for.

    Attributes:
        name: of the environment, as the person confirmed or typed it.
        profile, rate, seconds: of a load run; None: as the profile says.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    what: Literal["generate", "clear", "load"]
    name: str
    profile: str = ""
    rate: int | None = Field(None, ge=1)
    seconds: int | None = Field(None, ge=1)


class NotNow(Exception):
    """A job that cannot be done as things stand; the text says why."""


@dataclass
class Desk:
    """One environment's dashboard, without the web part.

    Attributes:
        name: of the environment.
        open: reads the environment's settings anew; they may change while the page is open.
        profiles: of load runs, with a word about each.
    """

    name: str
    open: Callable[[], door.Environment]
    watch: Watch
    jobs: Jobs
    profiles: Mapping[str, str]
    look_at_stack: Callable[[door.Environment], StackState] = remote.stack
    look_at_seed: Callable[[door.Environment], seed.State] = remote.seed_state
    _runs: dict[tuple[Path, int], Run | str] = field(default_factory=dict)

    # --- look ------------------------------------------------------------------------------------

    def release(self) -> dict[str, Any]:
        """What is deployed.

        Raises:
            Refusal: the settings are wrong, or the host cannot be reached.
        """
        return view.release(self.look_at_stack(self.open()))

    def seeded(self) -> dict[str, Any]:
        """What of the seed is there. Raises as `release`."""
        environment = self.open()
        return view.seeded(self.look_at_seed(environment), environment.settings)

    def measured(self) -> dict[str, Any]:
        """The objectives, and the kept runs, newest first."""
        settings = self.open().settings
        rows: list[dict[str, Any]] = []
        last: Run | None = None
        paths = store.listed(self.name)
        for path in reversed(paths[-RUNS_SHOWN:]):
            run = self._run_of(path)
            if isinstance(run, str):
                rows.append({"id": path.stem, "problem": run})
                continue
            rows.append(view.run_row(run))
            if last is None and run.verdict is not None:
                last = run
        judged = last.verdict.judgements if last and last.verdict else []
        return {
            "objectives": view.objectives(settings, judged),
            "last": view.run_row(last) if last else None,
            "runs": rows,
            "more": max(0, len(paths) - RUNS_SHOWN),
        }

    def run(self, id_: str) -> Run | None:
        """A kept run of this environment by its whole id."""
        for path in store.listed(self.name):
            if path.stem == id_:
                return store.load(path)
        return None

    def _run_of(self, path: Path) -> Run | str:
        try:
            key = (path, path.stat().st_mtime_ns)
            if key not in self._runs:
                self._runs[key] = store.load(path).model_copy(update={"samples": [], "series": []})
        except Refusal as refusal:
            return refusal.problems[0].what
        except OSError as error:
            return error.strerror or str(error)
        return self._runs[key]

    # --- act -------------------------------------------------------------------------------------

    def start(self, wanted: Wanted) -> Job:
        """Start what was asked for, and confirmed by name before.

        Raises:
            NotNow: a setting forbids it.
            Busy: another job runs.
            Refusal: the settings are wrong.
        """
        settings = self.open().settings
        match wanted.what:
            case "generate":
                if not settings.seed_enabled:
                    raise NotNow(f"seed_enabled is off: set it in group_data/{self.name}.py")
                plan = self._generate()
            case "clear":
                plan = self._clear()
            case "load":
                if wanted.profile not in self.profiles:
                    raise NotNow(f"no profile {wanted.profile!r}")
                plan = self._load(wanted)
        return self.jobs.start(plan)

    def _generate(self) -> Plan:
        command = (program("pyinfra"), f"inventories/{self.name}.py", "deploys/seed.py", "-y")

        async def look(job: Job) -> Result:
            found = await asyncio.to_thread(self.seeded)
            good = job.code == 0 and found["complete"]
            there = f"There now: {view.counts_words(found)}."
            return Result(good, there if good else f"Not generated. {found['says']} {there}")

        return Plan("generate", f"Generate realistic data in {self.name}", command, look)

    def _clear(self) -> Plan:
        command = (program("koprogo"), "seed", "clear", self.name, "--yes", self.name)

        async def look(job: Job) -> Result:
            found = await asyncio.to_thread(self.seeded)
            if job.code == 0 and not any(count for _, count in found["counts"]):
                return Result(True, "Nothing seeded is left; what others made was not touched.")
            return Result(False, f"Not cleared. Still there: {view.counts_words(found)}.")

        return Plan("clear", f"Clear the seeded data of {self.name}", command, look)

    def _load(self, wanted: Wanted) -> Plan:
        command = [program("koprogo"), "load", wanted.profile, "--env", self.name, "--json"]
        if self.name != "sandbox":
            command += ["--on", self.name]  # the word that it asks for; it was typed
        if wanted.rate:
            command += ["--rate", str(wanted.rate)]
        if wanted.seconds:
            command += ["--seconds", str(wanted.seconds)]

        async def look(job: Job) -> Result:
            if job.finished is None:
                end = "\n".join(job.lines[-REASON:]) or f"exit code {job.code}"
                return Result(False, f"No run was kept.\n{end}")
            run = await asyncio.to_thread(self.run, str(job.finished.get("id")))
            if run is None:
                return Result(False, f"The run's file is not there: {job.finished.get('file')}")
            words = view.verdict_words(run)
            if run.cleanup.problem:
                words += f". Left behind: {run.cleanup.problem}"
            measured = not run.interrupted and run.generator.valid
            good = measured and (run.verdict is None or run.verdict.passed)
            return Result(good, f"{words[0].upper()}{words[1:]}.", run.id)

        return Plan("load", f"Load run {wanted.profile} against {self.name}", command, look)
