"""The load test against the sandbox: right answers, nothing left behind, and a word of its own for
whatever goes wrong.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from koprogo_deploy.load.application import MARK
from koprogo_deploy.load.hold import BOOT_FILE, ROUTER, UNIT
from koprogo_deploy.runs import store
from koprogo_deploy.runs.model import Run
from koprogo_deploy.units import MB
from tests.integration.rig import ROOT, Rig

KOPROGO = str(Path(sys.executable).with_name("koprogo"))
TABLES = ("organizations", "users", "buildings", "units", "owners", "expenses", "refresh_tokens")
EXEMPTION = f"/opt/koprogo/traefik/dynamic/{ROUTER}.yaml"


def start(*arguments: str) -> subprocess.Popen[str]:
    """A load test in a process group of its own."""
    return subprocess.Popen(
        [KOPROGO, "load", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def load(*arguments: str, within: float = 120) -> tuple[int, str]:
    """Exit code and output of a load test that runs to its end."""
    process = start(*arguments)
    try:
        output, _ = process.communicate(timeout=within)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


def under_way(process: subprocess.Popen[str]) -> list[str]:
    """Wait until a run with --json has written rows; the events so far."""
    seen = []
    assert process.stdout is not None
    for line in process.stdout:
        seen.append(line)
        if '"progress"' in line and len([s for s in seen if '"progress"' in s]) == 3:
            return seen
    raise AssertionError("it ended before its time:\n" + "".join(seen))


def rows(rig: Rig) -> dict[str, int]:
    counts = ", ".join(f"'{table}', (SELECT count(*) FROM {table})" for table in TABLES)
    found: dict[str, int] = json.loads(rig.sql(f"SELECT json_build_object({counts});"))
    return found


def marked(rig: Rig) -> int:
    return int(rig.sql(f"SELECT count(*) FROM buildings WHERE name ~ '^{MARK}$';"))


@pytest.fixture(scope="module")
def realistic(
    rig: Rig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, str, dict[str, int]]:
    """Twenty seconds at 100 a second; the run, what it printed, and the rows before it."""
    load("clean")
    before = rows(rig)
    file = tmp_path_factory.mktemp("runs") / "run.json"
    code, output = load("realistic", "--rate", "100", "--seconds", "20", "--out", str(file))
    assert code == 0, output
    return store.load(file), output, before


def test_every_answer_is_right(realistic: tuple[Run, str, dict[str, int]]) -> None:
    run, output, _ = realistic
    warm_up, phase = run.phases
    assert (warm_up.sent, phase.sent) == (500, 2000)
    assert phase.errors == {}, run.notes
    assert phase.right == 2000
    assert phase.achieved_rate > 95
    assert {endpoint.name for endpoint in phase.endpoints} == {
        "GET /buildings", "GET /units", "GET /owners", "GET /expenses", "GET /auth/me",
        "POST /buildings", "POST /units", "POST /owners", "POST /expenses",
    }  # fmt: skip
    reads = sum(endpoint.sent for endpoint in phase.endpoints if not endpoint.writes)
    assert reads / phase.sent == pytest.approx(0.7, abs=0.03)
    assert "sent 100.0 a second of 100 asked" in output
    assert [second.sent for second in run.series[-20:]] == [100] * 20


def test_what_was_written_is_gone_and_the_tables_are_as_before(
    rig: Rig, realistic: tuple[Run, str, dict[str, int]]
) -> None:
    run, output, before = realistic
    assert sum(run.cleanup.created.values()) > 600
    removed = dict(run.cleanup.removed)
    assert removed.pop("refresh_tokens") == 3
    assert removed == run.cleanup.created
    assert run.cleanup.problem == ""
    assert rows(rig) == before
    assert "removed what the run wrote" in output


def test_the_run_says_what_was_measured(
    rig: Rig, realistic: tuple[Run, str, dict[str, int]]
) -> None:
    run, _, _ = realistic
    manifest = rig.manifest()
    assert run.deployed.release == manifest["id"]
    assert run.deployed.images == manifest["images"]
    assert run.deployed.limits["traefik"] == 80 * 1024**2
    assert run.deployed.postgres["shared_buffers"]
    assert run.machine.cpus == 1
    assert run.machine.memory == 2 * 1024**3
    assert run.command.startswith("koprogo load realistic --rate 100")


def test_the_host_was_watched_meanwhile(realistic: tuple[Run, str, dict[str, int]]) -> None:
    run, _, _ = realistic
    assert run.monitor_problem == ""
    assert len(run.samples) >= 20
    assert run.verdict is not None
    memory = {j.name: j for j in run.verdict.judgements}["postgres_memory"]
    assert memory.met
    # At 100 a second the objective of more than 200 cannot be met, and is said to be missed.
    rate = {j.name: j for j in run.verdict.judgements}["rate"]
    assert not rate.met


def test_the_smoke_tests_find_nothing_left(
    realistic: tuple[Run, str, dict[str, int]],
) -> None:
    done = subprocess.run(
        [KOPROGO, "smoke", "sandbox"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]


EASY = ("--data", "objective_rate=20", "--data", "objective_p50=2s", "--data", "objective_p99=4s",
        "--data", "goal_p99=4s", "--data", "objective_load_average=40")  # fmt: skip


def gate(tmp_path: Path, *arguments: str) -> tuple[int, str, Run]:
    file = tmp_path / "run.json"
    code, output = load(
        "realistic", "--rate", "40", "--seconds", "6", "--gate", "--out", str(file), *arguments
    )
    return code, output, store.load(file)


@pytest.mark.slow
def test_the_gate_passes_what_meets_its_objectives(tmp_path: Path) -> None:
    code, output, run = gate(tmp_path, *EASY)
    if not run.generator.valid:
        assert code == 1
        pytest.skip(f"this machine is too busy: {run.generator.reasons}")
    assert code == 0, output
    assert "PASSED: the gate" in output


@pytest.mark.slow
def test_the_gate_names_the_objective_that_is_missed(tmp_path: Path) -> None:
    code, output, run = gate(tmp_path, *EASY, "--data", "objective_p99=1ms")
    assert code == 1
    assert run.verdict is not None
    missed = [judgement for judgement in run.verdict.judgements if not judgement.met]
    assert [judgement.name for judgement in missed] == ["p99"]
    assert missed[0].by is not None
    assert missed[0].by > 0
    assert "MISSED by" in output
    assert "FAILED: the gate" in output


@pytest.mark.slow
def test_without_its_monitor_the_gate_fails(tmp_path: Path) -> None:
    code, _, run = gate(tmp_path, *EASY, "--no-monitor")
    assert code == 1
    assert run.verdict is not None
    unread = {j.name: j.measured for j in run.verdict.judgements if not j.met}
    assert "it was not sampled" in unread["traefik_memory"]


def test_ctrl_c_ends_it_early_and_cleans_up(rig: Rig) -> None:
    before = rows(rig)
    process = start("realistic", "--rate", "60", "--no-monitor", "--json")
    seen = under_way(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the whole group
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    last = json.loads(rest.splitlines()[-1])
    assert last["event"] == "finished"
    assert last["interrupted"]
    run = store.load(Path(last["file"]))
    assert run.interrupted
    assert run.phases[0].sent > 0
    assert rows(rig) == before
    assert json.loads(seen[-1])["asked"] == 30
    Path(last["file"]).unlink()


def test_what_a_killed_run_left_is_removed_before_the_next(rig: Rig) -> None:
    before = rows(rig)
    process = start("realistic", "--rate", "60", "--no-monitor", "--json")
    under_way(process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    time.sleep(1)
    left = marked(rig)
    assert left > 0
    time.sleep(1)
    assert marked(rig) == left, "the generator went on without its parent"
    file = ROOT / "runs" / "test.json"
    code, output = load("light", "--seconds", "1", "--no-monitor", "--out", str(file))
    assert code == 0, output
    assert "removed what an earlier run had left behind" in output
    file.unlink()
    after = rows(rig)
    # The tokens of a killed run are not known to anybody; they expire after a week.
    tokens = after.pop("refresh_tokens") - before.pop("refresh_tokens")
    assert after == before
    assert tokens == 3


def test_clean_alone(rig: Rig) -> None:
    code, output = load(
        "realistic", "--rate", "20", "--seconds", "1", "--no-monitor", "--keep", "--out", os.devnull
    )
    assert code == 0, output
    assert "kept what was written" in output
    assert marked(rig) > 0
    code, output = load("clean")
    assert (code, "removed what load tests had left" in output) == (0, True)
    assert marked(rig) == 0
    assert "nothing was left" in load("clean")[1]


def test_one_load_test_at_a_time() -> None:
    process = start("light", "--seconds", "8", "--users", "1", "--no-monitor", "--json")
    try:
        under_way(process)
        code, output = load("light", "--seconds", "1")
        assert code == 2
        assert "another load test is running: " in output
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=30)


def test_two_hundred_users_at_once_do_not_end_the_proxy(rig: Rig, tmp_path: Path) -> None:
    """Within its 80 MB it holds their connections, and as many compressed answers."""
    file, started = tmp_path / "run.json", rig.started()["traefik"]
    code, output = load("heavy", "--users", "200", "--seconds", "10", "--out", str(file))
    assert code == 0, output
    run = store.load(file)
    phase = run.phases[-1]
    assert (phase.users, phase.errors) == (200, {}), output
    assert rig.started()["traefik"] == started
    held = [sample.containers["traefik"].memory or 0 for sample in run.samples]
    print(f"Traefik: at most {max(held) / MB:.0f} MB; {phase.achieved_rate:.0f} answers a second")
    assert max(held) < 75 * MB


# --- the rate limiter's exemption ----------------------------------------------------------------

BRIEF = ("realistic", "--rate", "120", "--seconds", "4", "--no-monitor")


@pytest.fixture(scope="module")
def limited(rig: Rig) -> Iterator[str]:
    """A site that limits its load client like everybody: 20 requests a second."""
    client = rig.state.gateway
    rig.converge(
        load_client_addresses=[], rate_limit_average=20, rate_limit_burst=20, objective_rate=10
    )
    yield client
    rig.converge()


def exempt(rig: Rig) -> bool:
    return bool(rig.on_host(f"ls {EXEMPTION} 2>/dev/null || true").strip())


@pytest.mark.slow
def test_without_the_exemption_the_limiter_is_named(limited: str, tmp_path: Path) -> None:
    """The run believes that group data exempts it; what is deployed does not."""
    file = tmp_path / "run.json"
    known = json.dumps([limited])
    code, output = load(*BRIEF, "--data", f"load_client_addresses={known}", "--out", str(file))
    assert code == 0, output
    phase = store.load(file).phases[-1]
    assert phase.errors["4xx"] > 200
    assert "note: 4xx: 429: the rate limiter refuses this client" in output


def test_a_client_is_exempt_for_the_time_of_its_run(rig: Rig, limited: str, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    code, output = load(*BRIEF, "--data", "load_client_addresses=[]", "--out", str(file))
    assert code == 0, output
    assert f"exempting {limited} from the rate limiter" in output
    assert f"{limited} is no longer exempt" in output
    assert store.load(file).phases[-1].errors == {}
    assert not exempt(rig)
    assert rig.on_host(f"ls {BOOT_FILE} 2>/dev/null || true") == ""
    assert UNIT not in rig.on_host("systemctl list-timers --all --no-pager")


def test_a_killed_run_is_not_exempt_any_more(rig: Rig, limited: str) -> None:
    process = start(*BRIEF, "--data", "load_client_addresses=[]", "--json")
    under_way(process)
    assert exempt(rig)
    assert UNIT in rig.on_host("systemctl list-timers --all --no-pager")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    deadline = time.monotonic() + 10
    while exempt(rig) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not exempt(rig)
    load("clean")


@pytest.mark.slow
def test_a_cut_connection_takes_it_back_too(rig: Rig, limited: str) -> None:
    process = start(*BRIEF, "--data", "load_client_addresses=[]", "--json")
    under_way(process)
    assert exempt(rig)
    assert rig.cut_ssh() > 0
    deadline = time.monotonic() + 10
    while exempt(rig) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not exempt(rig)
    rest, _ = process.communicate(timeout=60)
    assert json.loads(rest.splitlines()[-1])["event"] == "finished", rest


@pytest.mark.slow
def test_the_timer_and_a_reboot_take_it_back_as_well(rig: Rig, limited: str) -> None:
    process = start(*BRIEF, "--data", "load_client_addresses=[]", "--json")
    under_way(process)
    # What the timer does when its time comes.
    rig.on_host(f"cp {BOOT_FILE} /run/boot.conf; systemctl start {UNIT}.service")
    assert not exempt(rig)
    # What systemd does at boot, before Docker.
    rig.on_host(f"echo 'http: {{}}' > {EXEMPTION}")
    rig.on_host("systemd-tmpfiles --boot --remove /run/boot.conf; rm /run/boot.conf")
    assert not exempt(rig)
    process.communicate(timeout=60)
    assert "koprogo-load" not in rig.on_host("ls /etc/tmpfiles.d /opt/koprogo/traefik/dynamic")
