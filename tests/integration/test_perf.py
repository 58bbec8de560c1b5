"""`koprogo perf`, whole and short: seed, two runs that are judged, a report."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from koprogo_deploy.runs import store
from koprogo_deploy.runs.model import Run
from tests.integration.rig import ROOT

KOPROGO = str(Path(sys.executable).with_name("koprogo"))
# Short runs on a machine that does other things too: bounds, and a rate, that it can hold.
BOUNDS = ("objective_p99=1s", "goal_p99=1s", "objective_p50=300ms", "objective_load_average=6",
          "goal_rate=240")  # fmt: skip
MILD = tuple(part for bound in BOUNDS for part in ("--data", bound))


def perf(report: Path) -> tuple[int, str, list[Run]]:
    """Run it; its exit code, what it printed, and the two runs that it kept."""
    done = subprocess.run(
        [KOPROGO, "perf", "--seconds", "6", "--out", str(report), *MILD],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=200, check=False,
    )  # fmt: skip
    files = [Path(ROOT, path) for path in re.findall(r"^run: (\S+)$", done.stdout, re.MULTILINE)]
    runs = [store.load(file) for file in files]
    for file in files:
        file.unlink()  # of a test: none to keep among the others
    return done.returncode, done.stdout, runs


@pytest.mark.usefixtures("rig")
def test_the_workflow_ends_in_a_verdict_and_a_report(tmp_path: Path) -> None:
    report = tmp_path / "perf.html"
    for _attempt in range(3):  # a generator that something else held up is not the point
        code, output, runs = perf(report)
        print(output)
        assert len(runs) == 2, output
        judged = [bool(run.verdict and run.verdict.passed) for run in runs]
        assert code == (0 if all(judged) else 1), "the exit code is the verdict's"
        if all(judged):
            break
    assert all(judged), output
    steps = re.findall(r"^== (\d)/4 (\w+)", output, re.MULTILINE)
    assert steps == [("1", "seed"), ("2", "load"), ("3", "load"), ("4", "report")]
    assert re.findall(r"^PASSED: (\d+) req/s", output, re.MULTILINE) == ["220", "240"]
    for run in runs:
        assert run.samples, "the monitor watched"
        assert run.cleanup.removed.items() >= run.cleanup.created.items()
    text = report.read_text()
    assert all(run.id in text for run in runs)
