"""Runs the smoke tests of `tests/smoke` against an environment, in a process of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from koprogo_deploy import door

TESTS = door.ROOT / "tests" / "smoke"
TIMEOUT = 300  # seconds; they take 2 to 5
OF_THE_HOST = 20  # exit code: all that fails is marked so, and is no fault of the release


@dataclass(frozen=True)
class Outcome:
    """What the smoke tests said.

    Attributes:
        passed: every one of them ran and passed.
        output: pytest's.
        ended: they came to their end in time.
        of_the_host: what fails is the host's or its surroundings', whichever release serves there:
            no reason to take one back.
    """

    passed: bool
    output: str
    of_the_host: bool = False
    ended: bool = True

    @property
    def failures(self) -> str:
        """Names of the failed tests, on one line."""
        failed = (line for line in self.output.splitlines() if line.startswith(("FAILED", "ERROR")))
        names = [line.split()[1].rpartition("::")[2] for line in failed]
        if not self.ended:
            names.append(f"no end within {TIMEOUT} s")
        return ", ".join(names) or "no test ran"

    @property
    def untried(self) -> list[str]:
        """What no test could try, as the skipped ones say, each once."""
        said = re.findall(r"^SKIPPED \[\d+\] \S+ (.* was tried: .*)$", self.output, re.M)
        return list(dict.fromkeys(said))

    @property
    def summary(self) -> dict[str, object]:
        """For the journal: whether they passed, pytest's last line, and which failed."""
        last = (self.output.strip().splitlines() or [""])[-1].strip("= ")
        told: dict[str, object] = {"passed": self.passed, "tests": last}
        if untried := self.untried:
            told["untried"] = untried
        if self.passed:
            return told
        return {**told, "failed": self.failures, **({"of": "host"} if self.of_the_host else {})}


def command(arguments: Sequence[str] = ()) -> list[str]:
    """The pytest command line of the smoke tests."""
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, str(TESTS)]


def run(
    environment: str,
    arguments: Sequence[str] = (),
    overrides: Mapping[str, object] | None = None,
    verifying: bool = False,
) -> Outcome:
    """Run the smoke tests and keep their output.

    Args:
        environment: whose inventory and group data they use.
        arguments: further pytest options.
        overrides: values of `--data`, which a deploy that verifies itself was given.
        verifying: such a deploy asks: the release it switched to does not count yet.
    """
    try:
        finished = subprocess.run(
            command(["--no-header", "--tb=short", *arguments]),
            cwd=door.ROOT,
            env={
                **os.environ,
                "KOPROGO_ENVIRONMENT": environment,
                "KOPROGO_OVERRIDES": json.dumps(dict(overrides or {})),
                "PYTHONDONTWRITEBYTECODE": "1",
                **({"KOPROGO_VERIFYING": "1"} if verifying else {}),
                # Plugins that happen to be installed are no use here; Hypothesis' costs a second.
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        said = late.output or b""  # bytes, whatever was asked for
        output = said if isinstance(said, str) else said.decode(errors="replace")
        return Outcome(False, f"{output}\nno end within {TIMEOUT} s", ended=False)
    code = finished.returncode
    return Outcome(code == 0, finished.stdout, code == OF_THE_HOST)
