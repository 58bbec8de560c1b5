"""The guide's workflow in one go: seed, monitor, load, gate, report.

Two runs of the realistic load, each watched and judged: at the environment's objective, and at
the rate of our own goal. The steps are those of the commands of the same names.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from koprogo_deploy import door, remote, seed
from koprogo_deploy.door import Environment
from koprogo_deploy.load.plan import Options
from koprogo_deploy.load.profiles import PROFILES, Profile
from koprogo_deploy.load.run import execute, prepare
from koprogo_deploy.load.show import View
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.runs import store
from koprogo_deploy.runs.model import Run
from koprogo_deploy.settings import Settings

QUICK_SECONDS = 40  # of each judged phase: with its warm-up and the rest, two minutes in all
REST = 5.0  # seconds between two runs: the first one's clean-up is no load of the second
PROFILE = "realistic"


class PerfFailed(RuntimeError):
    """A step could not be done; the message says why."""


@dataclass(frozen=True)
class Leg:
    """One of the workflow's runs: what for, and at what rate (None: the profile's own)."""

    title: str
    rate: float | None


def legs(settings: Settings) -> list[Leg]:
    """The runs: at the objective, and at the goal where that is higher."""
    found = [Leg(f"load at the objective, {settings.objective_rate} req/s and a little more", None)]
    if settings.goal_rate > settings.objective_rate:
        found.append(Leg(f"load at our goal, {settings.goal_rate} req/s", settings.goal_rate))
    return found


def options_of(leg: Leg, base: Options, quick: bool) -> Options:
    """Options of one run: those of the command line, the leg's rate, and the length."""
    seconds = base.seconds or (QUICK_SECONDS if quick else None)
    return replace(base, rate=leg.rate, seconds=seconds)


class Steps:
    """Numbered steps with elapsed time, as they begin."""

    def __init__(self, total: int, write: Callable[[str], None]) -> None:
        self._total, self._write = total, write
        self._number, self._began = 0, time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the first step."""
        return time.monotonic() - self._began

    def begin(self, title: str) -> None:
        """Say that a step begins."""
        self._number += 1
        self._write(f"\n== {self._number}/{self._total} {title} ({self.elapsed:.0f} s)")


def seed_if_missing(environment: Environment, say: Callable[[str], None]) -> None:
    """Bring the realistic data, unless it is there.

    Raises:
        Refusal: the environment is not to be seeded, and has no seed.
        PerfFailed: the seed stage failed.
    """
    settings = environment.settings
    state = remote.seed_state(environment)
    decision = seed.decide(state, settings.seed_number, settings.seed_scale)
    if decision.action == "nothing":
        say("the realistic data is there")
        return
    if state.total_organizations and (decision.action == "refuse" or not settings.seed_enabled):
        say(f"other data is there, and is used as it is: {state.total_organizations} organisations")
        return
    name = settings.environment
    if not settings.seed_enabled:
        fix = f"set seed_enabled = True in group_data/{name}.py, or give --login"
        raise Refusal("Performance", [Problem("seed", "there is no data to load", fix)])
    program = str(Path(sys.executable).with_name("pyinfra"))
    command = [program, f"inventories/{name}.py", "deploys/seed.py", "-y"]
    done = subprocess.run(command, cwd=door.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise PerfFailed(f"seeding ended with {done.returncode}:\n{last}")
    say("seeded")


def measure(
    environment: Environment,
    base: Options,
    quick: bool,
    steps: Steps,
    say: Callable[[str], None],
    view: Callable[[], View],
    after: Callable[[Run, Path], None],
) -> list[Run]:
    """Seed and run every leg; each run is saved at once, so that a later failure loses none.

    Args:
        environment: whose site.
        base: options of the command line; a leg's own rate and length go on top.
        quick: short runs.
        steps: says where we are.
        say: prints a line.
        view: makes what shows a run's progress.
        after: is told of each finished run and its file.

    Raises:
        Refusal: before anything was touched.
        PerfFailed, LoadFailed: a step could not be done.
    """
    profile = PROFILES[PROFILE]
    every = legs(environment.settings)
    _refuse(environment, profile, [options_of(leg, base, quick) for leg in every])
    steps.begin("seed: the realistic data")
    seed_if_missing(environment, say)
    runs: list[Run] = []
    for leg in every:
        steps.begin(f"{leg.title}, with the monitor; gate")
        if runs:
            time.sleep(REST)
        shown = view()
        try:
            run = execute(environment, profile, options_of(leg, base, quick), shown)
        finally:
            shown.close()
        runs.append(run)
        after(run, store.save(run))
        if run.interrupted:
            break
    return runs


def _refuse(environment: Environment, profile: Profile, every: Sequence[Options]) -> None:
    """Every run's problems at once, before the first one."""
    problems: dict[Problem, None] = {}
    for options in every:
        try:
            prepare(environment, profile, options)
        except Refusal as refusal:
            problems |= dict.fromkeys(refusal.problems)
    if problems:
        raise Refusal("Performance", list(problems))
