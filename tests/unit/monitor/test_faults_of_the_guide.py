"""Each fault of the guide's own monitor that a tool like this could repeat, and that it does not.

The original divided human-readable strings, took since-boot averages for now, drifted, counted
itself, and said that all was well where it could not look.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from koprogo_deploy.monitor import table, watch
from koprogo_deploy.monitor.probe import keep
from koprogo_deploy.monitor.probe.host import disk_sample
from koprogo_deploy.monitor.probe.loop import missed
from koprogo_deploy.monitor.probe.parse import flat, network_counters
from koprogo_deploy.monitor.probe.postgres import activity_query
from koprogo_deploy.monitor.thresholds import Level, findings
from koprogo_deploy.runs.sample import HostSample, PostgresSample
from koprogo_deploy.units import MB
from tests.project import Project
from tests.unit.monitor import recorded, samples
from tests.unit.monitor.test_host import host, look


def test_memory_is_never_worked_out_from_human_readable_strings(tmp_path: Path) -> None:
    # It divided "790Mi" by "1.9Gi" and printed 41578.9 %.
    info = "MemTotal: 1992294 kB\nMemAvailable: 1183334 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"
    found, _ = look(host(tmp_path, meminfo=info), keep.Rates(), 1.0)
    assert found.memory_used == 790 * MB
    assert found.memory_total
    assert 100 * 790 * MB / found.memory_total == pytest.approx(40.6, abs=0.1)
    assert flat(b"MemTotal: 1.9Gi\n") == {}  # not taken for 1, or for 19


def test_a_disks_business_is_of_this_second_not_the_average_since_boot() -> None:
    # `iostat -x 1 1` shows the average since boot, always.
    rates = keep.Rates()
    since_boot = (10_000_000, 0, 90_000_000, 10_000_000, 0, 90_000_000, 80_000_000)
    first = disk_sample(keep.Sheet(), rates, 100.0, "host.disks.sda", since_boot)
    assert set(first.values()) == {None}
    second = disk_sample(keep.Sheet(), rates, 101.0, "host.disks.sda", since_boot)
    assert (second["busy_percent"], second["read_ms"]) == (0, None)


def test_the_period_does_not_drift_however_slow_a_look_is() -> None:
    # `docker stats` took 2 s, and then it slept for the interval.
    now, number, due = 0.0, 0, []
    for took in (0.01, 0.7, 0.01, 1.6, 0.01):
        number = missed(0.0, 1.0, number, now + took)
        now = number * 1.0
        due.append(now)
    assert due == [1.0, 2.0, 3.0, 5.0, 6.0]


def test_rates_are_by_the_time_that_passed_not_by_the_interval() -> None:
    rates = keep.Rates()
    with pytest.raises(Exception, match="first sample"):
        rates.second("x", 0, 10.0)
    assert rates.second("x", 300, 13.0) == 100


def test_the_monitor_does_not_count_itself() -> None:
    query = activity_query(17)
    assert "pid <> pg_backend_pid()" in query
    # Nor the server's own processes, which are no connections.
    assert "backend_type = 'client backend'" in query


def test_a_transaction_that_idles_is_seen() -> None:
    states = {"idle": 1, "idle in transaction": 3}
    made = samples.sample(postgres=samples.postgres(connections=states, longest_transaction=40.0))
    from tests.unit.monitor.test_table import shown

    text = shown(table.screen(made, ""))
    assert "3 idle in transaction" in text
    assert "longest transaction 40.0 s" in text


def test_unread_is_never_ok() -> None:
    # "No errors detected", when it could not read the logs.
    unread = samples.sample(
        host=HostSample(), postgres=PostgresSample(), unread={"host": "x", "postgres": "y"}
    )
    levels = {f.level for f in findings(unread) if not f.path.startswith("containers.")}
    assert levels == {Level.unknown}
    with_traffic = samples.sample(traefik=samples.sample().traefik.model_copy(
        update={"requests": None}), unread={"traefik": "gone"})  # fmt: skip
    assert "5xx ?" in table.line(with_traffic)
    assert "5xx 0" not in table.line(with_traffic)


def test_connections_of_clients_are_the_proxys_own_count_not_the_hosts_sockets() -> None:
    # `ss` on the host does not see a container's sockets: 0, always.
    from koprogo_deploy.monitor.probe.parse import traefik_counters

    text = b'traefik_open_connections{entrypoint="websecure",protocol="TCP"} 20\n'
    assert traefik_counters(text)[1] == 20
    # What the host's own namespace does have is its traffic, without that of containers twice.
    text = recorded.NET_DEV.format(received=7, sent=8).encode()
    assert network_counters(text).keys() == {"eth0"}


def test_nothing_depends_on_the_folder_it_is_started_in(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `-f docker-compose.vps.yml`, relative: "Unable to connect" from any other folder.
    environment = project.open()
    here = watch.command(environment, 1.0, 60, 1), watch.program()
    monkeypatch.chdir(tmp_path)
    assert (watch.command(environment, 1.0, 60, 1), watch.program()) == here
    told = watch.config(environment, 1.0, 60)
    assert told["engine"].startswith("/")
    assert ".yml" not in str(told) and ".yaml" not in str(told)
