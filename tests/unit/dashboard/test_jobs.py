"""One job at a time, interrupted as by Ctrl-C, judged by looking."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable

import pytest

from koprogo_deploy.dashboard.jobs import Busy, Job, Jobs, Plan, Result
from koprogo_deploy.problems import Problem, Refusal
from tests.unit.dashboard.conftest import python


async def by_code(job: Job) -> Result:
    return Result(job.code == 0, f"code {job.code}")


def plan(code: str, look: Callable[[Job], Awaitable[Result]] = by_code, kind: str = "load") -> Plan:
    return Plan(kind, "Something", python(code), look)


async def ended(jobs: Jobs, within: float = 20.0) -> Job:
    deadline = time.monotonic() + within
    assert jobs.job is not None
    while jobs.job.running:
        assert time.monotonic() < deadline, jobs.job
        await asyncio.sleep(0.01)
    return jobs.job


def test_output_and_events_are_told_apart() -> None:
    async def go() -> Job:
        jobs = Jobs()
        jobs.start(
            plan(
                "print('\\x1b[32mplain\\x1b[0m');"
                """print('{"event": "step", "text": "log in"}');"""
                """print('{"event": "progress", "rate": 199.5}');"""
                """print('{"event": "finished", "id": "light-1"}');"""
                "print('{no json'); print('[1]'); print('{\"a\": 1}')"
            )
        )
        return await ended(jobs)

    job = asyncio.run(go())
    assert job.lines == ["plain", "log in", "{no json", "[1]", '{"a": 1}']
    assert job.progress == {"event": "progress", "rate": 199.5}
    assert job.finished == {"event": "finished", "id": "light-1"}
    assert job.state == "done"
    assert job.show()["result"] == {"good": True, "words": "code 0", "run": ""}


def test_success_is_what_is_there_not_the_exit_code() -> None:
    async def nothing_there(job: Job) -> Result:
        return Result(False, "nothing is there")

    async def go() -> Job:
        jobs = Jobs()
        jobs.start(plan("pass", nothing_there))
        return await ended(jobs)

    job = asyncio.run(go())
    assert (job.code, job.state) == (0, "failed")


def test_a_second_job_is_refused_and_the_first_goes_on() -> None:
    async def go() -> None:
        jobs = Jobs()
        first = jobs.start(plan("import time; time.sleep(60)"))
        with pytest.raises(Busy, match="Something"):
            jobs.start(plan("pass"))
        assert jobs.job is first
        assert first.running
        await jobs.close()
        assert jobs.start(plan("pass")).number == 2
        assert (await ended(jobs)).state == "done"

    asyncio.run(go())


def test_cancel_interrupts_and_waits_for_the_cleaning_up() -> None:
    code = (
        "import time\n"
        "print('ready', flush=True)\n"
        "try:\n time.sleep(60)\n"
        "except KeyboardInterrupt:\n time.sleep(0.3); print('cleaned up')\n"
    )

    async def go() -> Job:
        jobs = Jobs()
        job = jobs.start(plan(code))
        while not job.lines:
            await asyncio.sleep(0.01)
        assert not jobs.cancel(job.number + 1)
        assert jobs.cancel(job.number)
        assert job.state == "stopping"
        await asyncio.sleep(0.1)
        assert jobs.cancel(job.number)  # again: no second signal
        return await ended(jobs)

    job = asyncio.run(go())
    assert job.lines == ["ready", "cleaned up"]
    assert job.state == "stopped"


def test_one_that_does_not_listen_is_killed_with_its_children() -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )

    async def go() -> Job:
        grace = ((signal.SIGINT, 0.1), (signal.SIGTERM, 0.1), (signal.SIGKILL, 5.0))
        jobs = Jobs(grace)
        job = jobs.start(plan(code))
        while not job.lines:
            await asyncio.sleep(0.01)
        await jobs.close()
        return job

    job = asyncio.run(go())
    assert job.state == "stopped"
    assert job.code == -signal.SIGKILL
    child = int(job.lines[0])
    deadline = time.monotonic() + 3
    while alive(child):
        assert time.monotonic() < deadline, "an orphan"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()[0] != "Z"


def test_a_command_that_is_missing_is_named() -> None:
    async def go() -> Job:
        jobs = Jobs()
        jobs.start(Plan("load", "Something", ("/nowhere/koprogo", "load"), by_code))
        return await ended(jobs)

    job = asyncio.run(go())
    assert job.state == "failed"
    assert job.result is not None
    assert "/nowhere/koprogo: No such file" in job.result.words


def test_when_looking_fails_that_is_said() -> None:
    async def cannot(job: Job) -> Result:
        raise Refusal("Host vps", [Problem("ssh", "no route to host", "try again")])

    async def go() -> Job:
        jobs = Jobs()
        jobs.start(plan("pass", cannot))
        return await ended(jobs)

    job = asyncio.run(go())
    assert job.state == "failed"
    assert job.result is not None
    assert job.result.words.endswith("ssh: no route to host (try again)")


def test_much_output_is_cut_and_counted() -> None:
    async def go() -> Job:
        jobs = Jobs()
        jobs.start(plan("for n in range(1000): print(n)"))
        return await ended(jobs)

    job = asyncio.run(go())
    assert job.lines[-1] == "999"
    assert (len(job.lines), job.dropped) == (400, 600)
