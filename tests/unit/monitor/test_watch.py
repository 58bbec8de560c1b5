"""The watcher: samples arrive, a gap is told, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from koprogo_deploy import door
from koprogo_deploy.monitor import Monitor, watch
from koprogo_deploy.monitor.probe import MODULES
from koprogo_deploy.monitor.probe.loop import missed
from koprogo_deploy.runs.sample import Sample
from tests.project import Project
from tests.unit.monitor import samples

SAMPLE = samples.sample().model_dump_json()

# Stands for ssh and the probe: takes the program, tells its time, then does as it is told.
FAKE = """
import json, os, sys, time
size, data = int(sys.argv[1]), b""
while len(data) < size: data += os.read(0, size - len(data))
def say(text): os.write(1, text.encode() + b"\\n")
line = b""
while b"go" not in line:
    line += os.read(0, 100)
    while b"clock" in line:
        line = line.partition(b"clock\\n")[2]
        say(json.dumps({"clock": time.time() + 5}))
sample = %r
def until_told():
    while os.read(0, 100): pass
"""


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch, project: Project, tmp_path: Path) -> "Probe":  # noqa: UP037 - below
    return Probe(monkeypatch, project, tmp_path)


class Probe:
    def __init__(self, patch: pytest.MonkeyPatch, project: Project, folder: Path) -> None:
        self.patch, self.folder = patch, folder
        self.environment = project.open()
        self.starts = folder / "starts"

    def does(self, *scripts: str) -> None:
        """What it does the first time, the second time and so on, after the handshake."""
        counted = f"open({str(self.starts)!r}, 'a').write(f'{{os.getpid()}}\\n')\n"

        def command(environment: object, interval: float, longest: float, size: int) -> list[str]:
            began = len(self.pids)
            script = counted + scripts[min(began, len(scripts) - 1)]
            return [sys.executable, "-c", FAKE % SAMPLE + script, str(size)]

        self.patch.setattr(watch, "command", command)

    def fails(self, shell: str) -> None:
        self.patch.setattr(watch, "command", lambda *_: ["sh", "-c", shell])

    @property
    def pids(self) -> list[int]:
        return (
            [int(line) for line in self.starts.read_text().split()] if self.starts.exists() else []
        )


GOOD = "say(sample); say(sample); say(sample); until_told()"


def test_samples_arrive_and_the_probe_ends_with_the_watcher(probe: Probe) -> None:
    probe.does(GOOD)
    seen: list[Sample] = []
    with Monitor(probe.environment, on_sample=seen.append) as monitor:
        assert monitor.wait(10)
        assert monitor.latest == samples.sample()
    assert monitor.problem == ""
    assert len(monitor.samples) == len(seen) == 3
    assert not monitor.running
    with pytest.raises(ProcessLookupError):
        os.kill(probe.pids[0], 0)


def test_the_hosts_clock_is_compared_with_ours(probe: Probe) -> None:
    probe.does(GOOD)
    with Monitor(probe.environment) as monitor:
        monitor.wait(10)
    assert monitor.clock_offset == pytest.approx(5, abs=0.2)


def test_a_lost_connection_is_a_problem_and_is_tried_once_more(probe: Probe) -> None:
    lost = "say(sample); say(sample); sys.stderr.write('Connection reset by peer'); sys.exit(255)"
    probe.does(lost, GOOD)
    with Monitor(probe.environment) as monitor:
        end = time.monotonic() + 10
        while len(monitor.samples) < 5 and time.monotonic() < end:
            time.sleep(0.01)
    assert len(monitor.samples) == 5
    assert len(probe.pids) == 2
    assert monitor.problem == "connection lost after 0 s: Connection reset by peer"


def test_a_connection_that_is_lost_twice_is_given_up(probe: Probe) -> None:
    probe.does("say(sample); sys.stderr.write('Broken pipe'); sys.exit(255)")
    with Monitor(probe.environment) as monitor:
        monitor._thread.join(10)
    assert len(probe.pids) == 2
    assert monitor.problem == "connection lost after 0 s: Broken pipe; and again: Broken pipe"


@pytest.mark.parametrize(
    ("shell", "told"),
    [
        ("echo 'sudo: python3: command not found' >&2; exit 1", "python3 is missing on the host"),
        ("exit 127", "python3 is missing on the host"),
        ("echo 'sudo: a password is required' >&2; exit 1", "no root on the host"),
        ("echo 'ssh: connect to host x port 22: refused' >&2; exit 255", "port 22: refused"),
        ("exit 9", "the probe ended with 9"),
    ],
)
def test_a_probe_that_never_came_up_says_why(probe: Probe, shell: str, told: str) -> None:
    probe.fails(shell)
    with Monitor(probe.environment) as monitor:
        assert monitor.wait(10) is False
    assert told in monitor.problem
    assert monitor.samples == []


def test_a_probe_that_ends_before_it_was_told_to_is_a_problem(probe: Probe) -> None:
    probe.does("say(sample); say(sample)")
    with Monitor(probe.environment) as monitor:
        monitor._thread.join(10)
    assert len(monitor.samples) == 2
    assert monitor.problem == "the probe ended by itself after 0 s"


def test_waiting_ends_when_nothing_can_come_any_more(probe: Probe) -> None:
    probe.fails("exit 1")
    began = time.monotonic()
    with Monitor(probe.environment) as monitor:
        assert monitor.wait(60) is False
    assert time.monotonic() - began < 10


def test_what_is_no_sample_is_told(probe: Probe) -> None:
    probe.does('say(\'{"at": 1, "bogus": 2}\'); say(sample); say(sample); until_told()')
    with Monitor(probe.environment) as monitor:
        monitor.wait(10)
    assert "no sample" in monitor.problem


def test_a_probe_that_does_not_end_is_killed(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "END_WITHIN", 0.2)
    probe.does("say(sample); say(sample); time.sleep(60)")
    with Monitor(probe.environment) as monitor:
        assert monitor.wait(10)
    assert not monitor.running
    with pytest.raises(ProcessLookupError):
        os.kill(probe.pids[0], 0)


def test_it_works_beside_an_event_loop(probe: Probe) -> None:
    probe.does(GOOD)

    async def load() -> int:
        with Monitor(probe.environment) as monitor:
            while len(monitor.samples) < 3:
                await asyncio.sleep(0.005)
            return len(monitor.samples)

    assert asyncio.run(asyncio.wait_for(load(), 10)) == 3


def test_no_thread_is_left(probe: Probe) -> None:
    probe.does(GOOD)
    with Monitor(probe.environment) as monitor:
        monitor.wait(10)
    names = {thread.name for thread in threading.enumerate()}
    assert "koprogo monitor" not in names


def test_the_connection_is_its_own_and_notices_a_dead_link(project: Project) -> None:
    line = watch.command(project.open(), 1.0, 60, 99)
    assert line[0] == "ssh"
    assert "ControlPath=none" in line and "ServerAliveInterval=5" in line
    assert line[-1].endswith(" 99")


def test_the_probe_is_told_what_it_needs_and_no_secret(project: Project) -> None:
    environment = project.open()
    told = watch.config(environment, 1.0, 60)
    assert (told["traefik"], told["role"]) == ("172.30.80.2", "koprogo_observer")
    text = watch.program().decode() + json.dumps(told)
    assert not [name for name, value in environment.secrets.values.items() if value in text]


def test_the_probe_is_whole_and_runs_on_the_standard_library(tmp_path: Path) -> None:
    import subprocess

    sent = watch.program()
    names = [name for name, _ in json.loads(sent)]
    assert names[-1].endswith(".loop")
    assert len(names) == 3 + len(MODULES)
    folder = door.ROOT / "koprogo_deploy/monitor/probe"
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == set(MODULES)
    # -I -S: neither this project nor its libraries can be imported.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", watch._BOOT.replace(".main(", ".missed(0, 1, 1, 1) #"),
         "{}", str(len(sent))],
        input=sent, capture_output=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


def test_looks_are_due_at_whole_intervals_whatever_one_took() -> None:
    assert missed(100.0, 1.0, 0, 100.004) == 1
    assert missed(100.0, 1.0, 1, 101.9) == 2
    # One took 2.5 s: those that were missed are not made up for, and the beat is kept.
    assert missed(100.0, 1.0, 2, 104.5) == 5
