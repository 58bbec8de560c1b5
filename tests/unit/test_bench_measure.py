"""What a benchmark makes of the kernel's counters, and how it keeps what is finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import counters, measure
from bench.figures import Failed
from bench.measure import Kept, Measured, costs, kept, rotated
from koprogo_deploy.problems import Refusal
from koprogo_deploy.runs.model import Generator, Machine, Phase, Run


def line(at: float, traefik: int, machine: int, periods: int = 0, throttled: int = 0) -> Any:
    quota = {"periods": periods, "throttled": throttled}
    return {
        "at": at,
        "counts": {
            "traefik": {"usage": traefik, **quota},
            "machine": {"usage": machine, "periods": 0, "throttled": 0},
        },
    }


def test_cpu_time_of_a_phase_is_divided_by_its_requests() -> None:
    # Half a CPU in Traefik and a further tenth elsewhere, at 1000 requests a second.
    lines = [line(at, int(at * 500_000), int(at * 600_000)) for at in range(20)]
    found = costs(lines, began=5, ended=15, rate=1000)
    assert found["traefik"].per_request == pytest.approx(500)
    assert found["traefik"].cpu_percent == pytest.approx(50)
    assert found["traefik"].throttled_percent is None, "there was no quota"
    assert found["rest"].per_request == pytest.approx(100)


def test_what_was_before_and_after_the_phase_does_not_count() -> None:
    # A login's hash before, a clean-up after: each takes a whole second of CPU.
    usage = [0, 1_000_000, *(1_000_000 + 10_000 * n for n in range(10)), 2_100_000, 3_100_000]
    lines = [line(float(at), used, used) for at, used in enumerate(usage)]
    found = costs(lines, began=1.5, ended=11.5, rate=10)
    assert found["traefik"].per_request == pytest.approx(1000)


def test_throttled_periods_are_a_share_of_those_with_a_quota() -> None:
    lines = [line(at, 0, 0, periods=10 * at, throttled=4 * at) for at in range(20)]
    assert costs(lines, 0, 19, 250)["traefik"].throttled_percent == pytest.approx(40)


def test_a_run_that_was_not_counted_has_no_costs() -> None:
    with pytest.raises(Failed, match="0 of 3 countings"):
        costs([line(at, 0, 0) for at in range(3)], began=100, ended=110, rate=250)


def test_rounds_begin_with_another_one_each() -> None:
    assert [rotated("ABC", n) for n in range(4)] == [list(o) for o in ("ABC", "BCA", "CAB", "ABC")]


def measured(round_: int, rate: float = 1, valid: bool = True) -> Measured:
    phase = Phase(name="x", mode="open", began=0, seconds=1, achieved_rate=rate, sent_rate=1)
    generator = Generator(
        valid=valid, cpu_percent_mean=0, cpu_percent_max=0, late_p99_ms=0, late_max_ms=0,
        connections=1,
    )  # fmt: skip
    run = Run(
        id="x", environment="sandbox", url="https://x", profile="x", began=0, seconds=1,
        phases=[phase], series=[], generator=generator, machine=Machine(host="x"),
    )  # fmt: skip
    return Measured(configuration="ours + more", load="250/s", round=round_, run=run, costs={})


def test_finished_ones_are_found_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    first = kept("tuning", go_on=False, conditions={"seconds": 30})
    first.put(measured(0))
    again = kept("tuning", go_on=True, conditions={"seconds": 30})
    assert again.get(measured(0).key) == measured(0)
    assert again.get(measured(1).key) is None
    assert len(again.all()) == 1
    with pytest.raises(Refusal, match="made with"):
        kept("tuning", go_on=True, conditions={"seconds": 10})
    assert kept("tuning", go_on=False, conditions={"seconds": 10}) == Kept(tmp_path / "tuning")
    assert again.all() == [], "begun anew"


def rate(one: Measured) -> float | None:
    return one.phase.achieved_rate


def test_a_difference_is_called_one_only_when_it_is_shown() -> None:
    noisy = [measured(n, value) for n, value in enumerate((100, 112, 95, 104))]
    alike = [measured(n, value) for n, value in enumerate((101, 96, 110, 108))]
    apart = [measured(n, value) for n, value in enumerate((200, 190, 210, 205))]
    assert measure.against(noisy, alike, rate, "rate") == "rate no difference shown"
    assert measure.against(noisy, apart, rate, "rate").startswith("rate +99 % (")
    assert measure.against(noisy[:3], apart[:3], rate).endswith("(too few runs)")
    spoilt = [*apart[:3], measured(3, 205, valid=False)]
    assert measure.against(noisy[:3], spoilt, rate).endswith("(too few runs)"), "one was invalid"


class Cgroups:
    """A hierarchy of either version, in a folder."""

    def __init__(self, version: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.one = root / "one"
        self.one.mkdir()
        monkeypatch.setattr(counters, "ROOT", str(root))
        self.group = dict.fromkeys(("cpu", "cpuacct"), str(self.one))
        stat = "nr_periods 60\nnr_throttled 56\n"
        if version == 1:
            (self.one / "cpu.cfs_quota_us").write_text("-1\n")
            (self.one / "cpu.cfs_period_us").write_text("100000\n")
            (self.one / "cpuacct.usage").write_text("7000000\n")  # nanoseconds
        else:
            (self.one / "cpu.max").write_text("max 100000\n")
            stat += "usage_usec 7000\n"
        (self.one / "cpu.stat").write_text(stat)


@pytest.fixture(params=[1, 2])
def cgroups(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> Cgroups:
    return Cgroups(request.param, tmp_path, monkeypatch)


def test_both_versions_of_cgroups_are_counted_alike(cgroups: Cgroups) -> None:
    assert counters.count(cgroups.group) == {"usage": 7000, "periods": 60, "throttled": 56}


def test_a_quota_is_set_read_and_taken_away(cgroups: Cgroups) -> None:
    assert counters.limited(cgroups.group) is None
    counters.limit(cgroups.group, 0.25)
    assert counters.limited(cgroups.group) == 0.25
    counters.limit(cgroups.group, None)
    assert counters.limited(cgroups.group) is None


def test_the_paths_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    one = "2:cpuacct:/docker/b\n1:cpu:/docker/b/init.scope\n0::/docker/b/init.scope"
    monkeypatch.setattr(counters, "read", lambda _: one)
    assert counters.directories(1) == {
        "cpu": "/sys/fs/cgroup/cpu/docker/b", "cpuacct": "/sys/fs/cgroup/cpuacct/docker/b",
    }  # fmt: skip
    monkeypatch.setattr(counters, "read", lambda _: "0::/system.slice/docker-b.scope")
    assert json.dumps(counters.directories(1)).count("/sys/fs/cgroup/system.slice/docker-b") == 2
