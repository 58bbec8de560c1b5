"""Truth of the monitor: what it says, against `docker stats`, /proc, and programs that burn a known
share of a CPU, hold known memory, write and send a known number of bytes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from koprogo_deploy import connection, database
from koprogo_deploy.monitor import Monitor, reading
from koprogo_deploy.outside import Outside
from koprogo_deploy.render import traefik_address
from koprogo_deploy.runs.sample import Sample
from koprogo_deploy.settings import SERVICES
from koprogo_deploy.units import MB
from tests.integration.rig import ROOT, Rig

KOPROGO = str(Path(sys.executable).with_name("koprogo"))
WITHIN = 0.05

# Burns SHARE of a CPU in slices of 100 ms, holds BYTES that cannot be dropped, and says what it
# has used by the kernel's own account: time, CPU seconds, anonymous bytes.
BURNER = r"""
import re, resource, sys, time
share, size = float(sys.argv[1]), int(sys.argv[2])
held = bytearray(size)
for place in range(0, size, 4096): held[place] = 1
def used():
    u = resource.getrusage(resource.RUSAGE_SELF)
    return u.ru_utime + u.ru_stime
anonymous = lambda: 1024 * int(re.search(r"RssAnon:\s+(\d+)", open("/proc/self/status").read())[1])
began, first, told = time.monotonic(), time.process_time(), 0.0
while True:
    while time.process_time() - first < share * (time.monotonic() - began): pass
    if time.monotonic() - told > 0.25:
        told = time.monotonic()
        print(time.time(), used(), anonymous(), flush=True)
    time.sleep(0.05)
"""


@pytest.fixture
def monitor(rig: Rig) -> Iterator[Monitor]:
    with Monitor(rig.environment) as watcher:
        assert watcher.wait(20), watcher.problem
        yield watcher
    assert watcher.problem == ""


def wait_for(monitor: Monitor, true: Callable[[Sample], bool], within: float = 10) -> Sample:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        sample = monitor.latest
        if sample and true(sample):
            return sample
        time.sleep(0.1)
    raise AssertionError(f"not within {within:.0f} s: {monitor.latest}")


def watch(monitor: Monitor, seconds: float) -> list[Sample]:
    """Samples of the next seconds."""
    first = len(monitor.samples)
    time.sleep(seconds)
    return monitor.samples[first:]


def total(samples: Sequence[Sample], rate: Callable[[Sample], float | None]) -> float:
    """What a rate adds up to over consecutive samples, without the first one's second."""
    parts = []
    for before, sample in pairwise(samples):
        value = rate(sample)
        assert value is not None, sample.unread
        parts.append(value * (sample.at - before.at))
    return sum(parts)


def mean(samples: Sequence[Sample], rate: Callable[[Sample], float | None]) -> float:
    return total(samples, rate) / (samples[-1].at - samples[0].at)


# --- all of it ------------------------------------------------------------------------------------


def test_everything_is_read_or_has_its_reason(monitor: Monitor) -> None:
    samples = watch(monitor, 4)
    assert len(samples) >= 3
    for sample in samples:
        assert reading.troubles(sample) == {}
        assert set(reading.missing(sample).values()) <= reading.QUIET
        assert set(sample.containers) >= {"traefik", "postgres", "backend", "frontend"}
        assert sample.host.disks and sample.host.network
        assert sample.traefik.requests is not None
    gaps = [after.at - before.at for before, after in pairwise(samples)]
    assert all(0.8 < gap < 1.2 for gap in gaps), gaps
    assert monitor.clock_offset is not None
    assert abs(monitor.clock_offset) < 0.05  # the box has the machine's clock


def test_watching_costs_next_to_nothing(rig: Rig, monitor: Monitor) -> None:
    samples = watch(monitor, 6)
    # The aim is 1 %; bench/monitor measures it. Three times that would be a fault.
    assert mean(samples, lambda s: s.monitor_cpu_percent) < 3
    own = "FROM pg_stat_activity WHERE application_name = 'koprogo monitor'"
    assert rig.sql(f"SELECT count(*) {own};") == "1"
    others = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
    shown = rig.sql(f"SELECT count(*) {own.partition('WHERE')[0]} WHERE {others};")
    # It does not count itself: one less than somebody else sees.
    counted = wait_for(monitor, lambda s: s.postgres.connections is not None).postgres.connections
    assert counted is not None
    assert sum(counted.values()) == int(shown) - 1


# --- containers -----------------------------------------------------------------------------------


@dataclass
class Burner:
    """A container that burns a known share of a CPU and holds known memory."""

    rig: Rig
    name: str

    def said(self) -> list[tuple[float, float, float]]:
        """Time, CPU seconds, anonymous bytes; as it printed them."""
        lines = self.rig.on_host(f"docker logs {self.name}").splitlines()
        return [tuple(map(float, line.split())) for line in lines]  # type: ignore[misc]

    def cpu_at(self, moment: float) -> float:
        """CPU seconds it had used by then."""
        said = self.said()
        for (t0, c0, _), (t1, c1, _) in pairwise(said):
            if t0 <= moment <= t1:
                return c0 + (c1 - c0) * (moment - t0) / (t1 - t0)
        raise AssertionError(f"{moment} is not within {said[0][0]} to {said[-1][0]}")


@contextlib.contextmanager
def burner(rig: Rig, share: float, size: int, *options: str) -> Iterator[Burner]:
    image = rig.containers()
    backend = next(found for name, found in image.items() if name.startswith("backend"))
    name = "koprogo-burner-1"
    line = [
        "docker", "run", "--detach", "--name", name, "--network", "none",
        "--label", "com.docker.compose.project=koprogo",
        "--label", "com.docker.compose.service=burner", *options,
        "--entrypoint", "python3", backend["Image"], "-c", BURNER, str(share), str(size),
    ]  # fmt: skip
    rig.on_host(f"docker rm -f {name} >/dev/null 2>&1; {shlex.join(line)}")
    try:
        yield Burner(rig, name)
    finally:
        rig.on_host(f"docker rm -f {name}")


def test_a_known_share_of_a_cpu_and_known_memory_within_5_percent(
    rig: Rig, monitor: Monitor
) -> None:
    with burner(rig, 0.3, 100 * MB, "--memory", "200m") as burning:
        wait_for(monitor, lambda s: "burner" in s.containers)  # it came during the watch
        time.sleep(2)  # it has touched all its memory
        samples = watch(monitor, 8)
        time.sleep(1)
        began, ended = samples[0].at, samples[-1].at
        cpu = 100 * (burning.cpu_at(ended) - burning.cpu_at(began)) / (ended - began)
        anonymous = burning.said()[-1][2]
        stats = rig.on_host(f"docker stats --no-stream --format '{{{{.MemUsage}}}}' {burning.name}")
        charged = int(
            rig.on_host(
                "cat /sys/fs/cgroup/memory$(awk -F: '$2 == \"memory\" {print $3}' "
                f"/proc/$(docker inspect -f '{{{{.State.Pid}}}}' {burning.name})/cgroup)"
                "/memory.usage_in_bytes"
            )
        )
    assert 25 < cpu < 35  # the program does what it is there for
    assert mean(samples, lambda s: s.containers["burner"].cpu_percent) == pytest.approx(
        cpu, rel=WITHIN
    )
    last = samples[-1].containers["burner"]
    assert last.anonymous == pytest.approx(anonymous, rel=WITHIN)
    assert last.anonymous is not None and last.anonymous > 100 * MB
    assert last.memory == pytest.approx(size_of(stats.partition("/")[0]), rel=WITHIN)
    assert last.memory_charged == pytest.approx(charged, rel=WITHIN)
    assert last.memory_limit == 200 * MB
    assert (last.restarts, last.oom_kills, last.throttled_ms) == (0, 0, 0)
    wait_for(monitor, lambda s: "burner" not in s.containers)  # and it went


def size_of(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([KMG]?i?B)", text.strip()).groups()  # type: ignore[union-attr]
    return float(number) * {"B": 1, "KiB": 1024, "MiB": MB, "GiB": 1024 * MB}[unit]


def test_throttled_time_is_what_the_quota_took_away(rig: Rig, monitor: Monitor) -> None:
    with burner(rig, 1.0, MB, "--cpus", "0.2", "--memory", "64m"):
        wait_for(monitor, lambda s: "burner" in s.containers)
        time.sleep(2)
        samples = watch(monitor, 6)
    # It wants all, gets a fifth, and waits for the rest.
    assert mean(samples, lambda s: s.containers["burner"].cpu_percent) == pytest.approx(
        20, rel=WITHIN
    )
    throttled = mean(samples, lambda s: s.containers["burner"].throttled_ms)
    assert throttled == pytest.approx(800, rel=0.1)


def test_a_kill_at_the_limit_and_restarts_are_counted(rig: Rig, monitor: Monitor) -> None:
    with burner(rig, 0.05, MB, "--memory", "48m", "--memory-swap", "48m") as burning:
        wait_for(monitor, lambda s: "burner" in s.containers)
        rig.on_host(
            f"docker exec {burning.name} python3 -c 'bytearray(100 * 1024 * 1024)'", check=False
        )
        sample = wait_for(monitor, lambda s: bool(s.containers["burner"].oom_kills))
        assert sample.containers["burner"].oom_kills == 1
    with burner(rig, 0.05, MB, "--restart", "always", "--memory", "64m") as burning:
        wait_for(monitor, lambda s: "burner" in s.containers)
        rig.on_host("kill -9 $(docker inspect -f '{{.State.Pid}}' " + burning.name + ")")
        sample = wait_for(monitor, lambda s: bool((b := s.containers.get("burner")) and b.restarts))
        assert sample.containers["burner"].restarts == 1


def test_memory_is_what_docker_stats_says_of_each_container(rig: Rig, monitor: Monitor) -> None:
    shown = rig.on_host("docker stats --no-stream --format '{{.Name}} {{.MemUsage}}'")
    sample = wait_for(monitor, lambda s: True)
    assert len(shown.splitlines()) >= len(SERVICES)
    for line in shown.splitlines():
        name, used = line.partition("/")[0].split()
        service = name.removeprefix("koprogo-").removesuffix("-1").partition("-")[0]
        assert sample.containers[service].memory == pytest.approx(size_of(used), rel=WITHIN), line


# --- the machine ----------------------------------------------------------------------------------


def processes_cpu(rig: Rig) -> tuple[float, float]:
    """Time, and CPU seconds of every process of the box so far, by /proc."""
    script = (
        "import os, time; t = 0\n"
        "for p in os.listdir('/proc'):\n"
        "    if p.isdigit():\n"
        "        try: s = open(f'/proc/{p}/stat').read().rpartition(')')[2].split()\n"
        "        except OSError: continue\n"
        "        t += sum(map(int, s[11:15]))\n"  # with children that have ended
        "print(time.time(), t / os.sysconf('SC_CLK_TCK'))"
    )
    moment, used = rig.on_host(f"python3 -c {shlex.quote(script)}").split()
    return float(moment), float(used)


def test_the_hosts_cpu_is_what_its_processes_used(rig: Rig, monitor: Monitor) -> None:
    with burner(rig, 0.5, MB, "--memory", "64m"):
        time.sleep(2)
        first = len(monitor.samples)
        began, before = processes_cpu(rig)
        time.sleep(10)
        ended, after = processes_cpu(rig)
        samples = monitor.samples[first:]
    used = 100 * (after - before) / (ended - began)
    assert used > 45
    assert mean(samples, lambda s: s.host.cpu_percent) == pytest.approx(used, rel=WITHIN)


def test_the_hosts_memory_is_the_boxs_own_and_grows_by_what_is_held(
    rig: Rig, monitor: Monitor
) -> None:
    before = wait_for(monitor, lambda s: True).host
    assert before.memory_total == 2048 * MB
    with burner(rig, 0.05, 300 * MB, "--memory", "400m"):
        time.sleep(4)
        during = wait_for(monitor, lambda s: True).host
    assert before.memory_used and during.memory_used and during.memory_available
    # The program itself takes some more than what it holds.
    assert 295 * MB < during.memory_used - before.memory_used < 330 * MB
    assert during.memory_used + during.memory_available == 2048 * MB


@pytest.mark.slow
def test_the_load_average_is_the_kernels_formula_over_the_boxs_own_tasks(rig: Rig) -> None:
    spinning, seconds, damped = 3, 40.0, 60.0
    with Monitor(rig.environment) as monitor:
        assert monitor.wait(20), monitor.problem
        idle = watch(monitor, 15)[-1].host.load1
        assert idle is not None
        history = monitor.samples[-1].at - monitor.samples[0].at
        spin = "end = __import__('time').time() + 45\nwhile __import__('time').time() < end: pass"
        rig.on_host(
            f"for n in $(seq {spinning}); do "
            f"setsid python3 -c {shlex.quote(spin)} >/dev/null 2>&1 </dev/null & done"
        )
        began = time.time()
        time.sleep(seconds)
        last = monitor.samples[-1]
        passed = last.at - began
    now, then = math.exp(-passed / damped), math.exp(-(history + passed) / damped)
    expected = (spinning * (1 - now) + idle * (now - then)) / (1 - then)
    # What else runs waits in the queue behind them, and counts, as it does for the kernel.
    assert last.host.load1 is not None
    assert expected * (1 - WITHIN) <= last.host.load1 <= expected * (1 + WITHIN) + 0.3
    assert last.host.load_source == "tasks"


def test_the_disk_writes_what_was_written(rig: Rig, monitor: Monitor) -> None:
    size = 200 * MB
    first = len(monitor.samples)
    time.sleep(1.1)
    rig.on_host(
        "dd if=/dev/zero of=/var/lib/docker/monitor-test bs=1M count=200 oflag=direct conv=fsync "
        "2>/dev/null; rm /var/lib/docker/monitor-test"
    )
    time.sleep(1.5)
    samples = monitor.samples[first:]
    disks = {name for sample in samples for name in sample.host.disks}
    written = {
        disk: total(samples, lambda s, d=disk: s.host.disks[d].write_bytes)  # type: ignore[misc]
        for disk in disks
    }
    busiest = max(written, key=lambda disk: written[disk])
    # The machine's other work writes there as well.
    assert size * (1 - WITHIN) <= written[busiest] <= size * (1 + WITHIN) + 30 * MB
    busy = [s.host.disks[busiest].busy_percent for s in samples]
    assert max(value for value in busy if value is not None) > 1
    assert any(s.host.disks[busiest].write_ms for s in samples)


def test_the_network_counts_what_was_sent_and_received(rig: Rig, monitor: Monitor) -> None:
    size = 50_000_000
    first = len(monitor.samples)
    time.sleep(1.1)
    line = connection.ssh_command(rig.environment, f"head -c {size} /dev/zero")
    done = subprocess.run(line, stdout=subprocess.PIPE, check=True)
    assert len(done.stdout) == size
    upload = connection.ssh_command(rig.environment, "cat >/dev/null")
    subprocess.run(upload, input=done.stdout, check=True)
    time.sleep(1.5)
    samples = monitor.samples[first:]
    sent = total(samples, lambda s: s.host.network["eth0"].sent_bytes)
    received = total(samples, lambda s: s.host.network["eth0"].received_bytes)
    assert sent == pytest.approx(size, rel=WITHIN)
    assert received == pytest.approx(size, rel=WITHIN)


def test_requests_are_counted_by_status_each_one_once(rig: Rig, monitor: Monitor) -> None:
    first = len(monitor.samples)
    time.sleep(1.1)
    with Outside(rig.environment.settings) as outside:
        for _ in range(100):
            assert outside.api.get("/health").status_code == 200
        for _ in range(20):
            assert outside.api.get("/no-such-page").status_code == 404
    time.sleep(2)
    samples = monitor.samples[first:]

    def counted(status: str) -> float:
        return total(samples, lambda s: (s.traefik.requests or {}).get(status, 0.0))

    assert counted("2xx") == pytest.approx(100, rel=WITHIN)
    assert counted("4xx") == pytest.approx(20, rel=WITHIN)
    assert counted("5xx") == 0


# --- the proxy's counters are for the host alone --------------------------------------------------


def test_the_counters_answer_the_host_and_nobody_else(rig: Rig) -> None:
    url = f"http://{traefik_address(rig.environment.settings.edge_network)}:8082/metrics"
    ask = f"curl -s -m 3 -o /dev/null -w '%{{http_code}}' {url}"
    assert rig.on_host(ask) == "200"
    backend = next(name for name in rig.containers() if name.startswith("backend"))
    assert rig.on_host(f"docker exec koprogo-{backend}-1 {ask}") == "404"
    with Outside(rig.environment.settings) as outside:
        assert "traefik_" not in outside.frontend.get("/metrics").text  # the site's own page


# --- the line to the host -------------------------------------------------------------------------


def gone(rig: Rig, within: float = 5) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not rig.probes():
            return True
        time.sleep(0.2)
    return False


def test_nothing_is_left_on_the_host_even_when_the_watcher_is_killed(rig: Rig) -> None:
    assert rig.probes() == []
    process = subprocess.Popen(
        [KOPROGO, "monitor", "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    Sample.model_validate_json(process.stdout.readline())
    assert rig.probes()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(rig)


def test_a_cut_connection_is_told_and_the_watch_goes_on(rig: Rig) -> None:
    with Monitor(rig.environment) as monitor:
        assert monitor.wait(20), monitor.problem
        assert rig.cut_ssh() >= 1
        seen = len(monitor.samples)
        deadline = time.monotonic() + 15
        while len(monitor.samples) < seen + 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(monitor.samples) >= seen + 3
        assert monitor.problem.startswith("connection lost after")
    rig.hang_up()
    assert gone(rig)


def test_without_a_database_its_figures_are_unread_and_the_rest_goes_on(rig: Rig) -> None:
    with Monitor(rig.environment) as monitor:
        assert monitor.wait(20), monitor.problem
        rig.on_host("docker restart -t 20 koprogo-postgres-1")
        time.sleep(1)
        wait_for(monitor, lambda s: s.postgres.connections is not None, within=20)
    without = [s for s in monitor.samples if s.postgres.connections is None]
    assert without
    assert all("postgres" in s.unread for s in without)
    assert all(s.host.memory_used for s in without)
    rig.wait_until_healthy()


# --- the command ----------------------------------------------------------------------------------


def koprogo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KOPROGO, "monitor", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_command_writes_json_lines_a_log_and_one_table(rig: Rig) -> None:
    done = koprogo("--json", "--seconds", "2")
    assert done.returncode == 0, done.stderr
    lines = [Sample.model_validate_json(line) for line in done.stdout.splitlines()]
    assert len(lines) >= 2
    done = koprogo("--seconds", "2")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\d\d:\d\d:\d\d \| CPU \d+% load [\d.]+", done.stdout, re.MULTILINE)
    assert re.search(r"^traefik memory +[\d.]+ MB", done.stdout, re.MULTILINE)
    done = koprogo("--once", "--json")
    sample = Sample.model_validate_json(done.stdout)
    assert sample.host.cpu_percent is not None


def test_ctrl_c_ends_it_with_a_summary(rig: Rig) -> None:
    process = subprocess.Popen(
        [KOPROGO, "monitor"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout
    for _ in range(3):
        process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "host CPU" in output and "Traceback" not in errors
    assert gone(rig)


def test_an_unknown_role_shows_as_unread_and_once_exits_1(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "OBSERVER", "nobody_of_that_name")
    with Monitor(rig.environment) as monitor:
        assert monitor.wait(20), monitor.problem
        sample = monitor.samples[-1]
    assert sample.postgres.connections is None
    assert "Postgres says" in sample.unread["postgres"]
    assert json.loads(sample.model_dump_json())["postgres"]["commits"] is None
