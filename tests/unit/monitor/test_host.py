"""The machine's figures; the box's where the probe runs in one."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from koprogo_deploy.monitor.probe import keep
from koprogo_deploy.monitor.probe.host import Host, Tasks
from koprogo_deploy.monitor.probe.parse import (
    UnreadError,
    cpu_times,
    network_counters,
    pressure_totals,
    task_waits,
)
from koprogo_deploy.runs.sample import HostSample
from tests.unit.monitor import recorded

MB = 1 << 20
STAT = "cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"


def files(**changes: str) -> dict[str, str]:
    return {
        "1/cgroup": "0::/init.scope\n",
        "stat": STAT.format(busy=1000, idle=1000),
        "loadavg": "1.27 1.75 1.04 2/318 4944\n",
        "meminfo": recorded.MEMINFO,
        "diskstats": recorded.DISKSTATS.format(100, 800, 50, 200, 1600, 300, 400),
        "net/dev": recorded.NET_DEV.format(received=1000, sent=500),
    } | {name.replace("_", "/"): text for name, text in changes.items()}


def host(tmp_path: Path, **changes: str) -> Host:
    proc = recorded.write(tmp_path / "proc", files(**changes))
    (tmp_path / "block/vda1").mkdir(parents=True, exist_ok=True)
    (tmp_path / "block/vda1/partition").touch()
    (tmp_path / "cgroup").mkdir(exist_ok=True)
    return Host(str(tmp_path / "cgroup"), str(proc), str(tmp_path / "block"), str(tmp_path))


def look(found: Host, rates: keep.Rates, at: float) -> tuple[HostSample, dict[str, str]]:
    sheet = keep.Sheet()
    sample = HostSample.model_validate(found.sample(sheet, rates, at))
    return sample, sheet.unread


def test_a_machine_is_read_from_proc(tmp_path: Path) -> None:
    found, rates = host(tmp_path), keep.Rates()
    first, unread = look(found, rates, 10.0)
    assert (first.cpu_percent, unread["host.cpu_percent"]) == (None, "first sample")
    assert (first.load1, first.load_source) == (1.27, "kernel")
    changed = files(
        stat=STAT.format(busy=1030, idle=1070),
        diskstats=recorded.DISKSTATS.format(110, 800 + 2048, 60, 240, 1600 + 4096, 400, 1400),
    )
    changed["net/dev"] = recorded.NET_DEV.format(received=5000, sent=2500)
    recorded.write(tmp_path / "proc", changed)
    second, unread = look(found, rates, 12.0)
    assert second.cpu_percent == pytest.approx(30)
    assert second.memory_total == 2014140 * 1024
    assert second.memory_available == 1205248 * 1024
    assert second.memory_used == (2014140 - 1205248) * 1024
    assert second.swap_used == 284 * 1024
    assert second.disks.keys() == {"vda"}  # no partition, no loop, nothing that was never used
    disk = second.disks["vda"]
    assert disk.busy_percent == pytest.approx(50)  # 1000 ms of 2 s
    assert disk.read_ms == pytest.approx(1.0)
    assert disk.write_ms == pytest.approx(2.5)
    assert (disk.read_bytes, disk.write_bytes) == (512 * 1024, 1024 * 1024)
    assert second.network.keys() == {"eth0"}
    network = second.network["eth0"]
    assert (network.received_bytes, network.sent_bytes) == (2000, 1000)
    assert second.disk_total and second.disk_free and second.disk_free < second.disk_total
    assert set(unread) == {f"host.pressure.{what}" for what in ("cpu", "memory", "io")}
    assert set(unread.values()) == {"the kernel keeps no PSI"}


def test_a_box_is_read_from_its_control_group_not_from_the_machine_around_it(
    tmp_path: Path,
) -> None:
    recorded.v2(tmp_path / "cgroup", "/")
    found, rates = host(tmp_path), keep.Rates()
    first, _ = look(found, rates, 10.0)
    assert first.load_source == "tasks"
    assert (first.load1, first.memory_total) == (None, 83886080)
    # What is charged, without file pages and kernel memory that can be dropped.
    assert first.memory_used == 22269952 - 409600 - 4096 - 102400
    stat = recorded.V2["cpu.stat"].replace("usage_usec 1787935", "usage_usec 1987935")
    pressure = recorded.V2["cpu.pressure"].replace("72415166", "72915166")
    recorded.write(tmp_path / "cgroup", {"cpu.stat": stat, "cpu.pressure": pressure})
    second, unread = look(found, rates, 12.0)
    # 0.2 s in 2 s, and its quota is a quarter of a CPU.
    assert second.cpu_percent == pytest.approx(100 * 0.1 / 0.25)
    assert second.pressure["cpu"].some == pytest.approx(25)
    assert second.pressure["cpu"].full == 0
    assert second.pressure["io"].some is None
    assert unread["host.pressure.io"] == "the box has none of its own"


def test_a_disk_that_did_nothing_has_no_latency_and_a_share_of_nought(tmp_path: Path) -> None:
    found, rates = host(tmp_path), keep.Rates()
    look(found, rates, 1.0)
    second, unread = look(found, rates, 2.0)
    assert second.disks["vda"].busy_percent == 0
    assert second.disks["vda"].read_ms is None
    assert unread["host.disks.vda.read_ms"] == "no reads"
    assert unread["host.disks.vda.write_ms"] == "no writes"


def test_what_cannot_be_read_is_said_one_by_one(tmp_path: Path) -> None:
    found = host(tmp_path)
    for name in ("meminfo", "diskstats", "loadavg"):
        (tmp_path / "proc" / name).unlink()
    sample, unread = look(found, keep.Rates(), 1.0)
    assert (sample.memory_used, sample.load1, sample.disks) == (None, None, {})
    assert {"host.memory_total", "host.memory_used", "host.load1", "host.disks"} <= set(unread)
    assert sample.network["eth0"].received_bytes is None
    assert unread["host.network.eth0.received_bytes"] == "first sample"


def test_stolen_time_is_busy_and_waiting_for_a_disk_is_not() -> None:
    hertz = os.sysconf("SC_CLK_TCK")
    busy, total = cpu_times(b"cpu  10 0 0 50 20 0 0 20 0 0\n")
    assert (busy * hertz, total * hertz) == (30, 100)


def test_pressure_is_the_share_of_this_second_not_an_average() -> None:
    text = recorded.V2["cpu.pressure"].encode()
    assert pressure_totals(text) == {"some": 72.415166, "full": 29.038445}


def test_interfaces_of_containers_are_not_the_hosts() -> None:
    text = recorded.NET_DEV.format(received=7, sent=8).encode()
    assert network_counters(text) == {"eth0": (7, 8, 4, 6)}


@pytest.mark.parametrize(
    ("stat", "counted"),
    [
        (b"12 (nginx) R 1 12", True),
        (b"12 (postgres) D 1 12", True),
        (b"12 (systemd) S 0 1", False),
        (b"12 (kworker/0:0) I 2 0", False),
        (b"12 (evil) R (x) S 1 12", False),  # a name may hold anything
    ],
)
def test_the_load_counts_tasks_that_run_or_wait_for_a_disk(stat: bytes, counted: bool) -> None:
    assert task_waits(stat) is counted


def task(root: Path, pid: int, states: str) -> None:
    for number, state in enumerate(states):
        text = f"{pid + number} (x) {state} 1 1\n"
        recorded.write(root, {f"{pid}/task/{pid + number}/stat": text})


def test_a_boxs_load_counts_every_thread_but_the_probes_own(tmp_path: Path) -> None:
    task(tmp_path, 10, "RS")
    task(tmp_path, 20, "D")
    task(tmp_path, 30, "R")
    tasks = Tasks(str(tmp_path), without=[30])
    with pytest.raises(UnreadError, match="first sample"):
        _ = tasks.load
    tasks.look(1.0)
    assert tasks.load == pytest.approx(2)


def test_a_boxs_load_sees_who_came_and_who_went(tmp_path: Path) -> None:
    task(tmp_path, 10, "R")
    tasks = Tasks(str(tmp_path), without=[])
    tasks.look(0.0)
    (tmp_path / "10/task/10/stat").unlink()
    (tmp_path / "10/task/10").rmdir()
    (tmp_path / "10/task").rmdir()
    (tmp_path / "10").rmdir()
    task(tmp_path, 40, "RR")
    tasks._refresh()
    assert set(tasks.open) == {"40"}
    assert tasks._count() == 2


def test_a_boxs_load_is_the_kernels_formula_once_it_has_a_history() -> None:
    tasks = Tasks("/proc", without=[])
    for second in range(600):
        tasks.note(0, float(second))
    for second in range(600, 660):
        tasks.note(4, float(second))
    assert tasks.load == pytest.approx(4 * (1 - math.exp(-1)), rel=0.01)


def test_a_boxs_load_without_a_history_is_the_mean_of_what_was_seen() -> None:
    tasks = Tasks("/proc", without=[])
    for second in range(10):
        tasks.note(3, float(second))
        assert tasks.load == pytest.approx(3)
    for second in range(10, 20):
        tasks.note(1, float(second))
    assert 1.8 < tasks.load < 2.0  # the later ones weigh a little more
